// @ts-check
/**
 * Tests whether a better transport than the current one works now. The better one may have failed only because the server
 * was restarting, or the network may have changed since. The test uses a second connection; the client gives up the
 * current one only after the test succeeded.
 */

import { Connection } from "./connection.js";
import { PROBE_FIRST_DELAY_MS, PROBE_INTERVAL_MS } from "./constants.js";
import { Timer } from "./timer.js";

/** @typedef {import("./transports.js").TransportClass} TransportClass */
/**
 * @typedef {object} ProbeOptions
 * @property {(path: string) => string} address
 * @property {{openTimeoutMs: number, pingGraceMs: number, withCredentials: boolean}} options
 * @property {() => Record<string, any>} connectRequest
 * @property {(kind: TransportClass) => void} onFound called at most once after `start`
 */

export class TransportProbe {
  #options;
  #timer = new Timer();
  /** @type {Connection | null} */
  #connection = null;

  /** @param {ProbeOptions} options */
  constructor(options) {
    this.#options = options;
  }

  /** Tries these transports in order, after a delay and then periodically. @param {TransportClass[]} kinds */
  start(kinds) {
    this.stop();
    if (kinds.length) this.#schedule(kinds, PROBE_FIRST_DELAY_MS);
  }

  stop() {
    this.#timer.stop();
    const connection = this.#connection;
    this.#connection = null; // before closing: closing fails the connect command, and this failure is no test result
    connection?.close("the transport probe is over");
  }

  /**
   * Waits for a random time between half and one and a half of `delayMs`, so that the clients of a restarted server do
   * not all probe at the same time.
   * @param {TransportClass[]} kinds @param {number} delayMs
   */
  #schedule(kinds, delayMs) {
    this.#timer.start(delayMs * (0.5 + Math.random()), () => this.#probe(kinds, 0));
  }

  /** @param {TransportClass[]} kinds @param {number} index */
  #probe(kinds, index) {
    const kind = kinds[index];
    if (!kind) return this.#schedule(kinds, PROBE_INTERVAL_MS);
    const { address, options, connectRequest, onFound } = this.#options;
    const finish = (/** @type {boolean} */ isConnected) => {
      if (this.#connection !== connection) return;
      this.stop();
      if (isConnected) onFound(kind);
      else this.#probe(kinds, index + 1);
    };
    // A refusal also shows that the transport works. But the client must not give up its connection for it: the token may
    // have just expired, or the current connection may be the last one that the user's connection limit allows.
    const connection = new Connection(kind, address, options, { push: () => {}, end: () => finish(false) });
    this.#connection = connection;
    connection.open(connectRequest(), (error) => finish(!error));
  }
}
