// @ts-check
/** The HTTP streaming and Server-Sent Events transports. Commands travel in separate POST requests (emulation). */

import { MESSAGE_TOO_BIG } from "./constants.js";

/** @typedef {import("./transports.js").Transport} Transport */
/** @typedef {import("./transports.js").TransportHandlers} TransportHandlers */

/** Sends the commands of a stream. One request at a time, because parallel requests may overtake each other. */
class Emulation {
  #url;
  #onFailure;
  /** @type {RequestCredentials} */
  #credentials;
  #session = {};
  /** @type {string[]} */
  #queue = [];
  #isSending = false;
  #abort = new AbortController();

  /** @param {string} url @param {(code: number, reason: string) => void} onFailure @param {boolean} withCredentials */
  constructor(url, onFailure, withCredentials) {
    this.#url = url;
    this.#onFailure = onFailure;
    this.#credentials = withCredentials ? "include" : "same-origin";
  }

  /** @param {Record<string, any>} result the connect result */
  accept({ session, node }) {
    this.#session = { session, node };
  }

  /** @param {string} commands */
  async send(commands) {
    this.#queue.push(commands);
    if (this.#isSending) return;
    this.#isSending = true;
    for (let data = this.#queue.shift(); data !== undefined; data = this.#queue.shift()) {
      const failure = await this.#post(data);
      if (this.#abort.signal.aborted) return;
      if (failure) return this.#onFailure(failure.code, failure.reason);
    }
    this.#isSending = false;
  }

  /** A string body has the type `text/plain`, for which browsers send no preflight request. @param {string} data */
  async #post(data) {
    try {
      const body = JSON.stringify({ ...this.#session, data });
      const response = await fetch(this.#url, { method: "POST", body, credentials: this.#credentials, signal: this.#abort.signal });
      if (response.ok) return null;
      return { code: response.status === 413 ? MESSAGE_TOO_BIG : 0, reason: `the request with commands failed with status ${response.status}` };
    } catch {
      return { code: 0, reason: "the commands could not be sent" };
    }
  }

  close() {
    this.#abort.abort();
  }
}

/** The common part of both stream transports. */
class StreamTransport {
  /** @protected */ handlers;
  /** @protected */ withCredentials;
  /** @protected */ isOpen = true;
  #emulation;

  /** @param {(path: string) => string} address @param {TransportHandlers} handlers @param {{withCredentials: boolean}} options */
  constructor(address, handlers, { withCredentials }) {
    this.handlers = handlers;
    this.withCredentials = withCredentials;
    this.#emulation = new Emulation(address("/emulation"), (code, reason) => this.end(code, reason), withCredentials);
  }

  /** @param {Record<string, any>} result */
  welcome(result) {
    this.#emulation.accept(result);
  }

  /** @param {string} commands */
  send(commands) {
    this.#emulation.send(commands);
  }

  /** @protected @param {number} code @param {string} reason */
  end(code, reason) {
    if (!this.isOpen) return;
    this.close();
    this.handlers.end(code, reason);
  }

  close() {
    this.isOpen = false;
    this.#emulation.close();
  }
}

/** @implements {Transport} */
export class HttpStreamTransport extends StreamTransport {
  static label = "http_stream";
  static isSupported = () => typeof fetch === "function" && typeof ReadableStream === "function";

  #url;
  #abort = new AbortController();

  /** @param {(path: string) => string} address @param {TransportHandlers} handlers @param {{withCredentials: boolean}} options */
  constructor(address, handlers, options) {
    super(address, handlers, options);
    this.#url = address("/connection/http_stream");
  }

  /** @param {string} connect */
  async open(connect) {
    try {
      const credentials = this.withCredentials ? "include" : "same-origin";
      const response = await fetch(this.#url, { method: "POST", body: connect, credentials, signal: this.#abort.signal });
      if (!response.ok || !response.body) return this.end(0, `the stream request failed with status ${response.status}`);
      await this.#read(response.body.getReader());
      this.end(0, "the stream ended");
    } catch (error) {
      this.end(0, `the stream broke: ${error}`);
    }
  }

  /** @param {ReadableStreamDefaultReader<Uint8Array>} reader */
  async #read(reader) {
    const decoder = new TextDecoder();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const lines = (rest + decoder.decode(value, { stream: true })).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) if (line && this.isOpen) this.handlers.message(line);
    }
  }

  close() {
    super.close();
    this.#abort.abort();
  }
}

/** @implements {Transport} */
export class SseTransport extends StreamTransport {
  static label = "sse";
  static isSupported = () => typeof EventSource === "function" && typeof fetch === "function";

  #url;
  /** @type {EventSource | null} */
  #source = null;

  /** @param {(path: string) => string} address @param {TransportHandlers} handlers @param {{withCredentials: boolean}} options */
  constructor(address, handlers, options) {
    super(address, handlers, options);
    this.#url = address("/connection/sse");
  }

  /** @param {string} connect */
  open(connect) {
    const url = `${this.#url}?cf_connect=${encodeURIComponent(connect)}`;
    const source = (this.#source = new EventSource(url, { withCredentials: this.withCredentials }));
    source.onmessage = ({ data }) => this.isOpen && this.handlers.message(data);
    // An EventSource reconnects by itself, but with the old token and old positions. So the client closes it.
    source.onerror = () => this.end(0, "the event stream broke");
  }

  close() {
    super.close();
    this.#source?.close();
  }
}
