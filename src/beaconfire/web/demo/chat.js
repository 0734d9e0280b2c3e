// @ts-check
/** The state of the chat: one connection with a name, and the joined rooms. */

import { Client } from "/client/beaconfire.js";
import { RoomSubscription } from "./room_subscription.js";
import { Room } from "./room.js";

/** @typedef {import("/client/events.js").StateChange} StateChange */
/** @typedef {import("./room.js").Entry} Entry */
/** @typedef {import("./store.js").OutgoingMessage} OutgoingMessage */
/** @typedef {import("./store.js").Store} Store */
/**
 * `waiting`: the next attempt is scheduled. `stopped`: no attempt follows until the user asks for one.
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
  /** @type {StateChange} the latest state event */
  #change = { state: "idle", previous: "idle", code: 0, reason: "", retryAt: 0, transport: "", client: "" };
  /** The id of the current or the last connection. */
  #clientId = "";
  #onChange;
  #onMessage;
  /** @type {Map<Room, RoomSubscription>} */
  #subscriptions = new Map();

  /**
   * @param {object} options
   * @param {string[]} [options.transports] the allowed transports; all by default
   * @param {Store} options.store
   * @param {() => void} options.onChange called after any change that the page shows
   * @param {(room: Room, entry: Entry) => void} options.onMessage called for each new message of another person, live or recovered
   */
  constructor({ transports, store, onChange, onMessage }) {
    this.#store = store;
    this.#onChange = onChange;
    this.#onMessage = onMessage;
    this.#client = new Client(location.origin, { transports, retryMaxMs: RETRY_MAX_MS });
    this.#client.on("state", (change) => {
      this.#change = change;
      this.#clientId = change.client || this.#clientId;
      onChange();
    });
    setInterval(() => this.#refreshPresence(), PRESENCE_INTERVAL_MS);
  }

  get name() {
    return this.#store.name;
  }

  /** The state of the connection. `retryAt` is in milliseconds since 1970; `reason` says why the connection was lost. */
  get connection() {
    const { state, retryAt, reason, transport } = this.#change;
    /** @type {Phase} */
    const phase =
      state === "connected" ? state
      : state === "disconnected" ? "stopped"
      : retryAt > Date.now() ? "waiting"
      : "connecting";
    return { phase, retryAt, reason, transport, client: this.#clientId };
  }

  /** Connects. A scheduled attempt starts at once. */
  connect() {
    this.#client.data = { name: this.name };
    this.#client.connect();
  }

  /** Changes the user's name. The page reconnects, because the name is sent with the connect command. @param {string} name */
  rename(name) {
    this.#store.name = name;
    if (this.#client.state === "idle") return;
    this.#client.disconnect();
    this.connect();
  }

  /** Shows a room, and joins it if necessary. @param {string} name */
  select(name) {
    const room = this.rooms.get(name) ?? this.#add(name);
    room.unread = 0;
    this.current = room;
    if (room.phase === "refused") this.#join(room);
    this.#onChange();
  }

  /** Joins the rooms of the last visit, and the rooms that have outgoing messages. @param {string[]} names */
  restore(names) {
    for (const name of [...names, ...this.#store.outgoing.map((message) => message.room)]) {
      if (!this.rooms.has(name)) this.#add(name);
    }
  }

  /** Leaves a room and deletes its outgoing messages. @param {Room} room */
  leave(room) {
    this.rooms.delete(room.name);
    for (const message of this.#store.outgoingFor(room.name)) this.#store.drop(message.uid);
    this.#saveRooms();
    if (this.current === room) this.current = this.rooms.values().next().value ?? null;
    if (this.current) this.current.unread = 0;
    this.#subscriptions.get(room)?.leave();
    this.#subscriptions.delete(room);
    this.#onChange();
  }

  /** @param {string} text */
  send(text) {
    if (!this.current) return;
    this.#post({ uid: newUid(), room: this.current.name, text, at: Date.now() }, this.current);
  }

  /** Sends a refused message again. @param {Entry} entry */
  retry(entry) {
    if (!this.current) return;
    this.#post({ uid: entry.uid, room: this.current.name, text: entry.text, at: entry.at }, this.current);
  }

  /** Deletes a refused message. @param {Entry} entry */
  discard(entry) {
    this.#store.drop(entry.uid);
    this.current?.discard(entry.uid);
    this.#onChange();
  }

  /** @param {OutgoingMessage} message @param {Room} room */
  #post(message, room) {
    this.#store.keep(message);
    room.addOutgoing(message, this.name);
    this.#subscriptions.get(room)?.flush();
    this.#onChange();
  }

  /** @param {string} name */
  #add(name) {
    const room = new Room(name);
    this.rooms.set(name, room);
    this.#saveRooms();
    for (const message of this.#store.outgoingFor(name)) room.addOutgoing(message, this.name);
    this.#join(room);
    return room;
  }

  /** @param {Room} room */
  #join(room) {
    const onMessage = (/** @type {Entry} */ entry) => {
      if (room !== this.current || document.hidden) room.unread++;
      this.#onMessage(room, entry);
    };
    const subscription = new RoomSubscription({ client: this.#client, room, store: this.#store, onChange: this.#onChange, onMessage });
    this.#subscriptions.set(room, subscription);
  }

  #saveRooms() {
    this.#store.rooms = [...this.rooms.keys()];
  }

  #refreshPresence() {
    if (this.current?.members) this.#subscriptions.get(this.current)?.refreshPresence();
  }
}

/** `crypto.randomUUID` does not exist on pages that another machine serves over plain HTTP. */
function newUid() {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
