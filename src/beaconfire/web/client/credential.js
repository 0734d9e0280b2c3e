// @ts-check
/** A token, and where the next one comes from. */

import { Alarm, within } from "./clock.js";
import { RENEWAL_RETRY_MS, TOKEN_TIMEOUT_MS, renewalMs } from "./tables.js";
import { UnauthorizedError } from "./words.js";

/** @typedef {import("./conversation.js").OnAnswer} OnAnswer */

export class Credential {
  /** @readonly */ canFetch;
  #token;
  #getToken;
  #alarm = new Alarm();
  /** Changes whenever a renewal that is on its way no longer counts. */
  #turn = 0;

  /** @param {string} [token] @param {() => Promise<string>} [getToken] */
  constructor(token = "", getToken) {
    this.#token = token;
    this.#getToken = getToken;
    this.canFetch = getToken !== undefined;
  }

  /** What to send along: nothing if there is none. */
  get field() {
    return this.#token ? { token: this.#token } : {};
  }

  /** Whether `fetch` is to be called before anything is asked for. */
  get isMissing() {
    return this.canFetch && !this.#token;
  }

  /** The next one has to be fetched, if that is possible: this one is over. */
  drop() {
    if (this.canFetch) this.#token = "";
  }

  /** Rejects with `UnauthorizedError` if there will be none, and with anything else if it is worth trying again. */
  async fetch() {
    const token = await within(Promise.resolve(this.#getToken?.()), TOKEN_TIMEOUT_MS);
    if (!token) throw new UnauthorizedError("getToken has no token");
    this.#token = token;
  }

  /**
   * Replaces the token before it ends, as the server's answer says when that is, and again and again. `present` sends the
   * new one to the server; `refuse` is told that there is none. What is late the server ends, and we come back.
   * @param {Record<string, any>} result @param {(token: string, onAnswer: OnAnswer) => void} present
   * @param {(reason: string) => void} refuse
   */
  renewLater({ expires, ttl }, present, refuse) {
    this.stop();
    if (expires && this.canFetch) this.#alarm.after(renewalMs(ttl), () => this.#renew(present, refuse));
  }

  /** @param {(token: string, onAnswer: OnAnswer) => void} present @param {(reason: string) => void} refuse */
  async #renew(present, refuse) {
    const turn = this.#turn;
    const again = () => this.#alarm.after(RENEWAL_RETRY_MS, () => this.#renew(present, refuse));
    try {
      await this.fetch();
    } catch (error) {
      if (turn !== this.#turn) return;
      if (error instanceof UnauthorizedError) refuse(error.message);
      else again();
      return;
    }
    if (turn !== this.#turn) return;
    present(this.#token, (error, result) => {
      if (turn !== this.#turn) return;
      if (error) again();
      else this.renewLater(result, present, refuse);
    });
  }

  /** No more renewals. */
  stop() {
    this.#turn++;
    this.#alarm.stop();
  }
}
