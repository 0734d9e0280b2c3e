// @ts-check
/**
 * What the page does: enters rooms, keeps them up to date across cuts, and gets every message out exactly once.
 *
 * Entering: `join` with the position we know; what was missed comes with the answer. Where that is not possible a
 * gap is shown and history is read. Then, and not before, letters go out: one whose acknowledgement was lost may
 * have just come back as stored.
 * Sending: with `echo`, so that our own messages come in the room's order and our position moves with them. A letter
 * is kept until it is acknowledged and sent again after every reconnect; readers know it by its uid.
 */

import { Connection, ConnectionLost, Refused } from "./connection.js";
import { Room } from "./rooms.js";

/** @typedef {import("./connection.js").Message} Message */
/** @typedef {import("./rooms.js").Entry} Entry */
/** @typedef {import("./store.js").Letter} Letter */
/** @typedef {import("./store.js").Store} Store */

const HISTORY_LIMIT = 100;
const RETRY_MS = 2_000;
const PRESENCE_INTERVAL_MS = 30_000;
const ALREADY_SUBSCRIBED = 105;
const RESUBSCRIBE_FROM = 2500;

export class Chat {
  /** @type {Map<string, Room>} */
  rooms = new Map();
  /** @type {Room | null} */
  current = null;

  #store;
  #onChange;
  #onArrival;
  /** @type {Set<string>} uids that were sent and not answered yet */
  #inFlight = new Set();

  /**
   * @param {object} options
   * @param {string} options.url
   * @param {Store} options.store
   * @param {() => void} options.onChange anything that is shown may have changed
   * @param {(room: Room, entry: Entry) => void} options.onArrival somebody else's message came, live or recovered
   */
  constructor({ url, store, onChange, onArrival }) {
    this.#store = store;
    this.#onChange = onChange;
    this.#onArrival = onArrival;
    this.connection = new Connection({
      url,
      handshake: () => ({ user: store.name }),
      onState: (state) => this.#follow(state.phase),
      onMessage: (message) => this.#hear(message),
    });
    setInterval(() => this.#refreshPresence(), PRESENCE_INTERVAL_MS);
  }

  get name() {
    return this.#store.name;
  }

  /** Says who we are from now on; a new connection carries the name. @param {string} name */
  rename(name) {
    const known = this.name;
    this.#store.name = name;
    if (known) this.connection.open();
  }

  /** Opens a room, entering it if need be, and shows it. @param {string} name */
  select(name) {
    const room = this.rooms.get(name) ?? this.#add(name);
    room.unread = 0;
    this.current = room;
    if (room.phase === "refused") room.phase = "away";
    this.#enter(room);
    this.#onChange();
  }

  /** Enters the rooms of the last visit, and those that letters wait for. @param {string[]} names */
  restore(names) {
    for (const name of [...names, ...this.#store.letters.map((letter) => letter.room)]) {
      if (!this.rooms.has(name)) this.#add(name);
    }
  }

  /** Goes for good; what was not sent there yet is forgotten. @param {Room} room */
  leave(room) {
    this.rooms.delete(room.name);
    for (const letter of this.#lettersFor(room)) this.#store.drop(letter.uid);
    this.#remember();
    if (this.current === room) this.current = this.rooms.values().next().value ?? null;
    if (this.current) this.current.unread = 0;
    this.connection.request({ type: "leave", room: room.name }).catch(ignoreLoss);
    this.#onChange();
  }

  /** @param {string} text */
  say(text) {
    if (!this.current) return;
    this.#post({ uid: newUid(), room: this.current.name, text, at: Date.now() }, this.current);
  }

  /** Sends a refused message again. @param {Entry} entry */
  retry(entry) {
    if (!this.current) return;
    this.#post({ uid: entry.uid, room: this.current.name, text: entry.text, at: entry.at }, this.current);
  }

  /** Gives a refused message up. @param {Entry} entry */
  discard(entry) {
    this.#store.drop(entry.uid);
    this.current?.discard(entry.uid);
    this.#onChange();
  }

  /** @param {Letter} letter @param {Room} room */
  #post(letter, room) {
    this.#store.keep(letter);
    room.write(letter, this.name);
    this.#flush(room);
    this.#onChange();
  }

  /** @param {string} name */
  #add(name) {
    const room = new Room(name);
    this.rooms.set(name, room);
    this.#remember();
    for (const letter of this.#lettersFor(room)) room.write(letter, this.name);
    return room;
  }

  #remember() {
    this.#store.rooms = [...this.rooms.keys()];
  }

  /** @param {Room} room */
  #lettersFor(room) {
    return this.#store.letters.filter((letter) => letter.room === room.name);
  }

  // --- with the connection ---------------------------------------------------------------------------------------

  /** @param {import("./connection.js").Phase} phase */
  #follow(phase) {
    for (const room of this.rooms.values()) {
      if (room.phase !== "refused") room.phase = "away";
    }
    this.#inFlight.clear();
    if (phase === "connected") for (const room of this.rooms.values()) this.#enter(room);
    this.#onChange();
  }

  /** @param {Room} room */
  async #enter(room) {
    if (room.phase !== "away" || this.connection.state.phase !== "connected") return;
    const { client } = this.connection.state;
    room.phase = "joining";
    try {
      const since = room.position ? { since: room.position } : {};
      const joined = await this.connection.request({ type: "join", room: room.name, ...since }).catch(unlessInside);
      room.enter(joined);
      for (const message of joined.messages ?? []) this.#receive(room, message, true);
      if (joined.recovered !== true) await this.#readHistory(room);
      if (this.connection.state.client !== client || !this.rooms.has(room.name)) return;
      room.phase = "joined";
      this.#flush(room);
      await this.#readPresence(room);
    } catch (error) {
      this.#failToEnter(room, error);
    }
    this.#onChange();
  }

  /** @param {Room} room @param {unknown} error */
  #failToEnter(room, error) {
    if (!(error instanceof Refused)) return ignoreLoss(error);
    room.phase = error.temporary ? "away" : "refused";
    room.problem = error.message;
    if (error.temporary) setTimeout(() => this.#enter(room), RETRY_MS);
  }

  /** @param {Room} room */
  async #readHistory(room) {
    const request = { type: "history", room: room.name, limit: HISTORY_LIMIT, reverse: true };
    const history = await this.connection.request(request).catch(unlessRefused);
    for (const message of history?.messages.reverse() ?? []) this.#receive(room, message, false);
  }

  /** @param {Room} room */
  async #readPresence(room) {
    const presence = await this.connection.request({ type: "presence", room: room.name }).catch(unlessRefused);
    if (presence) room.setMembers(presence.clients);
  }

  /** Joins and leaves tell most of it; connections that died silently are seen here. */
  async #refreshPresence() {
    const room = this.current;
    if (!room?.members || room.phase !== "joined") return;
    await this.#readPresence(room).catch(ignoreLoss);
    this.#onChange();
  }

  /** Sends what waits for this room, in order. @param {Room} room */
  #flush(room) {
    if (room.phase !== "joined") return;
    for (const letter of this.#lettersFor(room)) {
      if (!this.#inFlight.has(letter.uid)) this.#send(room, letter);
    }
  }

  /** @param {Room} room @param {Letter} letter */
  async #send(room, letter) {
    const { uid, text, at } = letter;
    this.#inFlight.add(uid);
    try {
      const data = { uid, text, at };
      const ack = await this.connection.request({ type: "message", room: room.name, data, echo: true });
      this.#store.drop(uid);
      room.acknowledge(uid, ack.offset ?? 0);
    } catch (error) {
      if (!(error instanceof Refused)) return ignoreLoss(error); // it stays in the store for the next connection
      if (error.temporary) {
        setTimeout(() => this.#flush(room), RETRY_MS);
      } else {
        this.#store.drop(uid);
        room.refuse(uid, error.message);
      }
    }
    this.#inFlight.delete(uid);
    this.#onChange();
  }

  // --- what the server says unasked ------------------------------------------------------------------------------

  /** @param {Message} message */
  #hear(message) {
    const room = this.rooms.get(message.room);
    if (!room) return;
    if (message.type === "message") this.#receive(room, message, true);
    else if (message.type === "join" && !message.self) room.addMember(message);
    else if (message.type === "leave") room.removeMember(message);
    else if (message.type === "left") this.#beTakenOut(room, message);
    this.#onChange();
  }

  /** @param {Room} room @param {Message} message @param {boolean} fresh whether it is news to the reader */
  #receive(room, message, fresh) {
    const entry = room.receive(message, (uid) => this.#store.hasSent(uid));
    if (typeof message.data?.uid === "string") this.#store.drop(message.data.uid);
    if (!entry || entry.mine || !fresh) return;
    if (room !== this.current || document.hidden) room.unread++;
    this.#onArrival(room, entry);
  }

  /** @param {Room} room @param {Message} message */
  #beTakenOut(room, message) {
    if (message.code === undefined) return;
    room.phase = message.code >= RESUBSCRIBE_FROM ? "away" : "refused";
    room.problem = String(message.reason);
    this.#enter(room);
  }
}

/** The server may have put us in already: as good as joined, only that it is not told from where on. @param {unknown} error */
function unlessInside(error) {
  if (error instanceof Refused && error.code === ALREADY_SUBSCRIBED) return /** @type {Message} */ ({ type: "joined" });
  throw error;
}

/** History and presence may be switched off; the room is of use without. @param {unknown} error @returns {null} */
function unlessRefused(error) {
  if (error instanceof Refused) return null;
  throw error;
}

/** The next connection does it again. @param {unknown} error */
function ignoreLoss(error) {
  if (!(error instanceof ConnectionLost)) throw error;
}

/** `crypto.randomUUID` is missing on plain http from another machine. */
function newUid() {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
