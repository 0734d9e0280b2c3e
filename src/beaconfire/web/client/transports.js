// @ts-check
/** The ways to the server, and which one is taken. */

import { PollTransport } from "./poll.js";
import { FAVOURITE_MISSES_MAX, MESSAGE_TOO_BIG } from "./tables.js";

/**
 * What a transport is given. `message` takes one JSON text after the other, in order. `end` is called once, unless the
 * transport was closed by us: with a close code, or with 0 if there is none, and after it nothing more is said.
 * @typedef {{message: (text: string) => void, end: (code: number, reason: string) => void}} Ears
 */
/**
 * A way to the server. `open` is given the connect command and whatever happens next goes to the ears; nothing is sent
 * before the connect result, which is handed to `welcome`. `close` ends it without a word.
 * @typedef {object} Transport
 * @property {(connect: string) => void} open
 * @property {(result: Record<string, any>) => void} welcome
 * @property {(commands: string) => void} send commands, a line each
 * @property {() => void} close
 */
/**
 * To add a transport, write such a class and name it in `transports`. `address` makes a URL of a path on the server.
 * @typedef {(new (address: (path: string) => string, ears: Ears, options: {withCredentials: boolean}) => Transport)
 *   & {label: string, isSupported: () => boolean}} TransportClass
 */

/** @implements {Transport} */
class WebSocketTransport {
  static label = "websocket";
  static isSupported = () => typeof WebSocket === "function";

  #ears;
  #url;
  /** @type {WebSocket | null} */
  #socket = null;

  /** @param {(path: string) => string} address @param {Ears} ears */
  constructor(address, ears) {
    this.#url = address("/connection/websocket").replace(/^http/, "ws");
    this.#ears = ears;
  }

  /** @param {string} connect */
  open(connect) {
    const socket = (this.#socket = new WebSocket(this.#url));
    socket.onopen = () => socket.send(connect);
    socket.onmessage = ({ data }) => {
      for (const line of String(data).split("\n")) if (line && this.#socket) this.#ears.message(line);
    };
    socket.onclose = ({ code, reason }) => {
      this.close();
      this.#ears.end(code >= 3000 || code === MESSAGE_TOO_BIG ? code : 0, reason || `closed with ${code}`);
    };
  }

  welcome() {}

  /** @param {string} commands */
  send(commands) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(commands);
  }

  close() {
    const socket = this.#socket;
    this.#socket = null;
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close();
  }
}

/** The client's half of a stream: one request after the other, because requests on the way may overtake each other. */
class Uplink {
  #url;
  #fail;
  /** @type {RequestCredentials} */
  #credentials;
  #session = {};
  /** @type {string[]} */
  #waiting = [];
  #busy = false;
  #abort = new AbortController();

  /** @param {string} url @param {(code: number, reason: string) => void} fail @param {boolean} withCredentials */
  constructor(url, fail, withCredentials) {
    this.#url = url;
    this.#fail = fail;
    this.#credentials = withCredentials ? "include" : "same-origin";
  }

  /** @param {Record<string, any>} result */
  welcome({ session, node }) {
    this.#session = { session, node };
  }

  /** @param {string} commands */
  async send(commands) {
    this.#waiting.push(commands);
    if (this.#busy) return;
    this.#busy = true;
    for (let data = this.#waiting.shift(); data !== undefined; data = this.#waiting.shift()) {
      const problem = await this.#post(data);
      if (this.#abort.signal.aborted) return;
      if (problem) return this.#fail(problem.code, problem.reason);
    }
    this.#busy = false;
  }

  /** A text is sent as `text/plain`, for which browsers need no preflight. @param {string} data */
  async #post(data) {
    try {
      const body = JSON.stringify({ ...this.#session, data });
      const response = await fetch(this.#url, { method: "POST", body, credentials: this.#credentials, signal: this.#abort.signal });
      if (response.ok) return null;
      return { code: response.status === 413 ? MESSAGE_TOO_BIG : 0, reason: `commands were answered with ${response.status}` };
    } catch {
      return { code: 0, reason: "commands could not be sent" };
    }
  }

  close() {
    this.#abort.abort();
  }
}

/** What the two streams share. */
class StreamTransport {
  /** @protected */ ears;
  /** @protected */ withCredentials;
  /** @protected */ isOpen = true;
  #uplink;

  /** @param {(path: string) => string} address @param {Ears} ears @param {{withCredentials: boolean}} options */
  constructor(address, ears, { withCredentials }) {
    this.ears = ears;
    this.withCredentials = withCredentials;
    this.#uplink = new Uplink(address("/emulation"), (code, reason) => this.end(code, reason), withCredentials);
  }

  /** @param {Record<string, any>} result */
  welcome(result) {
    this.#uplink.welcome(result);
  }

  /** @param {string} commands */
  send(commands) {
    this.#uplink.send(commands);
  }

  /** @protected @param {number} code @param {string} reason */
  end(code, reason) {
    if (!this.isOpen) return;
    this.close();
    this.ears.end(code, reason);
  }

  close() {
    this.isOpen = false;
    this.#uplink.close();
  }
}

/** @implements {Transport} */
class HttpStreamTransport extends StreamTransport {
  static label = "http_stream";
  static isSupported = () => typeof fetch === "function" && typeof ReadableStream === "function";

  #url;
  #abort = new AbortController();

  /** @param {(path: string) => string} address @param {Ears} ears @param {{withCredentials: boolean}} options */
  constructor(address, ears, options) {
    super(address, ears, options);
    this.#url = address("/connection/http_stream");
  }

  /** @param {string} connect */
  async open(connect) {
    try {
      const credentials = this.withCredentials ? "include" : "same-origin";
      const response = await fetch(this.#url, { method: "POST", body: connect, credentials, signal: this.#abort.signal });
      if (!response.ok || !response.body) return this.end(0, `the stream was answered with ${response.status}`);
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
      for (const line of lines) if (line && this.isOpen) this.ears.message(line);
    }
  }

  close() {
    super.close();
    this.#abort.abort();
  }
}

/** @implements {Transport} */
class SseTransport extends StreamTransport {
  static label = "sse";
  static isSupported = () => typeof EventSource === "function" && typeof fetch === "function";

  #url;
  /** @type {EventSource | null} */
  #source = null;

  /** @param {(path: string) => string} address @param {Ears} ears @param {{withCredentials: boolean}} options */
  constructor(address, ears, options) {
    super(address, ears, options);
    this.#url = address("/connection/sse");
  }

  /** @param {string} connect */
  open(connect) {
    const url = `${this.#url}?cf_connect=${encodeURIComponent(connect)}`;
    const source = (this.#source = new EventSource(url, { withCredentials: this.withCredentials }));
    source.onmessage = ({ data }) => this.isOpen && this.ears.message(data);
    // It would come back by itself, but with the token and the positions of now.
    source.onerror = () => this.end(0, "the event stream broke");
  }

  close() {
    super.close();
    this.#source?.close();
  }
}

/** @type {TransportClass[]} */
const TRANSPORTS = [WebSocketTransport, HttpStreamTransport, SseTransport, PollTransport];

/** @param {(string | TransportClass)[]} wanted @returns {TransportClass[]} */
function chooseTransports(wanted) {
  const chosen = wanted.map((one) => {
    const known = typeof one === "string" ? TRANSPORTS.find(({ label }) => label === one) : one;
    if (!known) throw new TypeError(`no transport is called ${one}; there are ${TRANSPORTS.map(({ label }) => label)}`);
    return known;
  });
  const supported = chosen.filter((one) => one.isSupported());
  if (!supported.length) throw new TypeError("this environment supports none of the transports");
  return supported;
}

/** Which transport is tried next: in rounds, each with what worked last or with all of them in their order. */
export class Route {
  #all;
  /** @type {TransportClass[]} */
  #round = [];
  /** @type {TransportClass | null} */
  #favourite = null;
  #misses = 0;

  /** @param {(string | TransportClass)[]} [wanted] */
  constructor(wanted = TRANSPORTS) {
    this.#all = chooseTransports(wanted);
  }

  begin() {
    this.#round = this.#favourite ? [this.#favourite] : [...this.#all];
  }

  /** Whether this round has one more. */
  get hasNext() {
    return this.#round.length > 0;
  }

  next() {
    return /** @type {TransportClass} */ (this.#round.shift());
  }

  /** @param {TransportClass} kind */
  worked(kind) {
    this.#favourite = kind;
    this.#misses = 0;
  }

  /** Nothing came through. Once may be the server's fault; the network may have changed, too. */
  missed() {
    if (++this.#misses >= FAVOURITE_MISSES_MAX) this.#favourite = null;
  }

  /** Those that are tried before this one, the best first. @param {TransportClass} kind */
  betterThan(kind) {
    return this.#all.slice(0, this.#all.indexOf(kind));
  }

  /** Another network may let more through. */
  forget() {
    this.#favourite = null;
  }
}
