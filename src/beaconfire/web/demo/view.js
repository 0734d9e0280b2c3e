// @ts-check
/**
 * Draws the state of `Chat`, and passes the user's actions to it. The view has no chat state of its own.
 *
 * After any change the whole page is drawn again, at most once per turn of the event loop; `reconcile` makes that cheap.
 */

import { byId, make, reconcile, setText } from "./dom.js";
import { MessageList } from "./message_list.js";
import { drawAvatar, drawPeople, groupByPerson } from "./presence.js";

/** @typedef {import("./chat.js").Chat} Chat */
/** @typedef {import("./room.js").Room} Room */
/** @typedef {import("./room.js").Entry} Entry */

const TEXT_HEIGHT_MAX_PX = 160;
/** @type {Record<string, string>} */
const TRANSPORTS = { websocket: "WebSocket", http_stream: "HTTP stream", sse: "Server-Sent Events", poll: "Polling" };

export class View {
  #chat;
  #messages;
  #scheduled = false;
  #phase = "";
  #shown = "";
  #app = byId("app", HTMLElement);
  #text = byId("text", HTMLTextAreaElement);
  #dialog = byId("name-dialog", HTMLDialogElement);

  /** @param {Chat} chat */
  constructor(chat) {
    this.#chat = chat;
    this.#messages = new MessageList(chat);
    this.#listenToRooms();
    this.#listenToComposer();
    this.#listenToPanels();
    this.#listenToConnection();
    byId("me", HTMLElement).onclick = () => this.askName(() => {});
    setInterval(() => this.#drawConnection(), 500);
  }

  /** Draws the page in the next turn of the event loop. */
  refresh() {
    if (this.#scheduled) return;
    this.#scheduled = true;
    // Not requestAnimationFrame: it does not run in hidden tabs, whose title must show the number of unread messages.
    setTimeout(() => {
      this.#scheduled = false;
      this.#draw();
    }, 0);
  }

  /** Announces a message to screen readers. @param {Room} room @param {Entry} entry */
  announce(room, entry) {
    const place = room === this.#chat.current ? "" : ` in ${room.name}`;
    const announcer = byId("announcer", HTMLElement);
    announcer.append(make("p", "", `${entry.author || "Server"}${place}: ${entry.text}`));
    while (announcer.children.length > 5) announcer.firstElementChild?.remove();
  }

  /** Asks for a name. Calls `proceed` after the user entered the first name. @param {() => void} proceed */
  askName(proceed) {
    const input = byId("name", HTMLInputElement);
    const known = this.#chat.name;
    input.value = known;
    byId("name-form", HTMLFormElement).onsubmit = () => {
      const name = input.value.trim();
      if (name && name !== known) this.#chat.rename(name);
      if (name && !known) proceed();
      this.refresh();
    };
    input.oninput = () => input.setCustomValidity(input.value.trim() ? "" : "Please enter a name.");
    this.#dialog.oncancel = (event) => known || event.preventDefault();
    this.#dialog.showModal();
    input.select();
  }

  // --- The user's actions --------------------------------------------------------------------------------------

  #listenToRooms() {
    const input = byId("join-name", HTMLInputElement);
    byId("join-form", HTMLFormElement).onsubmit = (event) => {
      event.preventDefault();
      const name = input.value.trim().replace(/^#+/, "");
      if (name) this.#open(name);
      input.value = "";
    };
    byId("leave", HTMLElement).onclick = () => this.#chat.current && this.#chat.leave(this.#chat.current);
    document.addEventListener("keydown", (event) => {
      if (!event.altKey || !["ArrowUp", "ArrowDown"].includes(event.key)) return;
      event.preventDefault();
      const names = [...this.#chat.rooms.keys()];
      const here = names.indexOf(this.#chat.current?.name ?? "");
      const next = names.at((here + (event.key === "ArrowUp" ? -1 : 1)) % names.length);
      if (next) this.#open(next);
    });
  }

  /** @param {string} name */
  #open(name) {
    this.#chat.select(name);
    this.#showPanel("");
    this.#text.focus();
  }

  #listenToComposer() {
    const submit = () => {
      const text = this.#text.value.trim();
      if (!text || !this.#chat.current) return;
      this.#chat.send(text);
      this.#text.value = "";
      this.#messages.followEnd();
      this.#fitText();
    };
    byId("composer", HTMLFormElement).onsubmit = (event) => {
      event.preventDefault();
      submit();
    };
    this.#text.onkeydown = (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return; // during composition, Enter selects a character
      event.preventDefault();
      submit();
    };
    this.#text.oninput = () => this.#fitText();
  }

  #fitText() {
    if (this.#chat.current) this.#chat.current.draft = this.#text.value;
    this.#text.style.height = "auto";
    this.#text.style.height = `${Math.min(this.#text.scrollHeight, TEXT_HEIGHT_MAX_PX)}px`;
    byId("send", HTMLButtonElement).disabled = !this.#text.value.trim();
  }

  #listenToPanels() {
    byId("open-rooms", HTMLElement).onclick = () => this.#showPanel("rooms");
    byId("open-people", HTMLElement).onclick = () => this.#showPanel("people");
    byId("close-people", HTMLElement).onclick = () => this.#showPanel("");
    byId("backdrop", HTMLElement).onclick = () => this.#showPanel("");
    document.addEventListener("keydown", (event) => event.key === "Escape" && this.#showPanel(""));
    this.#showPanel("");
  }

  /** On narrow screens the lists of rooms and people are drawers; at most one is open. @param {"rooms" | "people" | ""} panel */
  #showPanel(panel) {
    const before = this.#app.dataset.panel;
    this.#app.dataset.panel = panel;
    for (const name of /** @type {const} */ (["rooms", "people"])) {
      const opener = byId(`open-${name}`, HTMLElement);
      opener.setAttribute("aria-expanded", String(name === panel));
      const first = byId(`${name}-panel`, HTMLElement).querySelector(".room, button");
      if (name === panel && first instanceof HTMLElement) first.focus();
      else if (name === before) opener.focus();
    }
  }

  #listenToConnection() {
    const retry = () => {
      const { phase } = this.#chat.connection;
      if (phase === "waiting" || phase === "stopped") this.#chat.connect();
    };
    byId("connection", HTMLElement).onclick = retry;
    byId("notice-action", HTMLElement).onclick = () => {
      if (this.#chat.connection.phase === "connected" && this.#chat.current) this.#chat.select(this.#chat.current.name);
      else retry();
    };
  }

  // --- Drawing ---------------------------------------------------------------------------------------------------

  #draw() {
    const room = this.#chat.current;
    this.#app.hidden = !this.#chat.name;
    this.#drawConnection();
    this.#drawRooms();
    drawPeople(room, this.#chat.connection.client);
    this.#drawHead(room);
    this.#messages.draw(room);
    drawAvatar(byId("me-avatar", HTMLElement), this.#chat.name);
    setText(byId("me-name", HTMLElement), this.#chat.name);
  }

  #drawConnection() {
    const { phase, retryAt, reason, transport } = this.#chat.connection;
    const button = byId("connection", HTMLElement);
    const seconds = Math.max(1, Math.ceil((retryAt - Date.now()) / 1000));
    const texts = {
      connecting: "Connecting…",
      connected: `Connected · ${TRANSPORTS[transport] ?? transport}`,
      waiting: navigator.onLine ? `Reconnecting in ${seconds} s` : `Offline, trying again in ${seconds} s`,
      stopped: "Disconnected",
    };
    button.dataset.phase = phase;
    button.title = phase === "waiting" ? `Try now${reason && ` (${reason})`}` : "";
    setText(byId("connection-text", HTMLElement), texts[phase]);
    if (phase === this.#phase) return;
    this.#phase = phase;
    setText(byId("status", HTMLElement), phase === "waiting" ? "Connection lost, reconnecting" : texts[phase]);
  }

  #drawRooms() {
    const { rooms, current } = this.#chat;
    const unread = [...rooms.values()].reduce((sum, room) => sum + room.unread, 0);
    document.title = `${unread ? `(${unread}) ` : ""}${current ? `${current.name} · ` : ""}Beaconfire`;
    byId("unread-dot", HTMLElement).hidden = unread === (current?.unread ?? 0);
    reconcile(byId("room-list", HTMLElement), [...rooms.values()], (room) => room.name, (room) => this.#makeRoom(room), drawRoom);
    for (const item of byId("room-list", HTMLElement).children) {
      const here = /** @type {HTMLElement} */ (item).dataset.key === current?.name;
      item.firstElementChild?.setAttribute("aria-current", here ? "page" : "false");
    }
  }

  /** @param {Room} room */
  #makeRoom(room) {
    const item = make("li");
    const button = make("button", "room");
    button.type = "button";
    button.append(make("span", "room-hash", "#"), make("span", "room-title", room.name), make("span", "badge"));
    button.onclick = () => this.#open(room.name);
    item.append(button);
    return item;
  }

  /** @param {Room | null} room */
  #drawHead(room) {
    const name = room?.name ?? "";
    const { phase, reason } = this.#chat.connection;
    setText(byId("room-name", HTMLElement), room ? name : "Beaconfire");
    setText(byId("room-about", HTMLElement), room ? aboutRoom(room) : "");
    byId("leave", HTMLElement).hidden = !room;
    byId("composer", HTMLElement).hidden = !room;
    this.#text.placeholder = `Message #${name}`;
    const problem =
      phase === "stopped" ? `The server ended the connection: ${reason}.`
      : room?.phase === "refused" ? `You are not in #${name}: ${room.problem}.`
      : "";
    byId("notice", HTMLElement).hidden = !problem;
    setText(byId("notice-text", HTMLElement), problem);
    if (this.#shown === name) return;
    this.#shown = name;
    this.#text.value = room?.draft ?? "";
    this.#fitText();
    if (room) history.replaceState(null, "", `#${encodeURIComponent(name)}`);
  }
}

/** @param {HTMLElement} item @param {Room} room */
function drawRoom(item, room) {
  const badge = /** @type {HTMLElement} */ (item.querySelector(".badge"));
  badge.hidden = room.unread === 0;
  setText(badge, room.unread > 99 ? "99+" : String(room.unread));
  badge.setAttribute("aria-label", `${room.unread} unread`);
  item.classList.toggle("troubled", room.phase === "refused");
}

/** @param {Room} room */
function aboutRoom(room) {
  if (room.phase === "joining" && !room.visited) return "Joining…";
  const count = groupByPerson(room).length;
  return count === 0 ? "" : count === 1 ? "1 person here" : `${count} people here`;
}
