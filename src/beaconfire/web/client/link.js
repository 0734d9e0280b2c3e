// @ts-check
/** One attempt to connect and, if it succeeds, the connection: one transport, one conversation, one watch over silence. */

import { Alarm } from "./clock.js";
import { Conversation, parseObject } from "./conversation.js";

/** @typedef {import("./conversation.js").OnAnswer} OnAnswer */
/** @typedef {import("./transports.js").TransportClass} TransportClass */
/**
 * What a link tells: pushes in their order, and its end, once; then nothing more.
 * @typedef {{push: (push: Record<string, any>) => void, end: (code: number, reason: string) => void}} LinkEars
 */

export class Link {
  /** @readonly */ kind;
  /** The server has said something: nothing blocks the way. */
  hasSpoken = false;
  /** The connection's id, "" before it is welcome. */
  client = "";
  #transport;
  #conversation;
  #ears;
  #options;
  #welcomedAt = 0;
  #heardAt = 0;
  #pingMs = 0;
  #pongs = false;
  #isOver = false;
  #silence = new Alarm();

  /**
   * @param {TransportClass} kind @param {(path: string) => string} address
   * @param {{openTimeoutMs: number, pingGraceMs: number, withCredentials: boolean}} options @param {LinkEars} ears
   */
  constructor(kind, address, options, ears) {
    this.kind = kind;
    this.#ears = ears;
    this.#options = options;
    const message = (/** @type {string} */ text) => this.#hear(text);
    const end = (/** @type {number} */ code, /** @type {string} */ reason) => this.#end(code, reason);
    this.#transport = new kind(address, { message, end }, options);
    this.#conversation = new Conversation((commands) => this.#transport.send(commands));
  }

  /** @param {Record<string, any>} request the connect request @param {OnAnswer} onAnswer */
  open(request, onAnswer) {
    const command = this.#conversation.command("connect", request, this.#options.openTimeoutMs, onAnswer);
    try {
      this.#transport.open(command);
    } catch (error) {
      this.#end(0, String(error)); // a security policy, or an address that is none
    }
  }

  /** The connect result is there. @param {Record<string, any>} result */
  welcome(result) {
    this.client = result.client;
    this.#welcomedAt = Date.now();
    this.#pingMs = (result.ping ?? 0) * 1000;
    this.#pongs = result.pong === true;
    this.#transport.welcome(result);
    this.#watchSilence();
  }

  /** @param {string} kind @param {Record<string, any>} request @param {number} timeoutMs @param {OnAnswer} onAnswer */
  ask(kind, request, timeoutMs, onAnswer) {
    this.#conversation.ask(kind, request, timeoutMs, onAnswer);
  }

  /** How long this has been a connection. */
  get ageMs() {
    return this.#welcomedAt ? Date.now() - this.#welcomedAt : 0;
  }

  /** Whether a ping is so late, by the clock, that there will be none. */
  get isSilent() {
    return this.#silenceLeftMs <= 0;
  }

  /** Ends it without a word; what is not answered never will be. @param {string} reason */
  close(reason) {
    this.#isOver = true;
    this.#silence.stop();
    this.#transport.close();
    this.#conversation.end(reason);
  }

  get #silenceLeftMs() {
    return this.#pingMs ? this.#heardAt + this.#pingMs + this.#options.pingGraceMs - Date.now() : Infinity;
  }

  /** One timer, which is moved only when it rings. */
  #watchSilence() {
    if (this.#silenceLeftMs === Infinity) return;
    this.#silence.after(this.#silenceLeftMs, () => {
      if (this.isSilent) this.#end(0, "the server has gone silent");
      else this.#watchSilence();
    });
  }

  /** @param {string} text */
  #hear(text) {
    if (this.#isOver) return;
    const message = parseObject(text);
    if (!message) return this.#end(0, "what comes is not from our server");
    this.hasSpoken = true;
    this.#heardAt = Date.now();
    if (message.id) this.#conversation.hear(message);
    else if (message.push) this.#ears.push(message.push);
    else if (this.#pongs) this.#conversation.say("{}");
  }

  /** With a code the reason is the server's own. @param {number} code @param {string} reason */
  #end(code, reason) {
    if (!this.#isOver) this.#ears.end(code, code ? reason : `${this.kind.label}: ${reason}`);
  }
}
