// @ts-check
/** A client-side subscription to one channel. */

import { waitForState } from "./commands.js";
import {
  INTERNAL,
  RESUBSCRIBE_FROM,
  SUBSCRIPTION_STATES,
  TOKEN_EXPIRED,
  UNAUTHORIZED,
  UNSUBSCRIBED_EXPIRED,
  UNSUBSCRIBED_INVALIDATED,
  retryDelayMs,
} from "./constants.js";
import { UnauthorizedError } from "./errors.js";
import { EMIT, Emitter } from "./events.js";
import { PositionTracker } from "./position.js";
import { attendance, historyRequest, historyResult, presenceResult, publication, statsResult } from "./results.js";
import { Timer } from "./timer.js";
import { TokenSource } from "./token_source.js";

/** Methods that only the client calls. Symbols hide them from pages. */
export const ON_CONNECTED = Symbol("onConnected");
export const ON_DISCONNECTED = Symbol("onDisconnected");
export const ON_PUSH = Symbol("onPush");
export const ON_UNSUBSCRIBED = Symbol("onUnsubscribed");
export const INVALIDATE = Symbol("invalidate");

/** @typedef {import("./commands.js").OnReply} OnReply */
/** @typedef {import("./events.js").SubscriptionState} SubscriptionState */

/**
 * The part of the client that a subscription uses.
 * @typedef {object} SubscriptionHost
 * @property {() => boolean} isConnected
 * @property {(kind: string, request: Record<string, any>, onReply: OnReply) => void} send
 * @property {(reason: string) => void} reconnect replaces the connection, because client and server may disagree on the subscriptions
 * @property {{retryFirstMs: number, retryMaxMs: number, commandTimeoutMs: number}} options
 */
/**
 * @typedef {object} SubscriptionEvents
 * @property {import("./events.js").SubscriptionChange} state
 * @property {import("./events.js").Subscribed} subscribed
 * @property {import("./events.js").Publication} publication
 * @property {import("./events.js").Attendance} join
 * @property {import("./events.js").Attendance} leave
 */

/**
 * A subscription to one channel. It survives reconnects. `Client.subscription` creates it.
 * @extends {Emitter<SubscriptionEvents>}
 */
export class Subscription extends Emitter {
  /** @readonly */ channel;
  #host;
  #options;
  /** @type {SubscriptionState} */
  #state = "unsubscribed";
  #tracker;
  #tokens;
  #failures = 0;
  /** Increases whenever a running attempt becomes obsolete. */
  #attempt = 0;
  #isSubscribing = false;
  #retryTimer = new Timer();

  /** @param {string} channel @param {SubscriptionHost} host @param {import("./options.js").SubscriptionOptions} options */
  constructor(channel, host, options) {
    super();
    this.channel = channel;
    this.#host = host;
    this.#options = options;
    const { token, getToken } = options;
    this.#tokens = new TokenSource(token, getToken && (() => getToken({ channel })));
    this.#tracker = new PositionTracker(options.since);
  }

  get state() {
    return this.#state;
  }

  /** The position in the channel's stream; null if the channel has no stream that can be recovered. */
  get position() {
    return this.#tracker.position;
  }

  /** Subscribes as soon as the client is connected, and again after every loss, until `unsubscribe` or a refusal. */
  subscribe() {
    if (this.#transition("subscribe", 0, "subscribe was called")) this[ON_CONNECTED]();
  }

  /** Unsubscribes and forgets the position. */
  unsubscribe() {
    this.#leave();
    this.#transition("unsubscribe", 0, "unsubscribe was called");
  }

  /**
   * Publishes data. Resolves after the server has stored it. Waits while the state is `subscribing`. Rejects with
   * `ClientError`.
   * @param {any} data @returns {Promise<void>}
   */
  async publish(data) {
    await this.#request("publish", { channel: this.channel, data });
  }

  /** Returns the clients in the channel, by connection id. Rejects with `ClientError`. */
  async presence() {
    return presenceResult(await this.#request("presence", { channel: this.channel }));
  }

  /** Returns the numbers of clients and users in the channel. Rejects with `ClientError`. */
  async presenceStats() {
    return statsResult(await this.#request("presence_stats", { channel: this.channel }));
  }

  /**
   * Returns publications of the channel's history; without a `limit`, only the stream's position. Rejects with
   * `ClientError`.
   * @param {import("./events.js").HistoryQuery} [query]
   */
  async history(query = {}) {
    return historyResult(this.channel, await this.#request("history", historyRequest(this.channel, query)));
  }

  /** @param {string} kind @param {Record<string, any>} request @returns {Promise<Record<string, any>>} */
  async #request(kind, request) {
    await waitForState(this, "subscribed", "subscribing", this.#host.options.commandTimeoutMs);
    return new Promise((resolve, reject) =>
      this.#host.send(kind, request, (error, result) => (error ? reject(error) : resolve(result))),
    );
  }

  // --- Called by the client ---------------------------------------------------------------------------------------

  /** The client is connected: sends the subscribe command, if the state is `subscribing`. */
  async [ON_CONNECTED]() {
    if (this.#state !== "subscribing" || this.#isSubscribing || !this.#host.isConnected()) return;
    const attempt = ++this.#attempt;
    this.#isSubscribing = true;
    this.#retryTimer.stop();
    if (this.#tokens.isMissing) {
      try {
        await this.#tokens.fetch();
      } catch (error) {
        if (attempt !== this.#attempt) return;
        this.#isSubscribing = false;
        this.#fail(error instanceof UnauthorizedError ? UNAUTHORIZED : INTERNAL, String(error));
        return;
      }
      if (attempt !== this.#attempt) return;
    }
    const { data, joinLeave, conflate } = this.#options;
    const request = {
      channel: this.channel,
      recoverable: true,
      ...this.#tracker.recoveryFields(),
      ...this.#tokens.fields,
      ...(data !== undefined && { data }),
      ...(joinLeave && { join_leave: true }),
      ...(conflate && { conflate: { max_rate: conflate.maxRate ?? 0 } }),
    };
    this.#host.send("subscribe", request, (error, result) => {
      if (attempt !== this.#attempt) return;
      this.#isSubscribing = false;
      if (!error) this.#confirm(result);
      else if (error.uncertain) this.#host.reconnect("the subscribe command was not answered");
      else this.#fail(error.code, error.message, error.temporary);
    });
  }

  /** The connection is lost. @param {number} code @param {string} reason */
  [ON_DISCONNECTED](code, reason) {
    this.#stop();
    if (this.#state === "subscribed") this.#transition("loss", code, reason);
  }

  /**
   * The server ended the subscription. Ignored before the confirmation, because then the push concerns an earlier
   * subscription to the same channel.
   * @param {number} code @param {string} reason
   */
  [ON_UNSUBSCRIBED](code, reason) {
    if (this.#state !== "subscribed") return;
    this.#stop();
    if (code === UNSUBSCRIBED_INVALIDATED) this[INVALIDATE]();
    if (code === UNSUBSCRIBED_EXPIRED) this.#tokens.discard();
    if (code < RESUBSCRIBE_FROM) this.#reset();
    this.#transition(code < RESUBSCRIBE_FROM ? "refusal" : "loss", code, reason);
    if (code >= RESUBSCRIBE_FROM) this.#scheduleRetry();
  }

  /** Position and token are not valid any more. */
  [INVALIDATE]() {
    this.#tracker.invalidate();
    this.#tokens.discard();
  }

  /** A push of this channel. Ignored before the confirmation, as above. @param {Record<string, any>} push */
  [ON_PUSH]({ pub, join, leave }) {
    if (this.#state !== "subscribed") return;
    if (pub && this.#tracker.advance(pub)) this[EMIT]("publication", publication(this.channel, pub));
    if (join) this[EMIT]("join", attendance(this.channel, join));
    if (leave) this[EMIT]("leave", attendance(this.channel, leave));
  }

  // --- State ------------------------------------------------------------------------------------------------------

  /**
   * @param {string} event @param {number} code @param {string} reason
   * @returns {boolean} whether the state changed and no listener has changed it again
   */
  #transition(event, code, reason) {
    const previous = this.#state;
    const state = SUBSCRIPTION_STATES[previous][event];
    if (!state) return false;
    this.#state = state;
    this[EMIT]("state", { channel: this.channel, state, previous, code, reason });
    return this.#state === state;
  }

  /** @param {Record<string, any>} result */
  #confirm(result) {
    const attempt = this.#attempt;
    const { fresh, subscribed } = this.#tracker.applyResult(this.channel, result);
    this.#failures = 0;
    this.#tokens.keepTicket(result);
    const sendToken = (/** @type {string} */ token, /** @type {OnReply} */ onReply) =>
      this.#host.send("sub_refresh", { channel: this.channel, token }, onReply);
    this.#tokens.scheduleRefresh(result, sendToken, (reason) => {
      this.#leave();
      this.#transition("refusal", UNAUTHORIZED, reason);
    });
    this.#transition("confirm", 0, "");
    if (attempt === this.#attempt) this[EMIT]("subscribed", subscribed);
    for (const pub of fresh) {
      if (attempt !== this.#attempt) return; // a listener has unsubscribed
      if (this.#tracker.advance(pub)) this[EMIT]("publication", publication(this.channel, pub, true));
    }
  }

  /** @param {number} code @param {string} reason @param {boolean} [temporary] */
  #fail(code, reason, temporary = code === INTERNAL) {
    const expired = code === TOKEN_EXPIRED && this.#tokens.canFetch;
    if (expired) this.#tokens.discard();
    if (temporary || expired) {
      this.#transition("loss", code, reason);
      this.#scheduleRetry();
      return;
    }
    this.#reset();
    this.#transition("refusal", code, reason);
  }

  #scheduleRetry() {
    if (this.#state === "subscribing") {
      this.#retryTimer.start(retryDelayMs(this.#failures++, this.#host.options), () => this[ON_CONNECTED]());
    }
  }

  /** Resets the subscription, and sends an unsubscribe command if the client is connected. */
  #leave() {
    this.#reset();
    if (this.#state === "unsubscribed" || !this.#host.isConnected()) return;
    this.#host.send("unsubscribe", { channel: this.channel }, (error) => {
      if (error) this.#host.reconnect("the unsubscribe command was not answered");
    });
  }

  #stop() {
    this.#attempt++;
    this.#isSubscribing = false;
    this.#retryTimer.stop();
    this.#tokens.stop();
  }

  #reset() {
    this.#stop();
    this.#failures = 0;
    this.#tokens.dropTicket();
    this.#tracker = new PositionTracker();
  }
}
