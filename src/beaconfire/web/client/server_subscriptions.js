// @ts-check
/** Server-side subscriptions: channels that the server subscribes this client to, by its token, as its personal channel, or by the server API. */

import { PositionTracker } from "./position.js";
import { attendance, publication } from "./results.js";

/**
 * @typedef {object} ServerSubscriptionEvents
 * @property {import("./events.js").Subscribed} subscribed
 * @property {{channel: string}} unsubscribed
 * @property {import("./events.js").Publication} publication
 * @property {import("./events.js").Attendance} join
 * @property {import("./events.js").Attendance} leave
 */

export class ServerSubscriptions {
  /** @type {Map<string, PositionTracker>} */
  #positions = new Map();
  #emit;

  /** @param {<Name extends keyof ServerSubscriptionEvents>(name: Name, event: ServerSubscriptionEvents[Name]) => void} emit */
  constructor(emit) {
    this.#emit = emit;
  }

  /** @param {string} channel */
  has(channel) {
    return this.#positions.has(channel);
  }

  /** The `subs` field of a connect request: it asks for recovery from the known positions. */
  get field() {
    const subs = Object.fromEntries([...this.#positions].map(([channel, tracker]) => [channel, tracker.recoveryFields()]));
    return this.#positions.size ? { subs } : {};
  }

  /**
   * Applies the `subs` of a connect result. Stops when `isCurrent` returns false: a listener may end the connection.
   * @param {Record<string, Record<string, any>>} subs @param {() => boolean} isCurrent
   */
  applyConnectResult(subs, isCurrent) {
    for (const channel of [...this.#positions.keys()]) if (!(channel in subs)) this.#remove(channel);
    for (const [channel, result] of Object.entries(subs)) if (isCurrent()) this.add(channel, result, isCurrent);
  }

  /** @param {string} channel @param {Record<string, any>} result @param {() => boolean} isCurrent */
  add(channel, result, isCurrent) {
    const tracker = this.#positions.get(channel) ?? new PositionTracker();
    this.#positions.set(channel, tracker);
    const { fresh, subscribed } = tracker.applyResult(channel, result);
    this.#emit("subscribed", subscribed);
    for (const pub of fresh) {
      if (isCurrent() && tracker.advance(pub)) this.#emit("publication", publication(channel, pub, true));
    }
  }

  /** @param {string} channel @param {Record<string, any>} push */
  receive(channel, { pub, join, leave, unsubscribe }) {
    if (pub && this.#positions.get(channel)?.advance(pub)) this.#emit("publication", publication(channel, pub));
    if (join) this.#emit("join", attendance(channel, join));
    if (leave) this.#emit("leave", attendance(channel, leave));
    if (unsubscribe) this.#remove(channel);
  }

  invalidate() {
    for (const tracker of this.#positions.values()) tracker.invalidate();
  }

  /** @param {string} channel */
  #remove(channel) {
    this.#positions.delete(channel);
    this.#emit("unsubscribed", { channel });
  }
}
