// @ts-check
/**
 * Whether a better transport than the one in use gets through by now: it may have failed because the server was just
 * coming back, and polls survive the way from one network into another. It is tried beside the connection, which is
 * given up for what is sure.
 */

import { Alarm } from "./clock.js";
import { Link } from "./link.js";
import { PROBE_AGAIN_MS, PROBE_FIRST_MS } from "./tables.js";

/** @typedef {import("./transports.js").TransportClass} TransportClass */
/**
 * What to open links with, and `found`, which is called at most once after `begin`.
 * @typedef {object} Dialling
 * @property {(path: string) => string} address
 * @property {{openTimeoutMs: number, pingGraceMs: number, withCredentials: boolean}} options
 * @property {() => Record<string, any>} introduction a connect request
 * @property {(kind: TransportClass) => void} found
 */

export class Probe {
  #dialling;
  #alarm = new Alarm();
  /** @type {Link | null} */
  #link = null;

  /** @param {Dialling} dialling */
  constructor(dialling) {
    this.#dialling = dialling;
  }

  /** Tries these one after the other, some time from now, and again and again. @param {TransportClass[]} kinds */
  begin(kinds) {
    this.stop();
    if (kinds.length) this.#wait(kinds, PROBE_FIRST_MS);
  }

  stop() {
    this.#alarm.stop();
    const link = this.#link;
    this.#link = null; // first: closing it answers the connect command, and that is no verdict
    link?.close("it was only to see whether it gets through");
  }

  /** Half as long or half as long again: the clients of a restarted server must not all try at once. @param {TransportClass[]} kinds @param {number} aboutMs */
  #wait(kinds, aboutMs) {
    this.#alarm.after(aboutMs * (0.5 + Math.random()), () => this.#try(kinds, 0));
  }

  /** @param {TransportClass[]} kinds @param {number} index */
  #try(kinds, index) {
    const kind = kinds[index];
    if (!kind) return this.#wait(kinds, PROBE_AGAIN_MS);
    const { address, options, introduction, found } = this.#dialling;
    const judge = (/** @type {boolean} */ isIn) => {
      if (this.#link !== link) return;
      this.stop();
      if (isIn) found(kind);
      else this.#try(kinds, index + 1);
    };
    // A refusal says that the way is free, too. But a token that has just ended, or the user's last connection, which
    // may be the one in use, would be a bad reason to give that up.
    const link = new Link(kind, address, options, { push: () => {}, end: () => judge(false) });
    this.#link = link;
    link.open(introduction(), (error) => judge(!error));
  }
}
