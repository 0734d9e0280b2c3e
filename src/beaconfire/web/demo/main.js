// @ts-check
/** Puts the page together. Reading order: rooms, store, membership, chat, view. */

import { Chat } from "./chat.js";
import { Store } from "./store.js";
import { View } from "./view.js";

const FIRST_ROOM = "campfire";

const store = new Store();
const chat = makeChat();
const view = new View(chat);

/** The address may say which ways to the server are allowed, as in `?transports=http_stream,sse`: to see the others work. */
function makeChat() {
  const transports = new URLSearchParams(location.search).get("transports")?.split(",");
  try {
    return new Chat({
      transports,
      store,
      onChange: () => view.refresh(),
      onArrival: (room, entry) => view.announce(room, entry),
    });
  } catch (error) {
    document.body.textContent = String(error); // it says which there are
    throw error;
  }
}

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
  chat.connect();
}

window.addEventListener("hashchange", () => {
  const name = roomInAddress();
  if (store.name && name && name !== chat.current?.name) chat.select(name);
});
document.addEventListener("visibilitychange", () => {
  if (document.hidden || !store.name) return;
  if (chat.current) chat.current.unread = 0;
  view.refresh();
});

if (store.name) start();
else view.askName(start);
