// @ts-check
/** The words of the client: what pages are told and what they say, errors, and listeners. */

/** Names that only these modules have: what their classes tell each other. */
export const EMIT = Symbol("emit");
export const RESUME = Symbol("resume");
export const SUSPEND = Symbol("suspend");
export const HEAR = Symbol("hear");
export const END = Symbol("end");
export const INVALIDATE = Symbol("invalidate");

/** A place in a channel's stream: the offset of the last publication that was heard. @typedef {{offset: number, epoch: string}} Position */
/** Who published, came or went. @typedef {{user: string, client: string, connInfo?: any, chanInfo?: any}} ClientInfo */
/**
 * `offset` is 0 in channels without history; `recovered` tells that it was missed and caught up on; `info` is missing
 * if a backend published; `conflated` is how many before it were left out, as `conflate` asked.
 * @typedef {{channel: string, data: any, offset: number, info?: ClientInfo, tags: Record<string, string>, recovered: boolean,
 *   conflated: number}} Publication
 */
/** @typedef {"idle" | "connecting" | "connected" | "disconnected"} State */
/**
 * `code` is the server's, or an error's, or 0; `retryAt` is when the next attempt begins (milliseconds since 1970), 0
 * if none waits; `transport` is the name of the one in use, "" if there is none; `client` is this connection's id.
 * @typedef {{state: State, previous: State, code: number, reason: string, retryAt: number, transport: string, client: string}} StateChange
 */
/** @typedef {"unsubscribed" | "subscribing" | "subscribed"} SubscriptionState */
/** @typedef {{channel: string, state: SubscriptionState, previous: SubscriptionState, code: number, reason: string}} SubscriptionChange */
/**
 * `wasRecovering`: it was in the channel before, or began with `since`. If so and not `recovered`, something may be
 * missing for good: read the state afresh.
 * @typedef {{channel: string, wasRecovering: boolean, recovered: boolean, position: Position | null, data: any}} Subscribed
 */
/** @typedef {{channel: string, info: ClientInfo}} Attendance */
/** @typedef {{publications: Publication[], offset: number, epoch: string}} History */
/** @typedef {{limit?: number, since?: Position, reverse?: boolean}} HistoryQuery */
/** @typedef {{numClients: number, numUsers: number}} PresenceStats */
/**
 * @typedef {object} ClientOptions
 * @property {string} [token] the connection token (a JWT); without one the server has to let anonymous clients in
 * @property {() => Promise<string>} [getToken] fetches a token whenever one is needed: at first if there is no `token`, before it
 *   ends, and after it has ended. An empty one, or `UnauthorizedError`, ends it all; other errors mean "try again".
 * @property {any} [data] sent with every connect
 * @property {(string | import("./transports.js").TransportClass)[]} [transports] in the order in which they are tried:
 *   "websocket", "http_stream", "sse", "poll" if nothing else is said
 * @property {number} [openTimeoutMs] how long a transport may take to bring the first answer before it counts as blocked
 * @property {number} [commandTimeoutMs] how long an answer may take
 * @property {number} [pingGraceMs] how much later than announced a ping may come before the connection counts as lost
 * @property {number} [retryFirstMs] the first delay is random below this, and the bound doubles with each failure
 * @property {number} [retryMaxMs] the highest bound
 * @property {boolean} [withCredentials] send cookies to another origin
 */
/**
 * @typedef {object} SubscriptionOptions
 * @property {string} [token] the subscription token of a private channel
 * @property {(context: {channel: string}) => Promise<string>} [getToken] as the client's `getToken`
 * @property {Position} [since] begin behind this position instead of now
 * @property {any} [data] sent with every subscribe
 * @property {boolean} [joinLeave] ask for `join` and `leave`, where the channel's rules grant them on request
 * @property {{maxRate?: number}} [conflate] the latest is enough: at most `maxRate` publications a second if it is given, and
 *   the newest only of what came while the connection was behind or away
 */

/**
 * An answer that is an error, or no answer. `code` is the server's error code, 0 if there was no answer; `temporary`: the same may
 * work later; `uncertain`: the server may or may not have done it.
 */
export class ClientError extends Error {
  /** @param {number} code @param {string} message @param {{temporary?: boolean, uncertain?: boolean}} [nature] */
  constructor(code, message, { temporary = false, uncertain = false } = {}) {
    super(message);
    this.name = "ClientError";
    this.code = code;
    this.temporary = temporary;
    this.uncertain = uncertain;
  }
}

/** For `getToken` to throw: whoever sits here may not, or no longer, connect or subscribe. */
export class UnauthorizedError extends Error {}

/**
 * Listeners by event. What one of them throws is reported as uncaught, and keeps nobody from hearing.
 * @template {object} Events
 */
export class Emitter {
  /** @type {Map<string, Set<(event: any) => void>>} */
  #listeners = new Map();

  /**
   * Calls `listener` at every such event from now on. Returns a function that ends it.
   * @template {keyof Events & string} Name
   * @param {Name} name @param {(event: Events[Name]) => void} listener @returns {() => void}
   */
  on(name, listener) {
    const listeners = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, listeners.add(listener));
    return () => void listeners.delete(listener);
  }

  /** @template {keyof Events & string} Name @param {Name} name @param {Events[Name]} event */
  [EMIT](name, event) {
    for (const listener of [...(this.#listeners.get(name) ?? [])]) {
      try {
        listener(event);
      } catch (error) {
        setTimeout(() => {
          throw error;
        });
      }
    }
  }
}
