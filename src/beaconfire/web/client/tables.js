// @ts-check
/** What is decided once: states, codes, deadlines. */

/**
 * What becomes of a client: state, event, next state. What is not here does not happen.
 *
 * `connect` and `disconnect` are calls; `connect` is also what ends a wait early. `welcome`: the server let us in.
 * `loss`: anything that is worth coming back from: a cut, silence, a deadline, a close code that allows it. `refusal`:
 * anything that is not; it stays so until `connect` is called again.
 * @type {Record<import("./words.js").State, Record<string, import("./words.js").State>>}
 */
export const STATES = {
  idle: { connect: "connecting" },
  connecting: { connect: "connecting", welcome: "connected", loss: "connecting", refusal: "disconnected", disconnect: "idle" },
  connected: { loss: "connecting", refusal: "disconnected", disconnect: "idle" },
  disconnected: { connect: "connecting", disconnect: "idle" },
};

/**
 * The same for a subscription. `loss` is that of its connection, or its end with a code from 2500 on; `refusal` an
 * error that is not temporary, or its end with a code below.
 * @type {Record<import("./words.js").SubscriptionState, Record<string, import("./words.js").SubscriptionState>>}
 */
export const SUBSCRIPTION_STATES = {
  unsubscribed: { subscribe: "subscribing" },
  subscribing: { confirm: "subscribed", loss: "subscribing", refusal: "unsubscribed", unsubscribe: "unsubscribed" },
  subscribed: { loss: "subscribing", refusal: "unsubscribed", unsubscribe: "unsubscribed" },
};

/** Codes of docs/reference/codes.md that need more than their range. */
export const INTERNAL = 100;
export const UNAUTHORIZED = 101;
export const TOKEN_EXPIRED = 109;
export const EXPIRED = 110;
export const MESSAGE_TOO_BIG = 1009;
export const CONNECTION_EXPIRED = 3005;
export const INSUFFICIENT_STATE = 3010;
export const STATE_INVALIDATED = 3014;
export const UNSUBSCRIBED_BY_SERVER = 2000;
export const UNSUBSCRIBED_INSUFFICIENT = 2500;
export const UNSUBSCRIBED_EXPIRED = 2501;
export const UNSUBSCRIBED_INVALIDATED = 2502;
export const RESUBSCRIBE_FROM = 2500;

export const DEFAULTS = {
  openTimeoutMs: 5_000,
  commandTimeoutMs: 5_000,
  pingGraceMs: 10_000,
  retryFirstMs: 500,
  retryMaxMs: 60_000,
  withCredentials: false,
};
/** A connection that lasted this long was no failure: the next delay is a first one. */
export const STABLE_AFTER_MS = 5_000;
/** When better transports than the one in use are tried again, and how often after that. */
export const PROBE_FIRST_MS = 60_000;
export const PROBE_AGAIN_MS = 600_000;
/** How often the transport that worked last may be blocked in a row before all are tried again. */
export const FAVOURITE_MISSES_MAX = 2;
export const TOKEN_TIMEOUT_MS = 10_000;
export const RENEWAL_RETRY_MS = 5_000;
/** Commands are sent together up to this many characters, well below the server's limits of 64 KiB. */
export const BATCH_CHARACTERS_MAX = 16_000;
/** As many commands as a request may carry to a server that is polled. */
export const BATCH_COMMANDS_MAX = 100;
/** How long that may take. Servers answer within `poll.max_wait`, 25 s, whatever they have: beyond this the way is dead. */
export const COMMANDS_MAX_MS = 30_000;
/** How long a poll asks the server to wait for something new: less than it takes networks to cut what is idle. */
export const POLL_WAIT_MAX_S = 25;

/** Whether a close code says to stay away. @param {number} code */
export function isFinal(code) {
  return (code >= 3500 && code <= 3999) || (code >= 4500 && code <= 4999) || code === MESSAGE_TOO_BIG;
}

/**
 * Full jitter: the clients of a restarted server must not all return at once.
 * @param {number} failures @param {{retryFirstMs: number, retryMaxMs: number}} bounds
 */
export function backOffMs(failures, { retryFirstMs, retryMaxMs }) {
  return Math.random() * Math.min(retryMaxMs, retryFirstMs * 2 ** Math.min(failures, 30));
}

/** How long before its end a token is renewed. @param {number} ttlS */
export function renewalMs(ttlS) {
  return ttlS * 1000 - Math.min(10_000, ttlS * 250);
}
