// @ts-check
/**
 * The subscription to one room: it fills the room with messages and members, and sends the outgoing messages.
 *
 * Receiving: the browser client reconnects and recovers by itself. Missed messages arrive as publications after the
 * `subscribed` event. If recovery fails, the room shows a gap, and this class reads the history.
 * Sending: outgoing messages are sent only after recovery, because a message whose acknowledgement was lost may arrive as
 * a recovered publication. A message is kept until the server has stored it, and sent again while the outcome is
 * uncertain. Readers recognise copies by the uid, so each message is shown once.
 */

import { ClientError } from "/client/beaconfire.js";

/** @typedef {import("/client/beaconfire.js").Client} Client */
/** @typedef {import("/client/events.js").Publication} Publication */
/** @typedef {import("/client/events.js").Subscribed} Subscribed */
/** @typedef {import("./room.js").Entry} Entry */
/** @typedef {import("./room.js").Room} Room */
/** @typedef {import("./store.js").OutgoingMessage} OutgoingMessage */
/** @typedef {import("./store.js").Store} Store */

const HISTORY_LIMIT = 100;
const RETRY_MS = 2_000;

export class RoomSubscription {
  #client;
  #room;
  #store;
  #onChange;
  #onMessage;
  #subscription;
  /** @type {Set<string>} uids of messages that were sent and have no reply yet */
  #inFlight = new Set();

  /**
   * Subscribes to the room, from its position if the page was subscribed before.
   * @param {object} options
   * @param {Client} options.client
   * @param {Room} options.room
   * @param {Store} options.store
   * @param {() => void} options.onChange called after any change of the room
   * @param {(entry: Entry) => void} options.onMessage called for each new message of another person, live or recovered
   */
  constructor({ client, room, store, onChange, onMessage }) {
    this.#client = client;
    this.#room = room;
    this.#store = store;
    this.#onChange = onChange;
    this.#onMessage = onMessage;
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

  /** Unsubscribes and removes the subscription. */
  leave() {
    this.#client.remove(this.#subscription);
  }

  /** The server refused or ended the subscription. To join again, the page creates a new `RoomSubscription`. @param {string} reason */
  #end(reason) {
    this.#room.phase = "refused";
    this.#room.problem = reason;
    this.leave();
  }

  /** @param {Subscribed} subscribed */
  async #catchUp(subscribed) {
    this.#room.applySubscribed(subscribed);
    // Recovered publications are delivered synchronously after this event, so they are in the room after any await.
    await (subscribed.recovered ? null : this.#readHistory());
    if (this.#subscription.state !== "subscribed") return;
    this.#room.phase = "joined";
    this.flush();
    await this.refreshPresence();
  }

  async #readHistory() {
    const page = await this.#subscription.history({ limit: HISTORY_LIMIT, reverse: true }).catch(nullIfFailed);
    for (const publication of page?.publications.reverse() ?? []) this.#receive(publication, false);
  }

  /** Reads the member list. Join and leave events keep it up to date, except for connections that were lost silently. */
  async refreshPresence() {
    if (this.#room.phase !== "joined") return;
    const presence = this.#subscription.presence().then((clients) => Object.values(clients));
    await this.#room.setMembers(presence.catch(nullIfFailed));
    this.#onChange();
  }

  /** @param {Publication} publication @param {boolean} isNew false for messages from the history */
  #receive(publication, isNew) {
    const entry = this.#room.receive(publication, (uid) => this.#store.isOwn(uid));
    if (typeof publication.data?.uid === "string") this.#store.drop(publication.data.uid);
    if (entry && !entry.mine && isNew) this.#onMessage(entry);
    this.#onChange();
  }

  // --- Sending ---------------------------------------------------------------------------------------------------

  /** Sends the outgoing messages of this room, in order. */
  flush() {
    if (this.#room.phase !== "joined" || this.#subscription.state !== "subscribed") return;
    for (const message of this.#store.outgoingFor(this.#room.name)) {
      if (!this.#inFlight.has(message.uid)) this.#send(message);
    }
  }

  /** @param {OutgoingMessage} message */
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
   * Keeps and retries the message if the error is temporary or uncertain, or if the room is not joined again yet.
   * Otherwise marks the message as refused.
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

/** History and presence may be disabled, or their reply lost. The room works without them. @param {unknown} error @returns {null} */
function nullIfFailed(error) {
  if (error instanceof ClientError) return null;
  throw error;
}
