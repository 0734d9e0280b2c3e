// @ts-check
/** The interface of a transport, the list of transports, and the selection of the next one to try. */

import { PREFERRED_FAILURES_MAX } from "./constants.js";
import { PollTransport } from "./poll_transport.js";
import { HttpStreamTransport, SseTransport } from "./stream_transports.js";
import { WebSocketTransport } from "./websocket_transport.js";

/**
 * A transport calls `message` with each JSON text, in order. It calls `end` once, with a close code or 0, unless the client
 * closed the transport. After `end` it calls nothing.
 * @typedef {{message: (text: string) => void, end: (code: number, reason: string) => void}} TransportHandlers
 */
/**
 * `open` receives the connect command; all results go to the handlers. `welcome` receives the connect result. The client
 * calls `send` only after `welcome`. `close` ends the transport without calling the handlers.
 * @typedef {object} Transport
 * @property {(connect: string) => void} open
 * @property {(result: Record<string, any>) => void} welcome
 * @property {(commands: string) => void} send commands, one per line
 * @property {() => void} close
 */
/**
 * To add a transport, write such a class and pass it in the option `transports`. `address` converts a path on the server
 * to a URL.
 * @typedef {(new (address: (path: string) => string, handlers: TransportHandlers, options: {withCredentials: boolean}) => Transport)
 *   & {label: string, isSupported: () => boolean}} TransportClass
 */

/** @type {TransportClass[]} */
const TRANSPORTS = [WebSocketTransport, HttpStreamTransport, SseTransport, PollTransport];

/** @param {(string | TransportClass)[]} wanted @returns {TransportClass[]} */
function chooseTransports(wanted) {
  const chosen = wanted.map((entry) => {
    const kind = typeof entry === "string" ? TRANSPORTS.find(({ label }) => label === entry) : entry;
    if (!kind) throw new TypeError(`unknown transport ${entry}; available: ${TRANSPORTS.map(({ label }) => label)}`);
    return kind;
  });
  const supported = chosen.filter((kind) => kind.isSupported());
  if (!supported.length) throw new TypeError("this environment supports none of the transports");
  return supported;
}

/** Selects the next transport. Each round tries the transport that worked last, or all transports in their order. */
export class TransportSelector {
  #all;
  /** @type {TransportClass[]} */
  #round = [];
  /** @type {TransportClass | null} */
  #preferred = null;
  #failures = 0;

  /** @param {(string | TransportClass)[]} [wanted] */
  constructor(wanted = TRANSPORTS) {
    this.#all = chooseTransports(wanted);
  }

  startRound() {
    this.#round = this.#preferred ? [this.#preferred] : [...this.#all];
  }

  /** Whether this round has another transport. */
  get hasNext() {
    return this.#round.length > 0;
  }

  next() {
    return /** @type {TransportClass} */ (this.#round.shift());
  }

  /** @param {TransportClass} kind */
  reportSuccess(kind) {
    this.#preferred = kind;
    this.#failures = 0;
  }

  /** No message arrived. A single failure may be a server restart; repeated failures mean that the network has changed. */
  reportFailure() {
    if (++this.#failures >= PREFERRED_FAILURES_MAX) this.#preferred = null;
  }

  /** The transports before this one in the order, best first. @param {TransportClass} kind */
  betterThan(kind) {
    return this.#all.slice(0, this.#all.indexOf(kind));
  }

  /** Tries all transports in the next round, because another network may allow other transports. */
  reset() {
    this.#preferred = null;
  }
}
