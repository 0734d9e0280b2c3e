// @ts-check
/**
 * Being in a room: up to date across cuts, with who is here, and with every letter stored exactly once.
 *
 * Coming back is the client's business: the subscription goes on at its position, and what was missed comes as
 * publications behind `subscribed`. Where that is not possible a gap is shown and history is read. Then, and not
 * before, letters go out: one whose acknowledgement was lost may have just come back as stored.
 * Sending: a letter is kept until it is stored, and sent again whenever that is uncertain; readers know it by its uid.
 */

import { ClientError } from "/client/beaconfire.js";

/** @typedef {import("/client/beaconfire.js").Client} Client */
/** @typedef {import("/client/events.js").Publication} Publication */
/** @typedef {import("/client/events.js").Subscribed} Subscribed */
/** @typedef {import("./rooms.js").Entry} Entry */
/** @typedef {import("./rooms.js").Room} Room */
/** @typedef {import("./store.js").Letter} Letter */
/** @typedef {import("./store.js").Store} Store */

const HISTORY_LIMIT = 100;
const RETRY_MS = 2_000;

export class Membership {
  #client;
  #room;
  #store;
  #onChange;
  #onArrival;
  #subscription;
  /** @type {Set<string>} uids that were sent and not answered yet */
  #inFlight = new Set();

  /**
   * Enters the room, from where we stand in it if we have been there before.
   * @param {object} options
   * @param {Client} options.client
   * @param {Room} options.room
   * @param {Store} options.store
   * @param {() => void} options.onChange anything about the room may have changed
   * @param {(entry: Entry) => void} options.onArrival somebody else's message came, live or recovered
   */
  constructor({ client, room, store, onChange, onArrival }) {
    this.#client = client;
    this.#room = room;
    this.#store = store;
    this.#onChange = onChange;
    this.#onArrival = onArrival;
    this.#subscription = client.subscription(room.name, { since: room.position ?? undefined });
    room.phase = "joining";
    this.#listen();
    this.#subscription.subscribe();
  }

  #listen() {
    const subscription = this.#subscription;
    const room = this.#room;
    subscription.on("state", ({ state, reason }) => {
      if (state === "subscribing") room.phase = "joining";
      if (state === "unsubscribed") this.#end(reason);
      this.#onChange();
    });
    subscription.on("subscribed", (event) => this.#catchUp(event));
    subscription.on("publication", (publication) => this.#receive(publication, true));
    subscription.on("join", ({ info }) => {
      room.addMember(info);
      this.#onChange();
    });
    subscription.on("leave", ({ info }) => {
      room.removeMember(info);
      this.#onChange();
    });
  }

  /** Goes for good. */
  leave() {
    this.#client.remove(this.#subscription);
  }

  /** The server does not let us in, or has put us out. Whoever asks for it gets a membership of its own. @param {string} reason */
  #end(reason) {
    this.#room.phase = "refused";
    this.#room.problem = reason;
    this.leave();
  }

  /** @param {Subscribed} subscribed */
  async #catchUp(subscribed) {
    this.#room.enter(subscribed);
    // What was recovered is told right behind this event: it is here after any await.
    await (subscribed.recovered ? null : this.#readHistory());
    if (this.#subscription.state !== "subscribed") return;
    this.#room.phase = "joined";
    this.flush();
    await this.refreshPresence();
  }

  async #readHistory() {
    const page = await this.#subscription.history({ limit: HISTORY_LIMIT, reverse: true }).catch(noneIfRefused);
    for (const publication of page?.publications.reverse() ?? []) this.#receive(publication, false);
  }

  /** Joins and leaves tell most of it; connections that died silently are seen here. */
  async refreshPresence() {
    if (this.#room.phase !== "joined") return;
    const answer = this.#subscription.presence().then((presence) => Object.values(presence));
    await this.#room.setMembers(answer.catch(noneIfRefused));
    this.#onChange();
  }

  /** @param {Publication} publication @param {boolean} fresh whether it is news to the reader */
  #receive(publication, fresh) {
    const entry = this.#room.receive(publication, (uid) => this.#store.hasSent(uid));
    if (typeof publication.data?.uid === "string") this.#store.drop(publication.data.uid);
    if (entry && !entry.mine && fresh) this.#onArrival(entry);
    this.#onChange();
  }

  // --- sending ---------------------------------------------------------------------------------------------------

  /** Sends what waits for this room, in order. */
  flush() {
    if (this.#room.phase !== "joined" || this.#subscription.state !== "subscribed") return;
    for (const letter of this.#store.lettersFor(this.#room.name)) {
      if (!this.#inFlight.has(letter.uid)) this.#send(letter);
    }
  }

  /** @param {Letter} letter */
  async #send({ uid, text, at }) {
    this.#inFlight.add(uid);
    try {
      await this.#subscription.publish({ uid, text, at });
      this.#store.drop(uid);
      this.#room.acknowledge(uid);
    } catch (error) {
      if (!(error instanceof ClientError)) throw error;
      this.#failToSend(uid, error);
    } finally {
      this.#inFlight.delete(uid);
      this.#onChange();
    }
  }

  /**
   * What may work later, or may have worked, stays in the store and is sent again, now or after the next reconnect. So
   * does what was refused only because we are on our way back into the room.
   * @param {string} uid @param {ClientError} error
   */
  #failToSend(uid, error) {
    if (error.temporary || error.uncertain || this.#room.phase === "joining") {
      setTimeout(() => this.flush(), RETRY_MS);
    } else {
      this.#store.drop(uid);
      this.#room.refuse(uid, error.message);
    }
  }
}

/** History and presence may be switched off, or their answer lost: the room is of use without. @param {unknown} error @returns {null} */
function noneIfRefused(error) {
  if (error instanceof ClientError) return null;
  throw error;
}
