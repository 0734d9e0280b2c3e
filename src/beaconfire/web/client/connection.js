// @ts-check
/** One attempt to connect and, after it succeeds, the connection: a transport, its commands, and the check for missing pings. */

import { Commands, parseObject } from "./commands.js";
import { Timer } from "./timer.js";

/** @typedef {import("./commands.js").OnReply} OnReply */
/** @typedef {import("./transports.js").TransportClass} TransportClass */
/**
 * Receives the pushes of a connection in order, and then its end, once.
 * @typedef {{push: (push: Record<string, any>) => void, end: (code: number, reason: string) => void}} ConnectionHandlers
 */

export class Connection {
  /** The transport class. @readonly */ kind;
  /** Whether the server has sent a message: the network does not block this transport. */
  hasReceived = false;
  /** The connection id; "" before the connect result. */
  client = "";
  #transport;
  #commands;
  #handlers;
  #options;
  #connectedAt = 0;
  #receivedAt = 0;
  #pingMs = 0;
  #sendsPongs = false;
  #isClosed = false;
  #pingTimer = new Timer();

  /**
   * @param {TransportClass} kind @param {(path: string) => string} address
   * @param {{openTimeoutMs: number, pingGraceMs: number, withCredentials: boolean}} options @param {ConnectionHandlers} handlers
   */
  constructor(kind, address, options, handlers) {
    this.kind = kind;
    this.#handlers = handlers;
    this.#options = options;
    const message = (/** @type {string} */ text) => this.#receive(text);
    const end = (/** @type {number} */ code, /** @type {string} */ reason) => this.#end(code, reason);
    this.#transport = new kind(address, { message, end }, options);
    this.#commands = new Commands((commands) => this.#transport.send(commands));
  }

  /** @param {Record<string, any>} request the connect request @param {OnReply} onReply */
  open(request, onReply) {
    const command = this.#commands.encode("connect", request, this.#options.openTimeoutMs, onReply);
    try {
      this.#transport.open(command);
    } catch (error) {
      this.#end(0, String(error)); // a Content-Security-Policy forbids the connection, or the address is invalid
    }
  }

  /** Applies the connect result. @param {Record<string, any>} result */
  accept(result) {
    this.client = result.client;
    this.#connectedAt = Date.now();
    this.#pingMs = (result.ping ?? 0) * 1000;
    this.#sendsPongs = result.pong === true;
    this.#transport.welcome(result);
    this.#checkPings();
  }

  /** @param {string} kind @param {Record<string, any>} request @param {number} timeoutMs @param {OnReply} onReply */
  send(kind, request, timeoutMs, onReply) {
    this.#commands.send(kind, request, timeoutMs, onReply);
  }

  /** The time since the connect result; 0 before it. */
  get ageMs() {
    return this.#connectedAt ? Date.now() - this.#connectedAt : 0;
  }

  /** Whether a ping is overdue by the wall clock. */
  get isSilent() {
    return this.#pingDueInMs <= 0;
  }

  /** Closes the connection without calling the handlers, and fails the commands that have no reply. @param {string} reason */
  close(reason) {
    this.#isClosed = true;
    this.#pingTimer.stop();
    this.#transport.close();
    this.#commands.failAll(reason);
  }

  get #pingDueInMs() {
    return this.#pingMs ? this.#receivedAt + this.#pingMs + this.#options.pingGraceMs - Date.now() : Infinity;
  }

  /** Received messages do not restart the timer. When the timer fires, this method computes the remaining time. */
  #checkPings() {
    if (this.#pingDueInMs === Infinity) return;
    this.#pingTimer.start(this.#pingDueInMs, () => {
      if (this.isSilent) this.#end(0, "the server is silent: a ping is missing");
      else this.#checkPings();
    });
  }

  /** @param {string} text */
  #receive(text) {
    if (this.#isClosed) return;
    const message = parseObject(text);
    if (!message) return this.#end(0, "received data that is not from the server");
    this.hasReceived = true;
    this.#receivedAt = Date.now();
    if (message.id) this.#commands.receive(message);
    else if (message.push) this.#handlers.push(message.push);
    else if (this.#sendsPongs) this.#commands.sendEncoded("{}");
  }

  /** With a code, the reason is the server's text. @param {number} code @param {string} reason */
  #end(code, reason) {
    if (!this.#isClosed) this.#handlers.end(code, code ? reason : `${this.kind.label}: ${reason}`);
  }
}
