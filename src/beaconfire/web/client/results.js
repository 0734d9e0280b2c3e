// @ts-check
/** Conversion between the protocol's messages and the objects of the public API. */

/** @typedef {import("./events.js").ClientInfo} ClientInfo */

/** @param {Record<string, any> | undefined} info @returns {ClientInfo | undefined} */
function clientInfo(info) {
  return info && { user: info.user, client: info.client, connInfo: info.conn_info, chanInfo: info.chan_info };
}

/** @param {string} channel @param {Record<string, any>} pub @param {boolean} [recovered] @returns {import("./events.js").Publication} */
export function publication(channel, { data, offset = 0, info, tags = {}, conflated = 0 }, recovered = false) {
  return { channel, data, offset, info: clientInfo(info), tags, recovered, conflated };
}

/** A `join` or `leave` event. @param {string} channel @param {Record<string, any>} push @returns {import("./events.js").Attendance} */
export function attendance(channel, { info = {} }) {
  return { channel, info: /** @type {ClientInfo} */ (clientInfo(info)) };
}

/** The fields of a history request. @param {string} channel @param {import("./events.js").HistoryQuery} query */
export function historyRequest(channel, { limit = 0, since, reverse = false }) {
  return { channel, limit, ...(since && { since }), ...(reverse && { reverse }) };
}

/** @param {string} channel @param {Record<string, any>} result @returns {import("./events.js").History} */
export function historyResult(channel, { publications = [], offset = 0, epoch = "" }) {
  return { publications: publications.map((/** @type {any} */ pub) => publication(channel, pub)), offset, epoch };
}

/** Clients by connection id. @param {Record<string, any>} result @returns {Record<string, ClientInfo>} */
export function presenceResult({ presence = {} }) {
  const entries = Object.entries(presence).map(([client, info]) => [client, clientInfo(info)]);
  return Object.fromEntries(entries);
}

/** @param {Record<string, any>} result @returns {import("./events.js").PresenceStats} */
export function statsResult({ num_clients: numClients = 0, num_users: numUsers = 0 }) {
  return { numClients, numUsers };
}
