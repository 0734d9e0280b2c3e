// @ts-check
/** Puts the page together. Reading order: connection, rooms, store, chat, view. */

import { Chat } from "./chat.js";
import { Store } from "./store.js";
import { View } from "./view.js";

const FIRST_ROOM = "campfire";

const store = new Store();
const chat = new Chat({
  url: `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`,
  store,
  onChange: () => view.refresh(),
  onArrival: (room, entry) => view.announce(room, entry),
});
const view = new View(chat);

/** The address names the room, so that a link leads into it. */
function roomInAddress() {
  try {
    return decodeURIComponent(location.hash.slice(1)).trim();
  } catch {
    return "";
  }
}

function start() {
  chat.restore(store.rooms);
  chat.select(roomInAddress() || store.rooms[0] || FIRST_ROOM);
  chat.connection.open();
}

window.addEventListener("hashchange", () => {
  const name = roomInAddress();
  if (store.name && name && name !== chat.current?.name) chat.select(name);
});
window.addEventListener("online", () => chat.connection.check());
window.addEventListener("offline", () => chat.connection.check());
document.addEventListener("visibilitychange", () => {
  if (document.hidden || !store.name) return;
  chat.connection.check();
  if (chat.current) chat.current.unread = 0;
  view.refresh();
});

if (store.name) start();
else view.askName(start);

/** For tests: what the connection is doing, and a way to lose it. */
Object.defineProperty(window, "beaconfireDemo", {
  value: {
    get state() {
      return chat.connection.state;
    },
    cut: () => chat.connection.cut(),
  },
});
