// @ts-check
/** State machines, protocol codes, delays and size limits. */

/**
 * The state machine of a client: state, event, next state. An event that is missing from a row is ignored.
 *
 * - `connect`, `disconnect`: the page called the method. `connect` also ends a retry delay early.
 * - `accept`: the server accepted the connect command.
 * - `loss`: the connection or the attempt failed, and a retry is allowed: the connection broke, a ping or a reply is
 *   overdue, or the close code allows a reconnect.
 * - `refusal`: a retry is not allowed. The client stays `disconnected` until the page calls `connect`.
 * @type {Record<import("./events.js").State, Record<string, import("./events.js").State>>}
 */
export const STATES = {
  idle: { connect: "connecting" },
  connecting: { connect: "connecting", accept: "connected", loss: "connecting", refusal: "disconnected", disconnect: "idle" },
  connected: { loss: "connecting", refusal: "disconnected", disconnect: "idle" },
  disconnected: { connect: "connecting", disconnect: "idle" },
};

/**
 * The state machine of a subscription, in the same form.
 *
 * - `confirm`: the server accepted the subscribe command.
 * - `loss`: the connection was lost, a temporary error, or an unsubscribe code of 2500 or above.
 * - `refusal`: an error that is not temporary, or an unsubscribe code below 2500.
 * @type {Record<import("./events.js").SubscriptionState, Record<string, import("./events.js").SubscriptionState>>}
 */
export const SUBSCRIPTION_STATES = {
  unsubscribed: { subscribe: "subscribing" },
  subscribing: { confirm: "subscribed", loss: "subscribing", refusal: "unsubscribed", unsubscribe: "unsubscribed" },
  subscribed: { loss: "subscribing", refusal: "unsubscribed", unsubscribe: "unsubscribed" },
};

/** Codes of docs/reference/codes.md that this client treats individually. */
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
/** The lowest unsubscribe code after which the client subscribes again. */
export const RESUBSCRIBE_FROM = 2500;

/** After a connection of at least this age, the retry delay starts from its first value again. */
export const STABLE_AFTER_MS = 5_000;
/** The delay before the first probe of better transports, and between later ones. */
export const PROBE_FIRST_DELAY_MS = 60_000;
export const PROBE_INTERVAL_MS = 600_000;
/** After this many failures in a row of the transport that worked last, all transports are tried again. */
export const PREFERRED_FAILURES_MAX = 2;
export const TOKEN_TIMEOUT_MS = 10_000;
export const REFRESH_RETRY_MS = 5_000;
/** The maximum size of commands that are sent together. The server's limits are 64 KiB. */
export const BATCH_CHARACTERS_MAX = 16_000;
/** The maximum number of commands in one request of the polling transport, equal to the server's limit. */
export const BATCH_COMMANDS_MAX = 100;
/** The timeout of a request with commands. A server answers within `poll.max_wait` (25 s). */
export const COMMANDS_TIMEOUT_MS = 30_000;
/** How long a poll asks the server to wait for news. Networks cut idle connections after a longer time. */
export const POLL_WAIT_MAX_S = 25;

/** Whether a close code forbids a reconnect. @param {number} code */
export function isFinalCode(code) {
  return (code >= 3500 && code <= 3999) || (code >= 4500 && code <= 4999) || code === MESSAGE_TOO_BIG;
}

/**
 * A random delay below an exponential bound ("full jitter"), so that the clients of a restarted server do not all
 * reconnect at the same time.
 * @param {number} failures @param {{retryFirstMs: number, retryMaxMs: number}} bounds
 */
export function retryDelayMs(failures, { retryFirstMs, retryMaxMs }) {
  return Math.random() * Math.min(retryMaxMs, retryFirstMs * 2 ** Math.min(failures, 30));
}

/** The delay until a token with this lifetime is refreshed: 10 s, or a quarter of the lifetime, before its end. @param {number} ttlS */
export function refreshDelayMs(ttlS) {
  return ttlS * 1000 - Math.min(10_000, ttlS * 250);
}
