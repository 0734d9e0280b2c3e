// @ts-check
/**
 * The channels of a polling client and its positions in them. The server keeps no state between two polls. Therefore each
 * poll names its channels and positions, and this module derives from the response the pushes that a session would send.
 */

import { UNSUBSCRIBED_BY_SERVER, UNSUBSCRIBED_EXPIRED, UNSUBSCRIBED_INSUFFICIENT } from "./constants.js";

/** @typedef {import("./events.js").Position} Position */
/** A push of the protocol, with or without a channel. @typedef {Record<string, any>} Push */
/**
 * `isClientSide`: the page subscribed; otherwise the server did. `options` are the token and the conflation of the
 * page's subscribe request.
 * @typedef {{isClientSide: boolean, options: {token?: string, conflate?: object}, position: Position | null}} PollChannel
 */

/** The subscribed channels, each with the position of the last delivered publication. */
export class PollChannels {
  /** @type {Map<string, PollChannel>} */
  #channels = new Map();

  /**
   * The `subs` field of a request. With `withPositions`, the server delivers the publications after the positions;
   * without, the request only subscribes to the channels.
   * @param {boolean} withPositions @param {(channel: string) => boolean} [isIncluded] all channels by default
   */
  subs(withPositions, isIncluded = () => true) {
    const included = [...this.#channels].filter(([channel]) => isIncluded(channel));
    return Object.fromEntries(
      included.map(([channel, { options, position }]) => [
        channel,
        { ...options, ...(withPositions && position && { recover: true, ...position }) },
      ]),
    );
  }

  // --- Commands of the page ---------------------------------------------------------------------------------------

  /** Applies a subscribe request and its result. @param {Record<string, any>} request @param {Record<string, any>} result */
  subscribe({ channel, token, conflate }, { recoverable = false, offset = 0, epoch = "", publications = [] }) {
    const options = { ...(token && { token }), ...(conflate && { conflate }) };
    const position = { offset: Math.max(offset, publications.at(-1)?.offset ?? 0), epoch };
    this.#channels.set(channel, { isClientSide: true, options, position: recoverable ? position : null });
  }

  /** @param {string} channel @param {string} token */
  refresh(channel, token) {
    const state = this.#channels.get(channel);
    if (state) state.options.token = token;
  }

  /** @param {string} channel */
  remove(channel) {
    this.#channels.delete(channel);
  }

  // --- Responses of the server ------------------------------------------------------------------------------------

  /** Applies the first connect result. The caller delivers this result itself. @param {Record<string, any>} result */
  begin({ subs = {} }) {
    for (const channel of Object.keys(subs)) this.#addServerSide(channel);
  }

  /**
   * Applies a later connect result. Returns the pushes to deliver, or null if publications of a server-side channel are
   * lost, which ends the session.
   * @param {Record<string, any>} result @returns {Push[] | null}
   */
  resume({ subs = {} }) {
    /** @type {Map<string, Record<string, any>>} */
    const results = new Map(Object.entries(subs));
    /** @type {Push[]} */
    const pushes = [];
    for (const [channel, { isClientSide }] of [...this.#channels]) {
      // With the code "expired" the subscription subscribes again, with a new token if it has one, and receives the error.
      if (!results.has(channel)) pushes.push(this.#unsubscribe(channel, isClientSide ? UNSUBSCRIBED_EXPIRED : UNSUBSCRIBED_BY_SERVER));
    }
    for (const [channel, result] of results) {
      const state = this.#channels.get(channel);
      if (!state) {
        this.#addServerSide(channel);
        pushes.push({ channel, subscribe: result });
      } else if (!hasGap(state.position, result)) {
        for (const pub of result.publications ?? []) pushes.push({ channel, pub });
      } else if (state.isClientSide) {
        pushes.push(this.#unsubscribe(channel, UNSUBSCRIBED_INSUFFICIENT));
      } else {
        return null;
      }
    }
    return pushes;
  }

  /**
   * Applies the rest of a response: the pushes that arrived while the request waited, and the new positions. Returns the
   * pushes to deliver.
   * @param {Push[]} pushes @param {Record<string, Record<string, any>>} subs @returns {Push[]}
   */
  receive(pushes, subs) {
    const accepted = pushes.filter((push) => this.#accepts(push));
    for (const [channel, { recover, offset, epoch }] of Object.entries(subs)) {
      const state = this.#channels.get(channel);
      if (state) state.position = recover ? { offset, epoch } : null;
    }
    return accepted;
  }

  /** Whether a push has no channel or a subscribed one. Applies `subscribe` and `unsubscribe` pushes. @param {Push} push */
  #accepts({ channel = "", subscribe, unsubscribe }) {
    if (subscribe) this.#addServerSide(channel);
    const isAccepted = !channel || this.#channels.has(channel);
    if (unsubscribe) this.remove(channel);
    return isAccepted;
  }

  /** @param {string} channel */
  #addServerSide(channel) {
    this.#channels.set(channel, { isClientSide: false, options: {}, position: null });
  }

  /** @param {string} channel @param {number} code @returns {Push} */
  #unsubscribe(channel, code) {
    this.remove(channel);
    return { channel, unsubscribe: { code, reason: REASONS.get(code) } };
  }
}

/** The reasons that the server sends with these codes. */
const REASONS = new Map([
  [UNSUBSCRIBED_BY_SERVER, "server unsubscribed"],
  [UNSUBSCRIBED_INSUFFICIENT, "insufficient state"],
  [UNSUBSCRIBED_EXPIRED, "subscription expired"],
]);

/**
 * Whether publications after the position are lost. In cache mode, `recovered` is false as long as the channel has no
 * publication; then offset and epoch are unchanged, and nothing is lost.
 * @param {Position | null} position @param {Record<string, any>} result
 */
function hasGap(position, { recovered = false, offset = 0, epoch = "" }) {
  return position !== null && !recovered && !(position.offset === offset && position.epoch === epoch);
}
