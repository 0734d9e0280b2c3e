// @ts-check
/** One channel that a page wants to hear: entered, kept, entered again, and left. */

import { Alarm } from "./clock.js";
import { waitFor } from "./conversation.js";
import { Credential } from "./credential.js";
import {
  INTERNAL,
  RESUBSCRIBE_FROM,
  SUBSCRIPTION_STATES,
  TOKEN_EXPIRED,
  UNAUTHORIZED,
  UNSUBSCRIBED_EXPIRED,
  UNSUBSCRIBED_INVALIDATED,
  backOffMs,
} from "./tables.js";
import { Track, attendance, historyRequest, historyResult, presenceResult, publication, statsResult } from "./track.js";
import { EMIT, END, Emitter, HEAR, INVALIDATE, RESUME, SUSPEND, UnauthorizedError } from "./words.js";

/** @typedef {import("./conversation.js").OnAnswer} OnAnswer */
/** @typedef {import("./words.js").SubscriptionState} SubscriptionState */

/**
 * What a subscription may ask of its client.
 * @typedef {object} Owner
 * @property {() => boolean} isConnected
 * @property {(kind: string, request: Record<string, any>, onAnswer: OnAnswer) => void} ask
 * @property {(reason: string) => void} lose gives the connection up, if there still is one: it and we are out of step
 * @property {{retryFirstMs: number, retryMaxMs: number, commandTimeoutMs: number}} options
 */
/**
 * @typedef {object} SubscriptionEvents
 * @property {import("./words.js").SubscriptionChange} state
 * @property {import("./words.js").Subscribed} subscribed
 * @property {import("./words.js").Publication} publication
 * @property {import("./words.js").Attendance} join
 * @property {import("./words.js").Attendance} leave
 */

/**
 * One channel, as long as the page wants it. Made by `Client.subscription`.
 * @extends {Emitter<SubscriptionEvents>}
 */
export class Subscription extends Emitter {
  /** @readonly */ channel;
  #owner;
  #options;
  /** @type {SubscriptionState} */
  #state = "unsubscribed";
  #track;
  #credential;
  #failures = 0;
  /** Changes whenever what is on its way no longer counts. */
  #attempt = 0;
  #isAsking = false;
  #retry = new Alarm();

  /** @param {string} channel @param {Owner} owner @param {import("./words.js").SubscriptionOptions} options */
  constructor(channel, owner, options) {
    super();
    this.channel = channel;
    this.#owner = owner;
    this.#options = options;
    const { token, getToken } = options;
    this.#credential = new Credential(token, getToken && (() => getToken({ channel })));
    this.#track = new Track(options.since);
  }

  get state() {
    return this.#state;
  }

  /** Where it is in the channel's stream, null if the channel has none that can be resumed. */
  get position() {
    return this.#track.position;
  }

  /** Enters the channel, as soon as there is a connection, and after every loss again, until `unsubscribe` or a refusal. */
  subscribe() {
    if (this.#move("subscribe", 0, "subscribe was called")) this[RESUME]();
  }

  /** Leaves the channel and forgets the position. */
  unsubscribe() {
    this.#leave();
    this.#move("unsubscribe", 0, "unsubscribe was called");
  }

  /**
   * Resolves once the server has stored it. Waits for the subscription if it is on its way. Rejects with `ClientError`.
   * @param {any} data @returns {Promise<void>}
   */
  async publish(data) {
    await this.#ask("publish", { channel: this.channel, data });
  }

  /** Who is here, by connection id. Rejects with `ClientError`. */
  async presence() {
    return presenceResult(await this.#ask("presence", { channel: this.channel }));
  }

  /** Rejects with `ClientError`. */
  async presenceStats() {
    return statsResult(await this.#ask("presence_stats", { channel: this.channel }));
  }

  /** Without a limit the stream's position only. Rejects with `ClientError`. @param {import("./words.js").HistoryQuery} [query] */
  async history(query = {}) {
    return historyResult(this.channel, await this.#ask("history", historyRequest(this.channel, query)));
  }

  /** @param {string} kind @param {Record<string, any>} request @returns {Promise<Record<string, any>>} */
  async #ask(kind, request) {
    await waitFor(this, "subscribed", "subscribing", this.#owner.options.commandTimeoutMs);
    return new Promise((resolve, reject) =>
      this.#owner.ask(kind, request, (error, result) => (error ? reject(error) : resolve(result))),
    );
  }

  // --- What the client tells us -----------------------------------------------------------------------------------

  /** There is a connection: enters the channel, if that is wanted. */
  async [RESUME]() {
    if (this.#state !== "subscribing" || this.#isAsking || !this.#owner.isConnected()) return;
    const attempt = ++this.#attempt;
    this.#isAsking = true;
    this.#retry.stop();
    if (this.#credential.isMissing) {
      try {
        await this.#credential.fetch();
      } catch (error) {
        if (attempt !== this.#attempt) return;
        this.#isAsking = false;
        this.#fail(error instanceof UnauthorizedError ? UNAUTHORIZED : INTERNAL, String(error));
        return;
      }
      if (attempt !== this.#attempt) return;
    }
    const { data, joinLeave, conflate } = this.#options;
    const request = {
      channel: this.channel,
      recoverable: true,
      ...this.#track.wish(),
      ...this.#credential.field,
      ...(data !== undefined && { data }),
      ...(joinLeave && { join_leave: true }),
      ...(conflate && { conflate: { max_rate: conflate.maxRate ?? 0 } }),
    };
    this.#owner.ask("subscribe", request, (error, result) => {
      if (attempt !== this.#attempt) return;
      this.#isAsking = false;
      if (!error) this.#enter(result);
      else if (error.uncertain) this.#owner.lose("subscribe was not answered");
      else this.#fail(error.code, error.message, error.temporary);
    });
  }

  /** There is no connection any more. @param {number} code @param {string} reason */
  [SUSPEND](code, reason) {
    this.#stop();
    if (this.#state === "subscribed") this.#move("loss", code, reason);
  }

  /** The server ended the subscription. If it is not confirmed, a former one is meant. @param {number} code @param {string} reason */
  [END](code, reason) {
    if (this.#state !== "subscribed") return;
    this.#stop();
    if (code === UNSUBSCRIBED_INVALIDATED) this[INVALIDATE]();
    if (code === UNSUBSCRIBED_EXPIRED) this.#credential.drop();
    if (code < RESUBSCRIBE_FROM) this.#forget();
    this.#move(code < RESUBSCRIBE_FROM ? "refusal" : "loss", code, reason);
    if (code >= RESUBSCRIBE_FROM) this.#tryLater();
  }

  /** Nothing that we know holds any more. */
  [INVALIDATE]() {
    this.#track.invalidate();
    this.#credential.drop();
  }

  /** A push of this channel. What comes before the confirmation is of a former time. @param {Record<string, any>} push */
  [HEAR]({ pub, join, leave }) {
    if (this.#state !== "subscribed") return;
    if (pub && this.#track.take(pub)) this[EMIT]("publication", publication(this.channel, pub));
    if (join) this[EMIT]("join", attendance(this.channel, join));
    if (leave) this[EMIT]("leave", attendance(this.channel, leave));
  }

  // --- What becomes of it -----------------------------------------------------------------------------------------

  /** @param {string} event @param {number} code @param {string} reason @returns {boolean} whether it happened */
  #move(event, code, reason) {
    const previous = this.#state;
    const state = SUBSCRIPTION_STATES[previous][event];
    if (!state) return false;
    this.#state = state;
    this[EMIT]("state", { channel: this.channel, state, previous, code, reason });
    return this.#state === state;
  }

  /** @param {Record<string, any>} result */
  #enter(result) {
    const attempt = this.#attempt;
    const { fresh, subscribed } = this.#track.enter(this.channel, result);
    this.#failures = 0;
    const present = (/** @type {string} */ token, /** @type {OnAnswer} */ onAnswer) =>
      this.#owner.ask("sub_refresh", { channel: this.channel, token }, onAnswer);
    this.#credential.renewLater(result, present, (reason) => {
      this.#leave();
      this.#move("refusal", UNAUTHORIZED, reason);
    });
    this.#move("confirm", 0, "");
    if (attempt === this.#attempt) this[EMIT]("subscribed", subscribed);
    for (const pub of fresh) {
      if (attempt !== this.#attempt) return; // a listener has left the channel
      if (this.#track.take(pub)) this[EMIT]("publication", publication(this.channel, pub, true));
    }
  }

  /** @param {number} code @param {string} reason @param {boolean} [temporary] */
  #fail(code, reason, temporary = code === INTERNAL) {
    const expired = code === TOKEN_EXPIRED && this.#credential.canFetch;
    if (expired) this.#credential.drop();
    if (temporary || expired) {
      this.#move("loss", code, reason);
      this.#tryLater();
      return;
    }
    this.#forget();
    this.#move("refusal", code, reason);
  }

  #tryLater() {
    if (this.#state === "subscribing") {
      this.#retry.after(backOffMs(this.#failures++, this.#owner.options), () => this[RESUME]());
    }
  }

  #leave() {
    this.#forget();
    if (this.#state === "unsubscribed" || !this.#owner.isConnected()) return;
    this.#owner.ask("unsubscribe", { channel: this.channel }, (error) => {
      if (error) this.#owner.lose("unsubscribe was not answered");
    });
  }

  #stop() {
    this.#attempt++;
    this.#isAsking = false;
    this.#retry.stop();
    this.#credential.stop();
  }

  #forget() {
    this.#stop();
    this.#failures = 0;
    this.#track = new Track();
  }
}
