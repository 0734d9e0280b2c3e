// @ts-check
/** Creates the chat and its view. Reading order: room, store, room_subscription, chat, view. */

import { Chat } from "./chat.js";
import { Store } from "./store.js";
import { View } from "./view.js";

const FIRST_ROOM = "campfire";

const store = new Store();
const chat = makeChat();
const view = new View(chat);

/** The address can select transports, for example `?transports=http_stream,sse`, to try them. */
function makeChat() {
  const transports = new URLSearchParams(location.search).get("transports")?.split(",");
  try {
    return new Chat({
      transports,
      store,
      onChange: () => view.refresh(),
      onMessage: (room, entry) => view.announce(room, entry),
    });
  } catch (error) {
    document.body.textContent = String(error); // the error lists the available transports
    throw error;
  }
}

/** The name of the room in the address, so that a link can open a room. */
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
