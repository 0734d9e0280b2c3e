// @ts-check
/** The token of a connection or subscription, its refresh, and the resume ticket. */

import { REFRESH_RETRY_MS, TOKEN_TIMEOUT_MS, refreshDelayMs } from "./constants.js";
import { UnauthorizedError } from "./errors.js";
import { Timer, withTimeout } from "./timer.js";

/** @typedef {import("./commands.js").OnReply} OnReply */

export class TokenSource {
  /** @readonly */ canFetch;
  #token;
  /** With a ticket, the server need not verify the token again. Never of other rights than the token. */
  #ticket = "";
  #getToken;
  #refreshTimer = new Timer();
  /** Increases whenever a running refresh becomes obsolete. */
  #generation = 0;

  /** @param {string} [token] @param {() => Promise<string>} [getToken] */
  constructor(token = "", getToken) {
    this.#token = token;
    this.#getToken = getToken;
    this.canFetch = getToken !== undefined;
  }

  /** The fields `token` and `ticket` of a request. A field without a value is left out. */
  get fields() {
    return { ...(this.#token && { token: this.#token }), ...(this.#ticket && { ticket: this.#ticket }) };
  }

  /** Keeps the ticket of a result for the next request. A result without a ticket leaves the ticket valid. @param {{ticket?: string}} result */
  keepTicket({ ticket }) {
    if (ticket) this.#ticket = ticket;
  }

  /** Whether `fetch` must be called before the next request. */
  get isMissing() {
    return this.canFetch && !this.#token;
  }

  /** The next request needs the token. */
  dropTicket() {
    this.#ticket = "";
  }

  /** Discards the ticket and the token, so that the next request fetches a new token. Without `getToken` the token stays. */
  discard() {
    this.dropTicket();
    if (this.canFetch) this.#token = "";
  }

  /** Fetches a new token. Rejects with `UnauthorizedError` if there is none. Any other error is worth a retry. */
  async fetch() {
    const token = await withTimeout(Promise.resolve(this.#getToken?.()), TOKEN_TIMEOUT_MS);
    if (!token) throw new UnauthorizedError("getToken returned no token");
    this.#token = token;
  }

  /**
   * Refreshes the token before it expires, and again before each new token expires. If the refresh is late, the server
   * ends the session, and the client reconnects with a new token.
   * @param {Record<string, any>} result the server's result, with the token's lifetime
   * @param {(token: string, onReply: OnReply) => void} sendToken sends a new token to the server
   * @param {(reason: string) => void} onUnauthorized called if `getToken` has no token any more
   */
  scheduleRefresh({ expires, ttl }, sendToken, onUnauthorized) {
    this.stop();
    if (expires && this.canFetch) this.#refreshTimer.start(refreshDelayMs(ttl), () => this.#refresh(sendToken, onUnauthorized));
  }

  /** @param {(token: string, onReply: OnReply) => void} sendToken @param {(reason: string) => void} onUnauthorized */
  async #refresh(sendToken, onUnauthorized) {
    const generation = this.#generation;
    const retry = () => this.#refreshTimer.start(REFRESH_RETRY_MS, () => this.#refresh(sendToken, onUnauthorized));
    try {
      await this.fetch();
    } catch (error) {
      if (generation !== this.#generation) return;
      if (error instanceof UnauthorizedError) onUnauthorized(error.message);
      else retry();
      return;
    }
    if (generation !== this.#generation) return;
    sendToken(this.#token, (error, result) => {
      if (generation !== this.#generation) return;
      if (error) return retry();
      this.keepTicket(result);
      this.scheduleRefresh(result, sendToken, onUnauthorized);
    });
  }

  /** Cancels all refreshes. */
  stop() {
    this.#generation++;
    this.#refreshTimer.stop();
  }
}
