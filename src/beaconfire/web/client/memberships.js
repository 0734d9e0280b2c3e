// @ts-check
/**
 * What a client that polls knows of its channels. The server keeps nothing between two requests, so each of them says
 * which channels are meant and where we are in them, and what a session would have told is worked out from the answer.
 */

import { UNSUBSCRIBED_BY_SERVER, UNSUBSCRIBED_EXPIRED, UNSUBSCRIBED_INSUFFICIENT } from "./tables.js";

/** @typedef {import("./words.js").Position} Position */
/** A push of the protocol: of a channel, or without one. @typedef {Record<string, any>} Push */
/**
 * The page subscribed, with this token and how it wants to be told, if it said so; or, if not `isOurs`, the server put us in.
 * @typedef {{isOurs: boolean, wish: {token?: string, conflate?: object}, position: Position | null}} Membership
 */

/** The channels we are in, each with where we are: behind the last publication that was told. */
export class Memberships {
  /** @type {Map<string, Membership>} */
  #all = new Map();

  /**
   * What to ask with. `isHearing`: with positions, to be told what came after them; without, only to be in the channels.
   * @param {boolean} isHearing @param {(channel: string) => boolean} [isWanted] which of them, all if nothing is said
   */
  subs(isHearing, isWanted = () => true) {
    const wanted = [...this.#all].filter(([channel]) => isWanted(channel));
    return Object.fromEntries(
      wanted.map(([channel, { wish, position }]) => [
        channel,
        { ...wish, ...(isHearing && position && { recover: true, ...position }) },
      ]),
    );
  }

  // --- What the page does -----------------------------------------------------------------------------------------

  /** Takes a subscribe request and its result. @param {Record<string, any>} request @param {Record<string, any>} result */
  enter({ channel, token, conflate }, { recoverable = false, offset = 0, epoch = "", publications = [] }) {
    const wish = { ...(token && { token }), ...(conflate && { conflate }) };
    const position = { offset: Math.max(offset, publications.at(-1)?.offset ?? 0), epoch };
    this.#all.set(channel, { isOurs: true, wish, position: recoverable ? position : null });
  }

  /** @param {string} channel @param {string} token */
  renew(channel, token) {
    const membership = this.#all.get(channel);
    if (membership) membership.wish.token = token;
  }

  /** @param {string} channel */
  leave(channel) {
    this.#all.delete(channel);
  }

  // --- What the server says ---------------------------------------------------------------------------------------

  /** Takes the first connect result, which tells of its channels itself. @param {Record<string, any>} result */
  begin({ subs = {} }) {
    for (const channel of Object.keys(subs)) this.#admit(channel);
  }

  /**
   * Takes a later connect result. Returns what there is to tell; null if something of a channel that the server chose is
   * lost for good, which ends sessions.
   * @param {Record<string, any>} result @returns {Push[] | null}
   */
  resume({ subs = {} }) {
    /** @type {Map<string, Record<string, any>>} */
    const results = new Map(Object.entries(subs));
    /** @type {Push[]} */
    const pushes = [];
    for (const [channel, { isOurs }] of [...this.#all]) {
      // Ours is asked for again, with a new token if there is one, and that tells what is wrong.
      if (!results.has(channel)) pushes.push(this.#end(channel, isOurs ? UNSUBSCRIBED_EXPIRED : UNSUBSCRIBED_BY_SERVER));
    }
    for (const [channel, result] of results) {
      const membership = this.#all.get(channel);
      if (!membership) {
        this.#admit(channel);
        pushes.push({ channel, subscribe: result });
      } else if (!isLost(membership.position, result)) {
        for (const pub of result.publications ?? []) pushes.push({ channel, pub });
      } else if (membership.isOurs) {
        pushes.push(this.#end(channel, UNSUBSCRIBED_INSUFFICIENT));
      } else {
        return null;
      }
    }
    return pushes;
  }

  /**
   * Takes the rest of an answer: what happened while the request waited, and where that led. Returns what there is to tell.
   * @param {Push[]} pushes @param {Record<string, Record<string, any>>} subs @returns {Push[]}
   */
  hear(pushes, subs) {
    const told = pushes.filter((push) => this.#concerns(push));
    for (const [channel, { recover, offset, epoch }] of Object.entries(subs)) {
      const membership = this.#all.get(channel);
      if (membership) membership.position = recover ? { offset, epoch } : null;
    }
    return told;
  }

  /** Nothing is told of a channel that we are not in, or not any more. @param {Push} push */
  #concerns({ channel = "", subscribe, unsubscribe }) {
    if (subscribe) this.#admit(channel);
    const isConcerned = !channel || this.#all.has(channel);
    if (unsubscribe) this.leave(channel);
    return isConcerned;
  }

  /** @param {string} channel */
  #admit(channel) {
    this.#all.set(channel, { isOurs: false, wish: {}, position: null });
  }

  /** @param {string} channel @param {number} code @returns {Push} */
  #end(channel, code) {
    this.leave(channel);
    return { channel, unsubscribe: { code, reason: REASONS.get(code) } };
  }
}

/** As the server would say it. */
const REASONS = new Map([
  [UNSUBSCRIBED_BY_SERVER, "server unsubscribed"],
  [UNSUBSCRIBED_INSUFFICIENT, "insufficient state"],
  [UNSUBSCRIBED_EXPIRED, "subscription expired"],
]);

/**
 * Whether something after our position is missing. A channel that keeps the latest publication only, and has none yet,
 * recovers nobody; but then there was nothing to miss.
 * @param {Position | null} position @param {Record<string, any>} result
 */
function isLost(position, { recovered = false, offset = 0, epoch = "" }) {
  return position !== null && !recovered && !(position.offset === offset && position.epoch === epoch);
}
