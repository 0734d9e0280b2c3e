// @ts-check
/**
 * Long polling (docs/protocols/streams.md), for networks that let nothing else through: one request after the other asks
 * what is new, and others carry the commands. Each is a session of its own on the server; for the rest of the client
 * they look like one connection.
 */

import { Alarm } from "./clock.js";
import { parseObject } from "./conversation.js";
import { Memberships } from "./memberships.js";
import {
  BATCH_CHARACTERS_MAX,
  BATCH_COMMANDS_MAX,
  COMMANDS_MAX_MS,
  CONNECTION_EXPIRED,
  INSUFFICIENT_STATE,
  MESSAGE_TOO_BIG,
  POLL_WAIT_MAX_S,
  TOKEN_EXPIRED,
} from "./tables.js";

/** @typedef {import("./transports.js").Ears} Ears */
/** @typedef {import("./transports.js").Transport} Transport */
/** @typedef {{id: number} & Record<string, any>} Command */

/** @implements {Transport} */
export class PollTransport {
  static label = "poll";
  static isSupported = () => typeof fetch === "function";

  #address;
  #ears;
  /** @type {RequestCredentials} */
  #credentials;
  #isOpen = true;
  /** Who asks: what every request has of the connect request. @type {Record<string, any>} */
  #who = {};
  /** The id of the connect command, 0 once it is answered. */
  #connecting = 0;
  #memberships = new Memberships();
  #waitS = POLL_WAIT_MAX_S;
  /** Calls off the request that waits: what it asks is not what we want to know any more. */
  #turn = new AbortController();
  /** Calls off the others. */
  #over = new AbortController();
  /** @type {{command: Command, size: number}[]} */
  #waiting = [];
  #isSpeaking = false;

  /** @param {(path: string) => string} address @param {Ears} ears @param {{withCredentials: boolean}} options */
  constructor(address, ears, { withCredentials }) {
    this.#address = address;
    this.#ears = ears;
    this.#credentials = withCredentials ? "include" : "same-origin";
  }

  // --- Hearing ----------------------------------------------------------------------------------------------------

  /** @param {string} connect */
  async open(connect) {
    const command = JSON.parse(connect);
    const { subs = {}, ...who } = command.connect;
    this.#who = who;
    this.#connecting = command.id;
    const answer = await this.#ask("/connection/poll", { ...who, subs, wait: 0 }, this.#over.signal);
    if (!answer) return;
    const [first, ...pushes] = answer.messages;
    this.#connecting = 0;
    this.#memberships.begin(first.connect);
    const told = this.#memberships.hear(pushes, answer.subs);
    this.#say({ ...first, id: command.id });
    for (const push of told) this.#say({ push });
  }

  /** @param {Record<string, any>} result */
  welcome({ ping }) {
    this.#waitS = Math.min(ping || POLL_WAIT_MAX_S, POLL_WAIT_MAX_S);
    this.#follow();
  }

  /**
   * Asks again and again. An answer that never comes needs no deadline here: each one is at least a ping and due after
   * `#waitS`, which is no longer than the interval of pings, so the link notices the silence, as over any transport.
   */
  async #follow() {
    while (this.#isOpen) {
      this.#turn = new AbortController();
      const question = { ...this.#who, subs: this.#memberships.subs(true), wait: this.#waitS };
      const answer = await this.#ask("/connection/poll", question, this.#turn.signal);
      if (answer) this.#hear(answer);
    }
  }

  /** @param {Record<string, any>} answer */
  #hear({ messages: [{ connect }, ...pushes], subs }) {
    const missed = this.#memberships.resume(connect);
    if (!missed) return this.#end(INSUFFICIENT_STATE, "insufficient state");
    const told = [...missed, ...this.#memberships.hear(pushes, subs)];
    for (const push of told) this.#say({ push });
    if (!told.length) this.#say({}); // a ping
  }

  // --- Speaking ---------------------------------------------------------------------------------------------------

  /** @param {string} commands */
  send(commands) {
    for (const line of commands.split("\n")) {
      const command = JSON.parse(line);
      if (command.id) this.#waiting.push({ command, size: line.length }); // what has none is a pong
    }
    if (!this.#isSpeaking) this.#speak();
  }

  /** One request after the other, because requests on the way may overtake each other. */
  async #speak() {
    this.#isSpeaking = true;
    while (this.#isOpen && this.#waiting.length) {
      const { id, unsubscribe } = this.#waiting[0].command;
      if (unsubscribe) {
        this.#waiting.shift();
        this.#memberships.leave(unsubscribe.channel);
        this.#turn.abort();
        this.#say({ id, unsubscribe: {} });
      } else {
        await this.#carry(this.#takeBatch());
      }
    }
    this.#isSpeaking = false;
  }

  /** What fits into one request, up to the next unsubscribe: for that none is needed. */
  #takeBatch() {
    let size = 0;
    const end = this.#waiting.findIndex(({ command, size: more }, index) => {
      size += more;
      return command.unsubscribe || index === BATCH_COMMANDS_MAX || (index && size > BATCH_CHARACTERS_MAX);
    });
    return this.#waiting.splice(0, end < 0 ? this.#waiting.length : end).map(({ command }) => command);
  }

  /**
   * In a session that is in the channels which are spoken of, because there is more that subscribers may do. If one more
   * is to be entered it is in all of them, because there is a limit.
   * @param {Command[]} batch
   */
  async #carry(batch) {
    const isEntering = batch.some(({ subscribe }) => subscribe);
    const named = new Set(batch.flatMap((command) => Object.values(command).map(({ channel }) => channel)));
    const subs = this.#memberships.subs(false, (channel) => isEntering || named.has(channel));
    const commands = batch.map(({ id, ...command }) => command);
    const deadline = new Alarm();
    deadline.after(COMMANDS_MAX_MS, () => this.#end(0, "commands were not answered"));
    const answer = await this.#ask("/connection/commands", { ...this.#who, subs, commands }, this.#over.signal);
    deadline.stop();
    if (!answer) return;
    for (const [index, command] of batch.entries()) {
      const reply = answer.replies[index];
      // What waits does not know of it yet. It may be called off without a loss, for our positions tell what we have.
      if (this.#learn(command, reply)) this.#turn.abort();
      this.#say({ ...reply, id: command.id });
    }
  }

  /** Whether there is now something else to ask, or to ask with. @param {Command} command @param {Record<string, any>} reply */
  #learn({ subscribe, refresh, sub_refresh: renewal }, { error, subscribe: result }) {
    if (error) return false;
    if (subscribe) this.#memberships.enter(subscribe, result);
    if (renewal) this.#memberships.renew(renewal.channel, renewal.token);
    if (refresh) this.#who = { ...this.#who, token: refresh.token };
    return Boolean(subscribe || renewal || refresh);
  }

  // --- Requests ---------------------------------------------------------------------------------------------------

  /**
   * The answer, or null if there is none that counts: then it was called off, or this is over. A text is sent as
   * `text/plain`, for which browsers need no preflight.
   * @param {string} path @param {Record<string, any>} request @param {AbortSignal} signal
   */
  async #ask(path, request, signal) {
    try {
      const body = JSON.stringify(request);
      const response = await fetch(this.#address(path), { method: "POST", body, credentials: this.#credentials, signal });
      const text = await response.text();
      if (signal.aborted) return null;
      const answer = parseObject(text) ?? {};
      if (response.ok && (answer.messages?.[0]?.connect || answer.replies)) return answer;
      this.#refuse(response.status, answer);
    } catch (error) {
      if (!signal.aborted) this.#end(0, `a request failed: ${error}`);
    }
    return null;
  }

  /** @param {number} status @param {Record<string, any>} answer */
  #refuse(status, { disconnect }) {
    if (disconnect?.code === CONNECTION_EXPIRED && this.#connecting) {
      // Said as it is to those who speak: it is the token, and whoever has no other one need not come back.
      this.#say({ id: this.#connecting, error: { code: TOKEN_EXPIRED, message: disconnect.reason } });
    } else if (disconnect) {
      this.#end(disconnect.code, disconnect.reason);
    } else {
      this.#end(status === 413 ? MESSAGE_TOO_BIG : 0, `a request was answered with ${status}`);
    }
  }

  /** @param {Record<string, any>} message */
  #say(message) {
    if (this.#isOpen) this.#ears.message(JSON.stringify(message));
  }

  /** @param {number} code @param {string} reason */
  #end(code, reason) {
    if (!this.#isOpen) return;
    this.close();
    this.#ears.end(code, reason);
  }

  close() {
    this.#isOpen = false;
    this.#turn.abort();
    this.#over.abort();
  }
}
