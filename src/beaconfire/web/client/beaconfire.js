// @ts-check
/**
 * Beaconfire's browser client. It has no dependencies.
 *
 *     import { Client } from "https://push.example.com/client/beaconfire.js";
 *     const client = new Client("https://push.example.com", { getToken });
 *     const subscription = client.subscription("kitchen");
 *     subscription.on("publication", ({ data }) => show(data));
 *     subscription.subscribe();
 *     client.connect();
 *
 * The client uses the Centrifuge protocol in JSON (docs/protocols/centrifuge.md) over the first transport that the network
 * allows. It reconnects after every loss that is not final, and each subscription continues at its position: the page
 * receives each publication once and in order, or the `subscribed` event says `recovered: false`.
 *
 * Reading order: events, errors, options, constants, timer, commands, position, transports (with websocket_transport,
 * stream_transports, poll_transport and poll_channels), connection, transport_probe, token_source, subscription,
 * server_subscriptions, this file.
 */

import { waitForState } from "./commands.js";
import { Connection } from "./connection.js";
import {
  CONNECTION_EXPIRED,
  EXPIRED,
  STABLE_AFTER_MS,
  STATES,
  STATE_INVALIDATED,
  TOKEN_EXPIRED,
  UNAUTHORIZED,
  isFinalCode,
  retryDelayMs,
} from "./constants.js";
import { ClientError, UnauthorizedError } from "./errors.js";
import { EMIT, Emitter } from "./events.js";
import { DEFAULTS } from "./options.js";
import { historyRequest, historyResult, presenceResult, statsResult } from "./results.js";
import { ServerSubscriptions } from "./server_subscriptions.js";
import { INVALIDATE, ON_CONNECTED, ON_DISCONNECTED, ON_PUSH, ON_UNSUBSCRIBED, Subscription } from "./subscription.js";
import { Timer } from "./timer.js";
import { TokenSource } from "./token_source.js";
import { TransportProbe } from "./transport_probe.js";
import { TransportSelector } from "./transports.js";

export { STATES, SUBSCRIPTION_STATES } from "./constants.js";
export { ClientError, UnauthorizedError } from "./errors.js";
export { Subscription };

export const VERSION = "0.1.0";

/** @typedef {import("./commands.js").OnReply} OnReply */
/** @typedef {import("./events.js").State} State */
/** @typedef {import("./events.js").HistoryQuery} HistoryQuery */
/** @typedef {import("./options.js").ClientOptions} ClientOptions */
/** @typedef {import("./options.js").SubscriptionOptions} SubscriptionOptions */
/**
 * `publication`, `join`, `leave`, `subscribed` and `unsubscribed` concern server-side subscriptions; a `Subscription` has its
 * own events. `message` is data for this client outside any channel.
 * @typedef {{state: import("./events.js").StateChange, message: {data: any}} & import("./server_subscriptions.js").ServerSubscriptionEvents} ClientEvents
 */

/**
 * A connection to one server that is restored after every loss.
 * @extends {Emitter<ClientEvents>}
 */
export class Client extends Emitter {
  /** JSON data that is sent with every connect command. A new value is used from the next connect on. @type {any} */
  data;
  #base;
  #options;
  #selector;
  #tokens;
  #probe;
  /** @type {State} */
  #state = "idle";
  /** @type {Map<string, Subscription>} */
  #subscriptions = new Map();
  #serverSubscriptions = new ServerSubscriptions((name, event) => /** @type {Emitter<any>} */ (this)[EMIT](name, event));
  /** @type {Connection | null} */
  #connection = null;
  /** Increases with every attempt, so that a callback of an earlier attempt can detect that it is obsolete. */
  #attempt = 0;
  #failures = 0;
  #retryTimer = new Timer();
  /** Removes the listeners on the page. @type {AbortController | null} */
  #pageListeners = null;
  /** @type {import("./subscription.js").SubscriptionHost} */
  #host;

  /** @param {string} url the server's address, such as https://push.example.com @param {ClientOptions} [options] */
  constructor(url, options = {}) {
    super();
    this.#base = url.replace(/^ws/, "http").replace(/\/+$/, "");
    this.#options = { ...DEFAULTS, ...options };
    this.data = options.data;
    this.#selector = new TransportSelector(options.transports);
    this.#tokens = new TokenSource(options.token, options.getToken);
    this.#probe = new TransportProbe({
      address: (path) => this.#base + path,
      options: this.#options,
      connectRequest: () => this.#connectRequest(),
      onFound: (kind) => this.#switchTransport(kind),
    });
    this.#host = {
      isConnected: () => this.#state === "connected" && this.#connection !== null,
      send: (kind, request, onReply) => this.#send(kind, request, onReply),
      reconnect: (reason) => this.#connection && this.#onEnd(0, reason),
      options: this.#options,
    };
  }

  get state() {
    return this.#state;
  }

  /** The name of the transport in use; "" while the client is not connected. */
  get transport() {
    return this.#state === "connected" ? (this.#connection?.kind.label ?? "") : "";
  }

  /**
   * Connects, and reconnects after every loss, until `disconnect` or a refusal. While the client waits for the next
   * attempt, this method starts it at once.
   */
  connect() {
    if (this.#state === "connecting") return this.#retryNow("connect was called");
    if (!("connect" in STATES[this.#state])) return;
    this.#failures = 0;
    this.#listenToPage();
    if (this.#transition("connect", 0, "connect was called")) this.#startRound();
  }

  /** Ends the connection. Subscriptions remain: after another `connect` they continue at their positions. */
  disconnect() {
    this.#end("disconnect", 0, "disconnect was called");
  }

  /**
   * Returns the subscription to a channel, and creates it if there is none. Throws a `TypeError` if options are given for a
   * subscription that exists.
   * @param {string} channel @param {SubscriptionOptions} [options] @returns {Subscription}
   */
  subscription(channel, options) {
    const known = this.#subscriptions.get(channel);
    if (known && options) throw new TypeError(`a subscription to ${channel} exists: remove it first`);
    const subscription = known ?? new Subscription(channel, this.#host, options ?? {});
    this.#subscriptions.set(channel, subscription);
    return subscription;
  }

  /** Unsubscribes and removes a subscription. @param {Subscription} subscription */
  remove(subscription) {
    subscription.unsubscribe();
    if (this.#subscriptions.get(subscription.channel) === subscription) this.#subscriptions.delete(subscription.channel);
  }

  /**
   * Publishes in a channel; a subscription is not required. Resolves after the server has stored the data. Rejects with
   * `ClientError`.
   * @param {string} channel @param {any} data @returns {Promise<void>}
   */
  async publish(channel, data) {
    await this.#request("publish", { channel, data });
  }

  /** Calls a method of the backend. Rejects with `ClientError`. @param {string} method @param {any} [data] @returns {Promise<any>} */
  async rpc(method, data = null) {
    return (await this.#request("rpc", { method, data })).data;
  }

  /** Returns the clients in a channel, by connection id. Rejects with `ClientError`. @param {string} channel */
  async presence(channel) {
    return presenceResult(await this.#request("presence", { channel }));
  }

  /** Returns the numbers of clients and users in a channel. Rejects with `ClientError`. @param {string} channel */
  async presenceStats(channel) {
    return statsResult(await this.#request("presence_stats", { channel }));
  }

  /**
   * Returns publications of a channel's history; without a `limit`, only the stream's position. Rejects with `ClientError`.
   * @param {string} channel @param {HistoryQuery} [query]
   */
  async history(channel, query = {}) {
    return historyResult(channel, await this.#request("history", historyRequest(channel, query)));
  }

  /** @param {string} kind @param {Record<string, any>} request @returns {Promise<Record<string, any>>} */
  async #request(kind, request) {
    await waitForState(this, "connected", "connecting", this.#options.commandTimeoutMs);
    return new Promise((resolve, reject) =>
      this.#send(kind, request, (error, result) => (error ? reject(error) : resolve(result))),
    );
  }

  /** @param {string} kind @param {Record<string, any>} request @param {OnReply} onReply */
  #send(kind, request, onReply) {
    if (this.#state === "connected" && this.#connection) {
      this.#connection.send(kind, request, this.#options.commandTimeoutMs, onReply);
    } else {
      onReply(new ClientError(0, "not connected", { temporary: true }), {});
    }
  }

  /**
   * @param {string} event @param {number} code @param {string} reason @param {number} [retryAt]
   * @returns {boolean} whether the state changed and no listener has changed it again or started another attempt
   */
  #transition(event, code, reason, retryAt = 0) {
    const previous = this.#state;
    const state = STATES[previous][event];
    if (!state) return false;
    this.#state = state;
    const attempt = this.#attempt;
    const client = this.#connection?.client ?? "";
    this[EMIT]("state", { state, previous, code, reason, retryAt, transport: this.transport, client });
    return attempt === this.#attempt && this.#state === state;
  }

  // --- Connecting -------------------------------------------------------------------------------------------------

  #startRound() {
    this.#retryTimer.stop();
    this.#selector.startRound();
    this.#tryNextTransport();
  }

  async #tryNextTransport() {
    const attempt = ++this.#attempt;
    if (this.#tokens.isMissing) {
      try {
        await this.#tokens.fetch();
      } catch (error) {
        if (attempt !== this.#attempt) return;
        if (error instanceof UnauthorizedError) this.#refuse(UNAUTHORIZED, error.message);
        else this.#retryLater(0, `getToken failed: ${error}`);
        return;
      }
      if (attempt !== this.#attempt) return;
    }
    const address = (/** @type {string} */ path) => this.#base + path;
    /** @type {Connection} */
    const connection = new Connection(this.#selector.next(), address, this.#options, {
      push: (push) => this.#onPush(connection, push),
      end: (code, reason) => this.#onEnd(code, reason),
    });
    this.#connection = connection;
    connection.open({ ...this.#connectRequest(), ...this.#serverSubscriptions.field }, (error, result) => {
      if (this.#connection !== connection) return;
      if (error) this.#onConnectError(error);
      else this.#onConnected(connection, result);
    });
  }

  /** The connect request without `subs`. */
  #connectRequest() {
    const { data } = this;
    return { name: "beaconfire-js", version: VERSION, want_tickets: true, ...this.#tokens.fields, ...(data !== undefined && { data }) };
  }

  /** @param {ClientError} error */
  #onConnectError({ code, message, temporary }) {
    const isExpired = code === TOKEN_EXPIRED || code === EXPIRED;
    if (isExpired) this.#tokens.discard();
    if (temporary || (isExpired && this.#tokens.canFetch)) this.#onEnd(code, message);
    else this.#refuse(code, message);
  }

  /** @param {Connection} connection @param {Record<string, any>} result */
  #onConnected(connection, result) {
    this.#selector.reportSuccess(connection.kind);
    connection.accept(result);
    this.#tokens.keepTicket(result);
    this.#scheduleRefresh(result);
    this.#probe.start(this.#selector.betterThan(connection.kind));
    if (!this.#transition("accept", 0, "")) return;
    const isCurrent = () => this.#connection === connection;
    this.#serverSubscriptions.applyConnectResult(result.subs ?? {}, isCurrent);
    for (const subscription of [...this.#subscriptions.values()]) if (isCurrent()) subscription[ON_CONNECTED]();
  }

  /** @param {Record<string, any>} result */
  #scheduleRefresh(result) {
    const sendToken = (/** @type {string} */ token, /** @type {OnReply} */ onReply) => this.#send("refresh", { token }, onReply);
    this.#tokens.scheduleRefresh(result, sendToken, (reason) => this.#refuse(UNAUTHORIZED, reason));
  }

  // --- Reconnecting -----------------------------------------------------------------------------------------------

  /** Reconnects with a better transport that works now. @param {import("./transports.js").TransportClass} kind */
  #switchTransport(kind) {
    this.#selector.reportSuccess(kind);
    this.#onEnd(0, `${kind.label} is available now`);
  }

  /** The connection or the attempt ended. Tries again, unless the code forbids it. @param {number} code @param {string} reason */
  #onEnd(code, reason) {
    if (code === CONNECTION_EXPIRED) this.#tokens.discard();
    if (code === STATE_INVALIDATED) this.#invalidate();
    if (isFinalCode(code)) return this.#refuse(code, reason);
    const connection = this.#connection;
    if (connection && !connection.hasReceived && code === 0) {
      this.#selector.reportFailure();
      if (this.#selector.hasNext) {
        this.#closeConnection(reason);
        this.#tryNextTransport();
        return;
      }
    }
    if (connection && connection.ageMs >= STABLE_AFTER_MS) this.#failures = 0;
    this.#retryLater(code, reason);
  }

  /** @param {number} code @param {string} reason */
  #retryLater(code, reason) {
    this.#closeConnection(reason);
    const delayMs = retryDelayMs(this.#failures++, this.#options);
    this.#retryTimer.start(delayMs, () => this.#startRound());
    this.#transition("loss", code, reason, Date.now() + delayMs);
    this.#suspendSubscriptions(code, reason);
  }

  /** @param {number} code @param {string} reason */
  #refuse(code, reason) {
    this.#tokens.discard();
    this.#end("refusal", code, reason);
  }

  /** @param {"refusal" | "disconnect"} event @param {number} code @param {string} reason */
  #end(event, code, reason) {
    this.#closeConnection(reason);
    this.#pageListeners?.abort();
    this.#pageListeners = null;
    this.#transition(event, code, reason);
    this.#suspendSubscriptions(code, reason);
  }

  /** Closes the connection, and makes all its later callbacks obsolete. @param {string} reason */
  #closeConnection(reason) {
    this.#attempt++;
    this.#retryTimer.stop();
    this.#tokens.stop();
    this.#probe.stop();
    const connection = this.#connection;
    this.#connection = null;
    connection?.close(reason);
  }

  /** @param {number} code @param {string} reason */
  #suspendSubscriptions(code, reason) {
    for (const subscription of [...this.#subscriptions.values()]) subscription[ON_DISCONNECTED](code, reason);
  }

  #invalidate() {
    this.#tokens.discard();
    this.#serverSubscriptions.invalidate();
    for (const subscription of this.#subscriptions.values()) subscription[INVALIDATE]();
  }

  /** When the network or the tab returns, a waiting attempt starts at once, and a connection that must be dead is replaced. */
  #listenToPage() {
    const { signal } = (this.#pageListeners = new AbortController());
    const check = () => this.#checkConnection(false);
    globalThis.addEventListener?.("online", () => this.#checkConnection(true), { signal });
    globalThis.addEventListener?.("pageshow", check, { signal });
    globalThis.document?.addEventListener("visibilitychange", () => document.hidden || check(), { signal });
    globalThis.document?.addEventListener("resume", check, { signal });
  }

  /** @param {boolean} hasNewNetwork */
  #checkConnection(hasNewNetwork) {
    if (hasNewNetwork) this.#selector.reset();
    if (this.#state === "connected" && (hasNewNetwork || this.#connection?.isSilent)) {
      this.#onEnd(0, hasNewNetwork ? "the network has changed" : "the server is silent: a ping is missing");
    }
    this.#retryNow(hasNewNetwork ? "the network has changed" : "the page is visible again");
  }

  /** Starts the next attempt at once, if the client waits for it. @param {string} reason */
  #retryNow(reason) {
    if (!this.#retryTimer.isSet) return;
    this.#retryTimer.stop(); // before the event: a listener that calls connect must not start a second attempt
    if (this.#transition("connect", 0, reason)) this.#startRound();
  }

  // --- Connected --------------------------------------------------------------------------------------------------

  /** @param {Connection} connection @param {Record<string, any>} push */
  #onPush(connection, push) {
    const { channel = "" } = push;
    const subscription = this.#subscriptions.get(channel);
    if (push.disconnect) this.#onEnd(push.disconnect.code, push.disconnect.reason);
    else if (push.message) this[EMIT]("message", { data: push.message.data });
    else if (push.refresh) this.#scheduleRefresh(push.refresh);
    else if (push.subscribe) this.#serverSubscriptions.add(channel, push.subscribe, () => this.#connection === connection);
    else if (this.#serverSubscriptions.has(channel)) this.#serverSubscriptions.receive(channel, push);
    else if (push.unsubscribe) subscription?.[ON_UNSUBSCRIBED](push.unsubscribe.code ?? 0, push.unsubscribe.reason ?? "");
    else subscription?.[ON_PUSH](push);
  }
}
