// @ts-check
/**
 * Long polling (docs/protocols/streams.md), for networks that allow no other transport. One request after the other waits
 * for news, and separate requests carry the commands. On the server each request is a session of its own. For the rest of
 * the client they look like one connection.
 */

import { parseObject } from "./commands.js";
import {
  BATCH_CHARACTERS_MAX,
  BATCH_COMMANDS_MAX,
  COMMANDS_TIMEOUT_MS,
  CONNECTION_EXPIRED,
  INSUFFICIENT_STATE,
  MESSAGE_TOO_BIG,
  POLL_WAIT_MAX_S,
  TOKEN_EXPIRED,
} from "./constants.js";
import { PollChannels } from "./poll_channels.js";
import { Timer } from "./timer.js";

/** @typedef {import("./transports.js").Transport} Transport */
/** @typedef {{id: number} & Record<string, any>} Command */

/** @implements {Transport} */
export class PollTransport {
  static label = "poll";
  static isSupported = () => typeof fetch === "function";

  #address;
  #handlers;
  /** @type {RequestCredentials} */
  #credentials;
  #isOpen = true;
  /** The fields of the connect request that every request repeats: token, name, data. @type {Record<string, any>} */
  #identity = {};
  /** The id of the connect command; 0 after its reply. */
  #connectId = 0;
  #channels = new PollChannels();
  #waitS = POLL_WAIT_MAX_S;
  /** Aborts the poll that waits, because its channels, positions or token are obsolete. */
  #pollAbort = new AbortController();
  /** Aborts all other requests. */
  #closeAbort = new AbortController();
  /** @type {{command: Command, size: number}[]} */
  #queue = [];
  #isSending = false;

  /** @param {(path: string) => string} address @param {import("./transports.js").TransportHandlers} handlers @param {{withCredentials: boolean}} options */
  constructor(address, handlers, { withCredentials }) {
    this.#address = address;
    this.#handlers = handlers;
    this.#credentials = withCredentials ? "include" : "same-origin";
  }

  // --- Receiving --------------------------------------------------------------------------------------------------

  /** @param {string} connect */
  async open(connect) {
    const command = JSON.parse(connect);
    const { subs = {}, ...identity } = command.connect;
    delete identity.want_tickets; // the plain protocol has no tickets
    delete identity.ticket;
    this.#identity = identity;
    this.#connectId = command.id;
    const response = await this.#request("/connection/poll", { ...identity, subs, wait: 0 }, this.#closeAbort.signal);
    if (!response) return;
    const [first, ...pushes] = response.messages;
    this.#connectId = 0;
    this.#channels.begin(first.connect);
    const accepted = this.#channels.receive(pushes, response.subs);
    this.#deliver({ ...first, id: command.id });
    for (const push of accepted) this.#deliver({ push });
  }

  /** @param {Record<string, any>} result */
  welcome({ ping }) {
    this.#waitS = Math.min(ping || POLL_WAIT_MAX_S, POLL_WAIT_MAX_S);
    this.#poll();
  }

  /**
   * Sends one poll after the other. A poll needs no timeout here. Each response counts as a ping and is due after
   * `#waitS`, which is at most the ping interval. So the connection detects a missing response as a missing ping.
   */
  async #poll() {
    while (this.#isOpen) {
      this.#pollAbort = new AbortController();
      const request = { ...this.#identity, subs: this.#channels.subs(true), wait: this.#waitS };
      const response = await this.#request("/connection/poll", request, this.#pollAbort.signal);
      if (response) this.#receive(response);
    }
  }

  /** @param {Record<string, any>} response */
  #receive({ messages: [{ connect }, ...pushes], subs }) {
    const missed = this.#channels.resume(connect);
    if (!missed) return this.#end(INSUFFICIENT_STATE, "insufficient state");
    const accepted = [...missed, ...this.#channels.receive(pushes, subs)];
    for (const push of accepted) this.#deliver({ push });
    if (!accepted.length) this.#deliver({}); // a ping
  }

  // --- Sending ----------------------------------------------------------------------------------------------------

  /** @param {string} commands */
  send(commands) {
    for (const line of commands.split("\n")) {
      const command = JSON.parse(line);
      if (command.id) this.#queue.push({ command, size: line.length }); // a message without an id is a pong
    }
    if (!this.#isSending) this.#sendQueue();
  }

  /** One request at a time, because parallel requests may overtake each other. */
  async #sendQueue() {
    this.#isSending = true;
    while (this.#isOpen && this.#queue.length) {
      const { id, unsubscribe } = this.#queue[0].command;
      if (unsubscribe) {
        this.#queue.shift();
        this.#channels.remove(unsubscribe.channel);
        this.#pollAbort.abort();
        this.#deliver({ id, unsubscribe: {} });
      } else {
        await this.#sendBatch(this.#takeBatch());
      }
    }
    this.#isSending = false;
  }

  /** Takes the commands that fit into one request, up to the next unsubscribe, which needs no request. */
  #takeBatch() {
    let size = 0;
    const end = this.#queue.findIndex(({ command, size: more }, index) => {
      size += more;
      return command.unsubscribe || index === BATCH_COMMANDS_MAX || (index && size > BATCH_CHARACTERS_MAX);
    });
    return this.#queue.splice(0, end < 0 ? this.#queue.length : end).map(({ command }) => command);
  }

  /**
   * The request's session is subscribed to the channels that the commands name, because subscribers have more
   * permissions. If a command subscribes, the session is subscribed to all channels, so that the server can apply the
   * channel limit.
   * @param {Command[]} batch
   */
  async #sendBatch(batch) {
    const isSubscribing = batch.some(({ subscribe }) => subscribe);
    const named = new Set(batch.flatMap((command) => Object.values(command).map(({ channel }) => channel)));
    const subs = this.#channels.subs(false, (channel) => isSubscribing || named.has(channel));
    const commands = batch.map(({ id, ...command }) => command);
    const timeout = new Timer();
    timeout.start(COMMANDS_TIMEOUT_MS, () => this.#end(0, "the commands were not answered in time"));
    const response = await this.#request("/connection/commands", { ...this.#identity, subs, commands }, this.#closeAbort.signal);
    timeout.stop();
    if (!response) return;
    for (const [index, command] of batch.entries()) {
      const reply = response.replies[index];
      // The waiting poll does not know the new state. To abort it loses nothing: the next one repeats the positions.
      if (this.#applyReply(command, reply)) this.#pollAbort.abort();
      this.#deliver({ ...reply, id: command.id });
    }
  }

  /** Applies a reply. Returns whether the next poll differs from the one that waits. @param {Command} command @param {Record<string, any>} reply */
  #applyReply({ subscribe, refresh, sub_refresh: subRefresh }, { error, subscribe: result }) {
    if (error) return false;
    if (subscribe) this.#channels.subscribe(subscribe, result);
    if (subRefresh) this.#channels.refresh(subRefresh.channel, subRefresh.token);
    if (refresh) this.#identity = { ...this.#identity, token: refresh.token };
    return Boolean(subscribe || subRefresh || refresh);
  }

  // --- Requests ---------------------------------------------------------------------------------------------------

  /**
   * Returns the response, or null if the request was aborted or failed; a failure ends the transport. A string body has
   * the type `text/plain`, for which browsers send no preflight request.
   * @param {string} path @param {Record<string, any>} request @param {AbortSignal} signal
   */
  async #request(path, request, signal) {
    try {
      const body = JSON.stringify(request);
      const response = await fetch(this.#address(path), { method: "POST", body, credentials: this.#credentials, signal });
      const text = await response.text();
      if (signal.aborted) return null;
      const message = parseObject(text) ?? {};
      if (response.ok && (message.messages?.[0]?.connect || message.replies)) return message;
      this.#fail(response.status, message);
    } catch (error) {
      if (!signal.aborted) this.#end(0, `a request failed: ${error}`);
    }
    return null;
  }

  /** @param {number} status @param {Record<string, any>} message */
  #fail(status, { disconnect }) {
    if (disconnect?.code === CONNECTION_EXPIRED && this.#connectId) {
      // Deliver the same error as other transports: the token has expired, and a client without `getToken` must give up.
      this.#deliver({ id: this.#connectId, error: { code: TOKEN_EXPIRED, message: disconnect.reason } });
    } else if (disconnect) {
      this.#end(disconnect.code, disconnect.reason);
    } else {
      this.#end(status === 413 ? MESSAGE_TOO_BIG : 0, `a request failed with status ${status}`);
    }
  }

  /** @param {Record<string, any>} message */
  #deliver(message) {
    if (this.#isOpen) this.#handlers.message(JSON.stringify(message));
  }

  /** @param {number} code @param {string} reason */
  #end(code, reason) {
    if (!this.#isOpen) return;
    this.close();
    this.#handlers.end(code, reason);
  }

  close() {
    this.#isOpen = false;
    this.#pollAbort.abort();
    this.#closeAbort.abort();
  }
}
