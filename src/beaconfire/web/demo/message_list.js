// @ts-check
/** The message list of a room. It groups messages by author, and follows the newest message unless the reader has scrolled up. */

import { byId, make, reconcile, setText } from "./dom.js";
import { drawAvatar } from "./presence.js";

/** @typedef {import("./chat.js").Chat} Chat */
/** @typedef {import("./room.js").Room} Room */
/** @typedef {import("./room.js").Entry} Entry */

const GROUP_WITHIN_MS = 5 * 60_000;
const NEAR_END_PX = 80;
const LINK = /https?:\/\/[^\s<>"]+[^\s<>"'.,;:!?)\]]/g;

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const calendar = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "medium" });

export class MessageList {
  #chat;
  #list = byId("messages", HTMLElement);
  #scroller = byId("scroller", HTMLElement);
  #jump = byId("jump", HTMLElement);
  #room = "";
  #last = "";
  #following = true;

  /** @param {Chat} chat */
  constructor(chat) {
    this.#chat = chat;
    this.#jump.onclick = () => this.followEnd();
    this.#scroller.onscroll = () => {
      const { scrollHeight, scrollTop, clientHeight } = this.#scroller;
      this.#following = scrollHeight - scrollTop - clientHeight < NEAR_END_PX;
      if (this.#following) this.#jump.hidden = true;
    };
    new ResizeObserver(() => this.#following && this.followEnd()).observe(this.#scroller);
  }

  /** Scrolls to the newest message, and follows later ones. */
  followEnd() {
    this.#following = true;
    this.#jump.hidden = true;
    this.#scroller.scrollTop = this.#scroller.scrollHeight;
  }

  /** @param {Room | null} room */
  draw(room) {
    const entries = room?.entries ?? [];
    if (this.#room !== room?.name) {
      this.#room = room?.name ?? "";
      this.#list.replaceChildren();
      this.#following = true;
      this.#last = "";
    }
    reconcile(
      this.#list,
      entries,
      (entry) => entry.uid,
      (entry) => (entry.kind === "gap" ? makeGap() : this.#makeMessage(entry)),
      (element, entry, index) => this.#drawMessage(element, entry, entries[index - 1]),
    );
    this.#drawEmpty(room);
    const last = entries.at(-1)?.uid ?? "";
    if (this.#following) this.followEnd();
    else if (last !== this.#last) this.#jump.hidden = false;
    this.#last = last;
  }

  /** @param {Entry} entry */
  #makeMessage(entry) {
    const item = make("li", entry.mine ? "message mine" : "message");
    const author = entry.author || "Server";
    const avatar = make("span", "avatar");
    avatar.setAttribute("aria-hidden", "true");
    drawAvatar(avatar, author);
    const head = make("p", "message-head");
    head.append(make("span", "author", author));
    if (entry.at) {
      const time = make("time", "", clock.format(entry.at));
      time.dateTime = new Date(entry.at).toISOString();
      time.title = calendar.format(entry.at);
      head.append(time);
    }
    const bubble = make("p", "bubble");
    bubble.append(...withLinks(entry.text));
    const body = make("div", "message-body");
    body.append(head, bubble, make("p", "message-state"));
    item.append(avatar, body);
    return item;
  }

  /** @param {HTMLElement} element @param {Entry} entry @param {Entry | undefined} previous */
  #drawMessage(element, entry, previous) {
    if (entry.kind === "gap") return;
    const follows = previous?.kind === "message" && previous.author === entry.author && previous.mine === entry.mine;
    element.classList.toggle("grouped", follows && Math.abs(entry.at - previous.at) < GROUP_WITHIN_MS);
    const online = this.#chat.connection.phase === "connected";
    const state = entry.state === "pending" ? (online ? "Sending…" : "Waiting for the connection") : entry.problem;
    const line = /** @type {HTMLElement} */ (element.querySelector(".message-state"));
    if (element.dataset.state === entry.state && line.dataset.text === state) return;
    element.dataset.state = entry.state;
    line.dataset.text = state;
    line.replaceChildren(entry.state === "refused" ? `Not sent: ${state}. ` : state);
    if (entry.state === "refused") {
      line.append(textButton("Try again", () => this.#chat.retry(entry)), textButton("Discard", () => this.#chat.discard(entry)));
    }
  }

  /** @param {Room | null} room */
  #drawEmpty(room) {
    const empty = byId("empty", HTMLElement);
    empty.hidden = (room?.entries.length ?? 0) > 0 || room?.phase === "refused";
    const joined = room?.phase === "joined";
    const title = !room ? "No room is open" : joined ? "No messages yet" : "Loading…";
    const text = !room
      ? "Select a room on the left, or enter a new name to create one."
      : joined
        ? "Write the first message. To see it arrive, open this page in a second tab or send the link to a friend."
        : "";
    setText(byId("empty-title", HTMLElement), title);
    setText(byId("empty-text", HTMLElement), text);
  }
}

function makeGap() {
  const item = make("li", "gap");
  item.append(make("span", "", "Some messages may be missing here"));
  return item;
}

/** @param {string} text @param {() => void} action */
function textButton(text, action) {
  const button = make("button", "text-button", text);
  button.type = "button";
  button.onclick = action;
  return button;
}

/** Converts web addresses to links. The rest stays text. @param {string} text @returns {(string | Node)[]} */
function withLinks(text) {
  /** @type {(string | Node)[]} */
  const parts = [];
  let end = 0;
  for (const match of text.matchAll(LINK)) {
    const link = make("a", "", match[0]);
    link.href = match[0];
    link.target = "_blank";
    link.rel = "noopener noreferrer nofollow";
    parts.push(text.slice(end, match.index), link);
    end = match.index + match[0].length;
  }
  parts.push(text.slice(end));
  return parts;
}
