// @ts-check
/** The channels that the server put this client in: by its token, as its personal one, or by the server API. */

import { Track, attendance, publication } from "./track.js";

/**
 * @typedef {object} GrantEvents
 * @property {import("./words.js").Subscribed} subscribed
 * @property {{channel: string}} unsubscribed
 * @property {import("./words.js").Publication} publication
 * @property {import("./words.js").Attendance} join
 * @property {import("./words.js").Attendance} leave
 */

export class Grants {
  /** @type {Map<string, Track>} */
  #tracks = new Map();
  #tell;

  /** @param {<Name extends keyof GrantEvents>(name: Name, event: GrantEvents[Name]) => void} tell */
  constructor(tell) {
    this.#tell = tell;
  }

  /** @param {string} channel */
  has(channel) {
    return this.#tracks.has(channel);
  }

  /** What to connect with, so that they go on where they were. */
  get field() {
    const subs = Object.fromEntries([...this.#tracks].map(([channel, track]) => [channel, track.wish()]));
    return this.#tracks.size ? { subs } : {};
  }

  /**
   * Takes what a connect result says. Goes on while `isOn` is true, which listeners may change.
   * @param {Record<string, Record<string, any>>} subs @param {() => boolean} isOn
   */
  enterAll(subs, isOn) {
    for (const channel of [...this.#tracks.keys()]) if (!(channel in subs)) this.#revoke(channel);
    for (const [channel, result] of Object.entries(subs)) if (isOn()) this.enter(channel, result, isOn);
  }

  /** @param {string} channel @param {Record<string, any>} result @param {() => boolean} isOn */
  enter(channel, result, isOn) {
    const track = this.#tracks.get(channel) ?? new Track();
    this.#tracks.set(channel, track);
    const { fresh, subscribed } = track.enter(channel, result);
    this.#tell("subscribed", subscribed);
    for (const pub of fresh) {
      if (isOn() && track.take(pub)) this.#tell("publication", publication(channel, pub, true));
    }
  }

  /** @param {string} channel @param {Record<string, any>} push */
  hear(channel, { pub, join, leave, unsubscribe }) {
    if (pub && this.#tracks.get(channel)?.take(pub)) this.#tell("publication", publication(channel, pub));
    if (join) this.#tell("join", attendance(channel, join));
    if (leave) this.#tell("leave", attendance(channel, leave));
    if (unsubscribe) this.#revoke(channel);
  }

  invalidate() {
    for (const track of this.#tracks.values()) track.invalidate();
  }

  /** @param {string} channel */
  #revoke(channel) {
    this.#tracks.delete(channel);
    this.#tell("unsubscribed", { channel });
  }
}
