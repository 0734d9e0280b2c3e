// @ts-check
/**
 * One lasting connection to the server over the plain protocol: opened, watched, and brought back.
 *
 * A connection that went silent is found by our own pings, because browsers answer the server's without telling
 * the page. After a loss it comes back after a random time that doubles its bound with every failure, so that the
 * clients of a restarted server do not all return at once. Close codes 3500-3999 and 4500-4999 are final.
 */

const OPEN_DEADLINE_MS = 10_000;
const PING_INTERVAL_MS = 20_000;
const PONG_DEADLINE_MS = 6_000;
const RETRY_FIRST_MS = 500;
const RETRY_MAX_MS = 20_000;
const RETRY_MIN_MS = 100;
const STABLE_AFTER_MS = 5_000;

/** @typedef {"connecting" | "connected" | "waiting" | "stopped"} Phase */
/**
 * `retryAt` is when the next attempt begins (milliseconds since 1970) while waiting; `client` is the id the server
 * gave this connection, or the last one while there is none; `reason` says why it ended.
 * @typedef {{phase: Phase, retryAt: number, client: string, reason: string}} State
 */
/** @typedef {Record<string, any> & {type: string}} Message */

/** The connection ended before the answer came: whether the server acted on the request is unknown. */
export class ConnectionLost extends Error {}

/** The server's `error` answer. */
export class Refused extends Error {
  /** @param {Message} answer */
  constructor(answer) {
    super(answer.detail ? `${answer.message}: ${answer.detail}` : String(answer.message));
    this.code = Number(answer.code);
    this.temporary = answer.temporary === true;
  }
}

export class Connection {
  /** @type {State} */
  state = { phase: "connecting", retryAt: 0, client: "", reason: "" };

  #url;
  #handshake;
  #onState;
  #onMessage;
  /** @type {WebSocket | null} */
  #socket = null;
  /** @type {Map<number, {resolve: (answer: Message) => void, reject: (error: Error) => void}>} */
  #unanswered = new Map();
  #lastId = 0;
  #failures = 0;
  #pingTimer = 0;
  /** @type {Set<number>} */
  #timers = new Set();

  /**
   * @param {object} options
   * @param {string} options.url
   * @param {() => object} options.handshake fields of the handshake, asked for at every attempt
   * @param {(state: State) => void} options.onState
   * @param {(message: Message) => void} options.onMessage everything from the server that is no answer
   */
  constructor({ url, handshake, onState, onMessage }) {
    this.#url = url;
    this.#handshake = handshake;
    this.#onState = onState;
    this.#onMessage = onMessage;
  }

  /** Opens at once, whatever went before; also the way out of `stopped`. */
  open() {
    this.#discard("replaced");
    this.#enter({ phase: "connecting" });
    const socket = new WebSocket(this.#url);
    this.#socket = socket;
    socket.onopen = () => this.#shakeHands();
    socket.onmessage = (event) => this.#receive(event.data);
    socket.onclose = (event) => this.#lose(event.code, event.reason);
    this.#after(OPEN_DEADLINE_MS, () => {
      if (this.state.phase === "connecting") this.#lose(0, "the server does not answer");
    });
  }

  /** Drops the connection without a word, as a network would, and comes back as after any loss. */
  cut() {
    if (this.#socket) this.#lose(0, "cut");
  }

  /** Something has changed around us (network, visibility): find out now whether the connection is alive. */
  check() {
    if (this.state.phase === "waiting") this.open();
    else if (this.state.phase === "connected") this.#ping();
  }

  /**
   * Sends a message and resolves with its answer. Rejects with `Refused` for an `error`, with `ConnectionLost` if the
   * connection ends first. Requests are sent, and answered, in the order of the calls.
   * @param {Message} message @returns {Promise<Message>}
   */
  request(message) {
    const socket = this.#socket;
    if (!socket || socket.readyState !== WebSocket.OPEN) return Promise.reject(new ConnectionLost("not connected"));
    const id = ++this.#lastId;
    socket.send(JSON.stringify({ ...message, id }));
    return new Promise((resolve, reject) => this.#unanswered.set(id, { resolve, reject }));
  }

  async #shakeHands() {
    try {
      const welcome = await this.request({ type: "handshake", ...this.#handshake() });
      this.#enter({ phase: "connected", client: String(welcome.client) });
      this.#after(STABLE_AFTER_MS, () => (this.#failures = 0));
      this.#schedulePing();
    } catch (error) {
      if (error instanceof Refused) {
        if (error.temporary) this.#lose(0, error.message);
        else this.#stop(error.message);
      }
    }
  }

  async #ping() {
    const socket = this.#socket;
    const deadline = this.#after(PONG_DEADLINE_MS, () => this.#lose(0, "the server has gone silent"));
    try {
      await this.request({ type: "ping" });
    } catch (error) {
      if (error instanceof ConnectionLost) return;
    }
    if (this.#socket !== socket) return;
    this.#forget(deadline);
    this.#schedulePing();
  }

  #schedulePing() {
    this.#forget(this.#pingTimer);
    this.#pingTimer = this.#after(PING_INTERVAL_MS, () => this.#ping());
  }

  /** @param {unknown} frame */
  #receive(frame) {
    const message = parse(frame);
    if (!message) return; // somebody's frame in the lobby, which this page does not show
    const request = typeof message.id === "number" ? this.#unanswered.get(message.id) : undefined;
    if (!request) {
      this.#onMessage(message);
      return;
    }
    this.#unanswered.delete(message.id);
    if (message.type === "error") request.reject(new Refused(message));
    else request.resolve(message);
  }

  /** @param {number} code @param {string} reason */
  #lose(code, reason) {
    if ((code >= 3500 && code <= 3999) || (code >= 4500 && code <= 4999)) {
      this.#stop(reason || `close code ${code}`);
      return;
    }
    this.#discard(reason);
    const bound = Math.min(RETRY_MAX_MS, RETRY_FIRST_MS * 2 ** this.#failures++);
    const delay = RETRY_MIN_MS + Math.random() * bound;
    this.#enter({ phase: "waiting", retryAt: Date.now() + delay, reason });
    this.#after(delay, () => this.open());
  }

  /** @param {string} reason */
  #stop(reason) {
    this.#discard(reason);
    this.#enter({ phase: "stopped", reason });
  }

  /** Nothing of this connection is heard of again, however late its last events come. @param {string} reason */
  #discard(reason) {
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers.clear();
    const socket = this.#socket;
    this.#socket = null;
    if (socket) {
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close();
    }
    const requests = [...this.#unanswered.values()];
    this.#unanswered.clear();
    for (const request of requests) request.reject(new ConnectionLost(reason));
  }

  /** @param {Partial<State> & {phase: Phase}} state */
  #enter(state) {
    this.state = { retryAt: 0, client: this.state.client, reason: "", ...state };
    this.#onState(this.state);
  }

  /** A timer that dies with the connection. @param {number} delay @param {() => void} action @returns {number} */
  #after(delay, action) {
    const timer = window.setTimeout(() => {
      this.#timers.delete(timer);
      action();
    }, delay);
    this.#timers.add(timer);
    return timer;
  }

  /** @param {number} timer */
  #forget(timer) {
    clearTimeout(timer);
    this.#timers.delete(timer);
  }
}

/** @param {unknown} frame @returns {Message | null} */
function parse(frame) {
  if (typeof frame !== "string") return null;
  try {
    const message = JSON.parse(frame);
    return typeof message?.type === "string" ? message : null;
  } catch {
    return null;
  }
}
