// @ts-check
/** Options of clients and subscriptions, with their defaults. */

/**
 * @typedef {object} ClientOptions
 * @property {string} [token] the connection token (a JWT). Without a token the server must allow anonymous clients.
 * @property {() => Promise<string>} [getToken] returns a token. The client calls it when it has no `token`, before the
 *   token expires, and after the token has expired. An empty string or an `UnauthorizedError` disconnects the client for
 *   good. After any other error the client tries again.
 * @property {any} [data] JSON data sent with every connect command
 * @property {(string | import("./transports.js").TransportClass)[]} [transports] transports in the order in which they are
 *   tried; the default is "websocket", "http_stream", "sse", "poll"
 * @property {number} [openTimeoutMs] a transport that brings no reply within this time counts as blocked
 * @property {number} [commandTimeoutMs] the timeout for a reply
 * @property {number} [pingGraceMs] how late a ping may be before the connection counts as lost
 * @property {number} [retryFirstMs] the bound of the first random retry delay; each failure doubles the bound
 * @property {number} [retryMaxMs] the maximum bound
 * @property {boolean} [withCredentials] send cookies to another origin
 */
/**
 * @typedef {object} SubscriptionOptions
 * @property {string} [token] the subscription token of a private channel
 * @property {(context: {channel: string}) => Promise<string>} [getToken] like the client's `getToken`
 * @property {import("./events.js").Position} [since] recover the publications after this position; without it the
 *   subscription starts with the next publication
 * @property {any} [data] JSON data sent with every subscribe command
 * @property {boolean} [joinLeave] request `join` and `leave` events, where the channel's options allow the request
 * @property {{maxRate?: number}} [conflate] deliver only the latest publication: at most `maxRate` per second, if given,
 *   and only the newest one of those that were published while the connection was slow or lost
 */

export const DEFAULTS = {
  openTimeoutMs: 5_000,
  commandTimeoutMs: 5_000,
  pingGraceMs: 10_000,
  retryFirstMs: 500,
  retryMaxMs: 60_000,
  withCredentials: false,
};
