// @ts-check
/** What the page does with the browser client: one connection under a name, and the rooms that are open on it. */

import { Client } from "/client/beaconfire.js";
import { Membership } from "./membership.js";
import { Room } from "./rooms.js";

/** @typedef {import("/client/events.js").StateChange} StateChange */
/** @typedef {import("./rooms.js").Entry} Entry */
/** @typedef {import("./store.js").Letter} Letter */
/** @typedef {import("./store.js").Store} Store */
/**
 * `waiting` is until the next attempt, `stopped` until somebody asks for one.
 * @typedef {"connecting" | "connected" | "waiting" | "stopped"} Phase
 */

const RETRY_MAX_MS = 20_000;
const PRESENCE_INTERVAL_MS = 30_000;

export class Chat {
  /** @type {Map<string, Room>} */
  rooms = new Map();
  /** @type {Room | null} */
  current = null;

  #store;
  #client;
  /** @type {StateChange} the last one */
  #change = { state: "idle", previous: "idle", code: 0, reason: "", retryAt: 0, transport: "", client: "" };
  /** Our connection's id, or the last one's while there is none. */
  #me = "";
  #onChange;
  #onArrival;
  /** @type {Map<Room, Membership>} */
  #memberships = new Map();

  /**
   * @param {object} options
   * @param {string[]} [options.transports] those that may be used, all if nothing is said
   * @param {Store} options.store
   * @param {() => void} options.onChange anything that is shown may have changed
   * @param {(room: Room, entry: Entry) => void} options.onArrival somebody else's message came, live or recovered
   */
  constructor({ transports, store, onChange, onArrival }) {
    this.#store = store;
    this.#onChange = onChange;
    this.#onArrival = onArrival;
    this.#client = new Client(location.origin, { transports, retryMaxMs: RETRY_MAX_MS });
    this.#client.on("state", (change) => {
      this.#change = change;
      this.#me = change.client || this.#me;
      onChange();
    });
    setInterval(() => this.#refreshPresence(), PRESENCE_INTERVAL_MS);
  }

  get name() {
    return this.#store.name;
  }

  /** What the connection is doing: `retryAt` in milliseconds since 1970, and why it is not there. */
  get connection() {
    const { state, retryAt, reason, transport } = this.#change;
    /** @type {Phase} */
    const phase =
      state === "connected" ? state
      : state === "disconnected" ? "stopped"
      : retryAt > Date.now() ? "waiting"
      : "connecting";
    return { phase, retryAt, reason, transport, client: this.#me };
  }

  /** Connects, or tries at once if that was put off. */
  connect() {
    this.#client.data = { name: this.name };
    this.#client.connect();
  }

  /** Says who we are from now on; a new connection carries the name. @param {string} name */
  rename(name) {
    this.#store.name = name;
    if (this.#client.state === "idle") return;
    this.#client.disconnect();
    this.connect();
  }

  /** Opens a room, entering it if need be, and shows it. @param {string} name */
  select(name) {
    const room = this.rooms.get(name) ?? this.#add(name);
    room.unread = 0;
    this.current = room;
    if (room.phase === "refused") this.#enter(room);
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
    for (const letter of this.#store.lettersFor(room.name)) this.#store.drop(letter.uid);
    this.#remember();
    if (this.current === room) this.current = this.rooms.values().next().value ?? null;
    if (this.current) this.current.unread = 0;
    this.#memberships.get(room)?.leave();
    this.#memberships.delete(room);
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
    this.#memberships.get(room)?.flush();
    this.#onChange();
  }

  /** @param {string} name */
  #add(name) {
    const room = new Room(name);
    this.rooms.set(name, room);
    this.#remember();
    for (const letter of this.#store.lettersFor(name)) room.write(letter, this.name);
    this.#enter(room);
    return room;
  }

  /** @param {Room} room */
  #enter(room) {
    const onArrival = (/** @type {Entry} */ entry) => {
      if (room !== this.current || document.hidden) room.unread++;
      this.#onArrival(room, entry);
    };
    const membership = new Membership({ client: this.#client, room, store: this.#store, onChange: this.#onChange, onArrival });
    this.#memberships.set(room, membership);
  }

  #remember() {
    this.#store.rooms = [...this.rooms.keys()];
  }

  #refreshPresence() {
    if (this.current?.members) this.#memberships.get(this.current)?.refreshPresence();
  }
}

/** `crypto.randomUUID` is missing on plain http from another machine. */
function newUid() {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
