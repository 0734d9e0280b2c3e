// @ts-check
/** The WebSocket transport. */

import { MESSAGE_TOO_BIG } from "./constants.js";

/** @typedef {import("./transports.js").Transport} Transport */
/** @typedef {import("./transports.js").TransportHandlers} TransportHandlers */

/** @implements {Transport} */
export class WebSocketTransport {
  static label = "websocket";
  static isSupported = () => typeof WebSocket === "function";

  #handlers;
  #url;
  /** @type {WebSocket | null} */
  #socket = null;

  /** @param {(path: string) => string} address @param {TransportHandlers} handlers */
  constructor(address, handlers) {
    this.#url = address("/connection/websocket").replace(/^http/, "ws");
    this.#handlers = handlers;
  }

  /** @param {string} connect */
  open(connect) {
    const socket = (this.#socket = new WebSocket(this.#url));
    socket.onopen = () => socket.send(connect);
    socket.onmessage = ({ data }) => {
      for (const line of String(data).split("\n")) if (line && this.#socket) this.#handlers.message(line);
    };
    socket.onclose = ({ code, reason }) => {
      this.close();
      this.#handlers.end(code >= 3000 || code === MESSAGE_TOO_BIG ? code : 0, reason || `closed with code ${code}`);
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
