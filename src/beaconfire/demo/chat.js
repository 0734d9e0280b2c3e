// @ts-check
/**
 * What the page does with the browser client: enters rooms, shows what it is told, gets every message out exactly once.
 *
 * Coming back is the client's business: each subscription goes on at its position, and what was missed comes as
 * publications behind `subscribed`. Where that is not possible a gap is shown and history is read. Then, and not
 * before, letters go out: one whose acknowledgement was lost may have just come back as stored.
 * Sending: a letter is kept until it is stored, and sent again whenever that is uncertain; readers know it by its uid.
 */

import { Client, ClientError } from "/client/beaconfire.js";
import { Room } from "./rooms.js";

/** @typedef {import("/client/beaconfire.js").Subscription} Subscription */
/** @typedef {import("/client/words.js").StateChange} StateChange */
/** @typedef {import("/client/words.js").Subscribed} Subscribed */
/** @typedef {import("/client/words.js").Publication} Publication */
/** @typedef {import("./rooms.js").Entry} Entry */
/** @typedef {import("./store.js").Letter} Letter */
/** @typedef {import("./store.js").Store} Store */
/** `waiting` is until the next attempt, `stopped` until somebody asks for one. @typedef {"connecting" | "connected" | "waiting" | "stopped"} Phase */

const HISTORY_LIMIT = 100;
const RETRY_MS = 2_000;
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
  /** @type {Map<Room, Subscription>} those that the server lets us be in */
  #subscriptions = new Map();
  /** @type {Set<string>} uids that were sent and not answered yet */
  #inFlight = new Set();

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
    for (const letter of this.#lettersFor(room)) this.#store.drop(letter.uid);
    this.#remember();
    if (this.current === room) this.current = this.rooms.values().next().value ?? null;
    if (this.current) this.current.unread = 0;
    this.#forget(room);
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
    this.#enter(room);
    return room;
  }

  #remember() {
    this.#store.rooms = [...this.rooms.keys()];
  }

  /** @param {Room} room */
  #lettersFor(room) {
    return this.#store.letters.filter((letter) => letter.room === room.name);
  }

  // --- being in a room -------------------------------------------------------------------------------------------

  /** From where we stand in it, if it was ended before. @param {Room} room */
  #enter(room) {
    const subscription = this.#client.subscription(room.name, { since: room.position ?? undefined });
    this.#subscriptions.set(room, subscription);
    room.phase = "joining";
    subscription.on("state", ({ state, reason }) => {
      if (state === "subscribing") room.phase = "joining";
      if (state === "unsubscribed") this.#beRefused(room, reason);
      this.#onChange();
    });
    subscription.on("subscribed", (event) => this.#catchUp(room, subscription, event));
    subscription.on("publication", (publication) => this.#receive(room, publication, true));
    subscription.on("join", ({ info }) => {
      room.addMember(info);
      this.#onChange();
    });
    subscription.on("leave", ({ info }) => {
      room.removeMember(info);
      this.#onChange();
    });
    subscription.subscribe();
  }

  /** @param {Room} room */
  #forget(room) {
    const subscription = this.#subscriptions.get(room);
    this.#subscriptions.delete(room);
    if (subscription) this.#client.remove(subscription);
  }

  /** The server does not let us in, or has put us out. @param {Room} room @param {string} reason */
  #beRefused(room, reason) {
    room.phase = "refused";
    room.problem = reason;
    this.#forget(room);
  }

  /** @param {Room} room @param {Subscription} subscription @param {Subscribed} subscribed */
  async #catchUp(room, subscription, subscribed) {
    room.enter(subscribed);
    // What was recovered is told right behind this event: it is here after any await.
    await (subscribed.recovered ? null : this.#readHistory(room, subscription));
    if (subscription.state !== "subscribed") return;
    room.phase = "joined";
    this.#flush(room);
    await this.#readPresence(room, subscription);
  }

  /** @param {Room} room @param {Subscription} subscription */
  async #readHistory(room, subscription) {
    const page = await subscription.history({ limit: HISTORY_LIMIT, reverse: true }).catch(noneIfRefused);
    for (const publication of page?.publications.reverse() ?? []) this.#receive(room, publication, false);
  }

  /** @param {Room} room @param {Subscription} subscription */
  async #readPresence(room, subscription) {
    const answer = subscription.presence().then((presence) => Object.values(presence));
    await room.setMembers(answer.catch(noneIfRefused));
    this.#onChange();
  }

  /** Joins and leaves tell most of it; connections that died silently are seen here. */
  #refreshPresence() {
    const room = this.current;
    const subscription = room && this.#subscriptions.get(room);
    if (subscription && room.members && room.phase === "joined") this.#readPresence(room, subscription);
  }

  /** @param {Room} room @param {Publication} publication @param {boolean} fresh whether it is news to the reader */
  #receive(room, publication, fresh) {
    const entry = room.receive(publication, (uid) => this.#store.hasSent(uid));
    if (typeof publication.data?.uid === "string") this.#store.drop(publication.data.uid);
    this.#onChange();
    if (!entry || entry.mine || !fresh) return;
    if (room !== this.current || document.hidden) room.unread++;
    this.#onArrival(room, entry);
  }

  // --- sending ---------------------------------------------------------------------------------------------------

  /** Sends what waits for this room, in order. @param {Room} room */
  #flush(room) {
    const subscription = this.#subscriptions.get(room);
    if (room.phase !== "joined" || !subscription) return;
    for (const letter of this.#lettersFor(room)) {
      if (!this.#inFlight.has(letter.uid)) this.#send(room, subscription, letter);
    }
  }

  /** @param {Room} room @param {Subscription} subscription @param {Letter} letter */
  async #send(room, subscription, { uid, text, at }) {
    this.#inFlight.add(uid);
    try {
      await subscription.publish({ uid, text, at });
      this.#store.drop(uid);
      room.acknowledge(uid);
    } catch (error) {
      if (!(error instanceof ClientError)) throw error;
      this.#failToSend(room, uid, error);
    } finally {
      this.#inFlight.delete(uid);
      this.#onChange();
    }
  }

  /**
   * What may work later, or may have worked, stays in the store and is sent again, now or after the next reconnect. So does
   * what was refused only because we are on our way back into the room.
   * @param {Room} room @param {string} uid @param {ClientError} error
   */
  #failToSend(room, uid, error) {
    if (error.temporary || error.uncertain || room.phase === "joining") {
      setTimeout(() => this.#flush(room), RETRY_MS);
    } else {
      this.#store.drop(uid);
      room.refuse(uid, error.message);
    }
  }
}

/** History and presence may be switched off, or their answer lost: the room is of use without. @param {unknown} error @returns {null} */
function noneIfRefused(error) {
  if (error instanceof ClientError) return null;
  throw error;
}

/** `crypto.randomUUID` is missing on plain http from another machine. */
function newUid() {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
