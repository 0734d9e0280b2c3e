// @ts-check
/**
 * Beaconfire's client for browsers, without dependencies.
 *
 *     import { Client } from "https://push.example.com/client/beaconfire.js";
 *     const client = new Client("https://push.example.com", { getToken });
 *     const room = client.subscription("kitchen");
 *     room.on("publication", ({ data }) => show(data));
 *     room.subscribe();
 *     client.connect();
 *
 * It speaks the native protocol in JSON (docs/protocols/centrifuge.md) over the first transport that the network lets
 * through, comes back after every loss that is not final, and resumes each subscription at its position: what a room
 * publishes is heard once and in order, or `subscribed` says `recovered: false`.
 *
 * Reading order: words, tables, clock, conversation, memberships, poll, transports, link, probe, track, credential,
 * subscription, grants, and this.
 */

import { Alarm } from "./clock.js";
import { waitFor } from "./conversation.js";
import { Credential } from "./credential.js";
import { Grants } from "./grants.js";
import { Link } from "./link.js";
import { Probe } from "./probe.js";
import { Subscription } from "./subscription.js";
import {
  CONNECTION_EXPIRED,
  DEFAULTS,
  EXPIRED,
  STABLE_AFTER_MS,
  STATES,
  STATE_INVALIDATED,
  TOKEN_EXPIRED,
  UNAUTHORIZED,
  backOffMs,
  isFinal,
} from "./tables.js";
import { historyRequest, historyResult, presenceResult, statsResult } from "./track.js";
import { Route } from "./transports.js";
import { ClientError, EMIT, END, Emitter, HEAR, INVALIDATE, RESUME, SUSPEND, UnauthorizedError } from "./words.js";

export { STATES, SUBSCRIPTION_STATES } from "./tables.js";
export { ClientError, UnauthorizedError } from "./words.js";
export { Subscription };

export const VERSION = "0.1.0";

/** @typedef {import("./conversation.js").OnAnswer} OnAnswer */
/** @typedef {import("./words.js").State} State */
/** @typedef {import("./words.js").ClientOptions} ClientOptions */
/** @typedef {import("./words.js").SubscriptionOptions} SubscriptionOptions */
/** @typedef {import("./words.js").HistoryQuery} HistoryQuery */
/**
 * `publication`, `join`, `leave`, `subscribed` and `unsubscribed` are of channels that the server put us in; those of
 * subscriptions are told to these. `message` is data for this client outside any channel.
 * @typedef {{state: import("./words.js").StateChange, message: {data: any}} & import("./grants.js").GrantEvents} ClientEvents
 */

/**
 * A lasting connection to one server.
 * @extends {Emitter<ClientEvents>}
 */
export class Client extends Emitter {
  /** Sent with every connect, from the next one on: any JSON. @type {any} */
  data;
  #base;
  #options;
  #route;
  #credential;
  #probe;
  /** @type {State} */
  #state = "idle";
  /** @type {Map<string, Subscription>} */
  #subscriptions = new Map();
  #grants = new Grants((name, event) => /** @type {Emitter<any>} */ (this)[EMIT](name, event));
  /** @type {Link | null} */
  #link = null;
  /** Changes with every attempt; whoever waited for something finds out by it that it is over. */
  #attempt = 0;
  #failures = 0;
  #retry = new Alarm();
  /** Ends our listening to the page. @type {AbortController | null} */
  #page = null;
  /** @type {import("./subscription.js").Owner} */
  #owner;

  /** @param {string} url where the server is, as https://push.example.com @param {ClientOptions} [options] */
  constructor(url, options = {}) {
    super();
    this.#base = url.replace(/^ws/, "http").replace(/\/+$/, "");
    this.#options = { ...DEFAULTS, ...options };
    this.data = options.data;
    this.#route = new Route(options.transports);
    this.#credential = new Credential(options.token, options.getToken);
    this.#probe = new Probe({
      address: (path) => this.#base + path,
      options: this.#options,
      introduction: () => this.#introduction(),
      found: (kind) => this.#improve(kind),
    });
    this.#owner = {
      isConnected: () => this.#state === "connected" && this.#link !== null,
      ask: (kind, request, onAnswer) => this.#ask(kind, request, onAnswer),
      lose: (reason) => this.#link && this.#lose(0, reason),
      options: this.#options,
    };
  }

  get state() {
    return this.#state;
  }

  /** The name of the transport in use, "" while there is none. */
  get transport() {
    return this.#state === "connected" ? (this.#link?.kind.label ?? "") : "";
  }

  /** Connects, and comes back after every loss, until `disconnect` or a refusal. While it waits, it tries at once. */
  connect() {
    if (this.#state === "connecting") return this.#hurry("connect was called");
    if (!("connect" in STATES[this.#state])) return;
    this.#failures = 0;
    this.#watchPage();
    if (this.#move("connect", 0, "connect was called")) this.#begin();
  }

  /** Ends the connection. Subscriptions stay: after another `connect` they go on where they were. */
  disconnect() {
    this.#end("disconnect", 0, "disconnect was called");
  }

  /**
   * The subscription to a channel, made if there is none yet. With options there must be none.
   * @param {string} channel @param {SubscriptionOptions} [options] @returns {Subscription}
   */
  subscription(channel, options) {
    const known = this.#subscriptions.get(channel);
    if (known && options) throw new TypeError(`there is a subscription to ${channel} already: remove it first`);
    const subscription = known ?? new Subscription(channel, this.#owner, options ?? {});
    this.#subscriptions.set(channel, subscription);
    return subscription;
  }

  /** Ends a subscription for good. @param {Subscription} subscription */
  remove(subscription) {
    subscription.unsubscribe();
    if (this.#subscriptions.get(subscription.channel) === subscription) this.#subscriptions.delete(subscription.channel);
  }

  /**
   * Publishes in a channel that we need not be in. Resolves once it is stored, rejects with `ClientError`.
   * @param {string} channel @param {any} data @returns {Promise<void>}
   */
  async publish(channel, data) {
    await this.#request("publish", { channel, data });
  }

  /** Calls a method of the backend. Rejects with `ClientError`. @param {string} method @param {any} [data] @returns {Promise<any>} */
  async rpc(method, data = null) {
    return (await this.#request("rpc", { method, data })).data;
  }

  /** Who is in a channel, by connection id. Rejects with `ClientError`. @param {string} channel */
  async presence(channel) {
    return presenceResult(await this.#request("presence", { channel }));
  }

  /** Rejects with `ClientError`. @param {string} channel */
  async presenceStats(channel) {
    return statsResult(await this.#request("presence_stats", { channel }));
  }

  /** Without a limit the stream's position only. Rejects with `ClientError`. @param {string} channel @param {HistoryQuery} [query] */
  async history(channel, query = {}) {
    return historyResult(channel, await this.#request("history", historyRequest(channel, query)));
  }

  /** @param {string} kind @param {Record<string, any>} request @returns {Promise<Record<string, any>>} */
  async #request(kind, request) {
    await waitFor(this, "connected", "connecting", this.#options.commandTimeoutMs);
    return new Promise((resolve, reject) =>
      this.#ask(kind, request, (error, result) => (error ? reject(error) : resolve(result))),
    );
  }

  /** @param {string} kind @param {Record<string, any>} request @param {OnAnswer} onAnswer */
  #ask(kind, request, onAnswer) {
    if (this.#state === "connected" && this.#link) this.#link.ask(kind, request, this.#options.commandTimeoutMs, onAnswer);
    else onAnswer(new ClientError(0, "not connected", { temporary: true }), {});
  }

  /**
   * @param {string} event @param {number} code @param {string} reason @param {number} [retryAt]
   * @returns {boolean} whether it happened, and nobody who heard of it did something else
   */
  #move(event, code, reason, retryAt = 0) {
    const previous = this.#state;
    const state = STATES[previous][event];
    if (!state) return false;
    this.#state = state;
    const attempt = this.#attempt;
    const client = this.#link?.client ?? "";
    this[EMIT]("state", { state, previous, code, reason, retryAt, transport: this.transport, client });
    return attempt === this.#attempt && this.#state === state;
  }

  // --- Coming -----------------------------------------------------------------------------------------------------

  #begin() {
    this.#retry.stop();
    this.#route.begin();
    this.#try();
  }

  async #try() {
    const attempt = ++this.#attempt;
    if (this.#credential.isMissing) {
      try {
        await this.#credential.fetch();
      } catch (error) {
        if (attempt !== this.#attempt) return;
        if (error instanceof UnauthorizedError) this.#giveUp(UNAUTHORIZED, error.message);
        else this.#comeBack(0, `getToken failed: ${error}`);
        return;
      }
      if (attempt !== this.#attempt) return;
    }
    const address = (/** @type {string} */ path) => this.#base + path;
    /** @type {Link} */
    const link = new Link(this.#route.next(), address, this.#options, {
      push: (push) => this.#hear(link, push),
      end: (code, reason) => this.#lose(code, reason),
    });
    this.#link = link;
    link.open({ ...this.#introduction(), ...this.#grants.field }, (error, result) => {
      if (this.#link !== link) return;
      if (error) this.#failToConnect(error);
      else this.#welcome(link, result);
    });
  }

  #introduction() {
    const { data } = this;
    return { name: "beaconfire-js", version: VERSION, ...this.#credential.field, ...(data !== undefined && { data }) };
  }

  /** @param {ClientError} error */
  #failToConnect({ code, message, temporary }) {
    const isOver = code === TOKEN_EXPIRED || code === EXPIRED;
    if (isOver) this.#credential.drop();
    if (temporary || (isOver && this.#credential.canFetch)) this.#lose(code, message);
    else this.#giveUp(code, message);
  }

  /** @param {Link} link @param {Record<string, any>} result */
  #welcome(link, result) {
    this.#route.worked(link.kind);
    link.welcome(result);
    this.#renewLater(result);
    this.#probe.begin(this.#route.betterThan(link.kind));
    if (!this.#move("welcome", 0, "")) return;
    const isOn = () => this.#link === link;
    this.#grants.enterAll(result.subs ?? {}, isOn);
    for (const subscription of [...this.#subscriptions.values()]) if (isOn()) subscription[RESUME]();
  }

  /** @param {Record<string, any>} result */
  #renewLater(result) {
    const present = (/** @type {string} */ token, /** @type {OnAnswer} */ onAnswer) => this.#ask("refresh", { token }, onAnswer);
    this.#credential.renewLater(result, present, (reason) => this.#giveUp(UNAUTHORIZED, reason));
  }

  // --- Coming back ------------------------------------------------------------------------------------------------

  /** A better transport gets through. @param {import("./transports.js").TransportClass} kind */
  #improve(kind) {
    this.#route.worked(kind);
    this.#lose(0, `${kind.label} gets through by now`);
  }

  /** The connection, or the attempt, is over. What allows it is tried again. @param {number} code @param {string} reason */
  #lose(code, reason) {
    if (code === CONNECTION_EXPIRED) this.#credential.drop();
    if (code === STATE_INVALIDATED) this.#invalidate();
    if (isFinal(code)) return this.#giveUp(code, reason);
    const link = this.#link;
    if (link && !link.hasSpoken && code === 0) {
      this.#route.missed();
      if (this.#route.hasNext) {
        this.#drop(reason);
        this.#try();
        return;
      }
    }
    if (link && link.ageMs >= STABLE_AFTER_MS) this.#failures = 0;
    this.#comeBack(code, reason);
  }

  /** @param {number} code @param {string} reason */
  #comeBack(code, reason) {
    this.#drop(reason);
    const delayMs = backOffMs(this.#failures++, this.#options);
    this.#retry.after(delayMs, () => this.#begin());
    this.#move("loss", code, reason, Date.now() + delayMs);
    this.#suspend(code, reason);
  }

  /** @param {number} code @param {string} reason */
  #giveUp(code, reason) {
    this.#credential.drop();
    this.#end("refusal", code, reason);
  }

  /** @param {"refusal" | "disconnect"} event @param {number} code @param {string} reason */
  #end(event, code, reason) {
    this.#drop(reason);
    this.#page?.abort();
    this.#page = null;
    this.#move(event, code, reason);
    this.#suspend(code, reason);
  }

  /** Nothing of this connection is heard of again. @param {string} reason */
  #drop(reason) {
    this.#attempt++;
    this.#retry.stop();
    this.#credential.stop();
    this.#probe.stop();
    const link = this.#link;
    this.#link = null;
    link?.close(reason);
  }

  /** @param {number} code @param {string} reason */
  #suspend(code, reason) {
    for (const subscription of [...this.#subscriptions.values()]) subscription[SUSPEND](code, reason);
  }

  #invalidate() {
    this.#credential.drop();
    this.#grants.invalidate();
    for (const subscription of this.#subscriptions.values()) subscription[INVALIDATE]();
  }

  /** The network or the tab comes back: what waits is done now, and what cannot be alive any more is given up. */
  #watchPage() {
    const { signal } = (this.#page = new AbortController());
    const look = () => this.#wake(false);
    globalThis.addEventListener?.("online", () => this.#wake(true), { signal });
    globalThis.addEventListener?.("pageshow", look, { signal });
    globalThis.document?.addEventListener("visibilitychange", () => document.hidden || look(), { signal });
    globalThis.document?.addEventListener("resume", look, { signal });
  }

  /** @param {boolean} isOtherNetwork */
  #wake(isOtherNetwork) {
    if (isOtherNetwork) this.#route.forget();
    if (this.#state === "connected" && (isOtherNetwork || this.#link?.isSilent)) {
      this.#lose(0, isOtherNetwork ? "the network has changed" : "the server has gone silent");
    }
    this.#hurry(isOtherNetwork ? "the network has changed" : "the page is looked at again");
  }

  /** If it waits, it need not any longer. @param {string} reason */
  #hurry(reason) {
    if (!this.#retry.isSet) return;
    this.#retry.stop(); // first: a listener that connects must not come by here again
    if (this.#move("connect", 0, reason)) this.#begin();
  }

  // --- Being there ------------------------------------------------------------------------------------------------

  /** @param {Link} link @param {Record<string, any>} push */
  #hear(link, push) {
    const { channel = "" } = push;
    const subscription = this.#subscriptions.get(channel);
    if (push.disconnect) this.#lose(push.disconnect.code, push.disconnect.reason);
    else if (push.message) this[EMIT]("message", { data: push.message.data });
    else if (push.refresh) this.#renewLater(push.refresh);
    else if (push.subscribe) this.#grants.enter(channel, push.subscribe, () => this.#link === link);
    else if (this.#grants.has(channel)) this.#grants.hear(channel, push);
    else if (push.unsubscribe) subscription?.[END](push.unsubscribe.code ?? 0, push.unsubscribe.reason ?? "");
    else subscription?.[HEAR](push);
  }
}
