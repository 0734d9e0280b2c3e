// @ts-check
/** Positions in channels, and results of the protocol in the words of the client. */

/** @typedef {import("./words.js").Position} Position */
/** @typedef {import("./words.js").ClientInfo} ClientInfo */
/** @typedef {import("./words.js").Publication} Publication */
/** @typedef {import("./words.js").Subscribed} Subscribed */
/** @typedef {import("./words.js").Attendance} Attendance */
/** @typedef {import("./words.js").History} History */
/** @typedef {import("./words.js").HistoryQuery} HistoryQuery */
/** @typedef {import("./words.js").PresenceStats} PresenceStats */

/** Where we are in a channel, so that each publication counts once, and what was missed can be asked for. */
export class Track {
  /** @type {Position | null} */
  position;
  hasEntered = false;

  /** @param {Position | null} [since] */
  constructor(since = null) {
    this.position = since;
  }

  /** What to ask with. */
  wish() {
    return this.position ? { recover: true, ...this.position } : {};
  }

  /**
   * Takes a subscribe result. Returns what was recovered and is new, and what is to be told.
   * @param {string} channel @param {Record<string, any>} result @returns {{fresh: Record<string, any>[], subscribed: Subscribed}}
   */
  enter(channel, { epoch = "", offset = 0, recoverable = false, recovered = false, publications = [], data = null }) {
    const wasRecovering = this.hasEntered || this.position !== null;
    const known = (recovered && this.position?.epoch === epoch && this.position?.offset) || 0;
    const fresh = publications.filter((/** @type {Record<string, any>} */ pub) => !pub.offset || pub.offset > known);
    const start = fresh.length ? fresh[0].offset - 1 : Math.max(offset, known);
    this.position = recoverable ? { offset: start, epoch } : null;
    this.hasEntered = true;
    return { fresh, subscribed: { channel, wasRecovering, recovered, position: this.position, data } };
  }

  /** Whether a publication is news; if so, we are there now. @param {Record<string, any>} publication */
  take({ offset = 0, epoch = "" }) {
    if (!this.position || !offset) return true;
    if (offset <= this.position.offset) return false;
    this.position = { offset, epoch: epoch || this.position.epoch };
    return true;
  }

  /** What we know is not to be trusted: no stream has this epoch, so the answer will be `recovered: false`. */
  invalidate() {
    if (this.position) this.position = { offset: 0, epoch: "_" };
  }
}

/** @param {Record<string, any> | undefined} info @returns {ClientInfo | undefined} */
function clientInfo(info) {
  return info && { user: info.user, client: info.client, connInfo: info.conn_info, chanInfo: info.chan_info };
}

/** @param {string} channel @param {Record<string, any>} pub @param {boolean} [recovered] @returns {Publication} */
export function publication(channel, { data, offset = 0, info, tags = {}, conflated = 0 }, recovered = false) {
  return { channel, data, offset, info: clientInfo(info), tags, recovered, conflated };
}

/** The fields of a history request. @param {string} channel @param {HistoryQuery} query */
export function historyRequest(channel, { limit = 0, since, reverse = false }) {
  return { channel, limit, ...(since && { since }), ...(reverse && { reverse }) };
}

/** @param {string} channel @param {Record<string, any>} result @returns {History} */
export function historyResult(channel, { publications = [], offset = 0, epoch = "" }) {
  return { publications: publications.map((/** @type {any} */ pub) => publication(channel, pub)), offset, epoch };
}

/** By connection id. @param {Record<string, any>} result @returns {Record<string, ClientInfo>} */
export function presenceResult({ presence = {} }) {
  const entries = Object.entries(presence).map(([client, info]) => [client, clientInfo(info)]);
  return Object.fromEntries(entries);
}

/** @param {Record<string, any>} result @returns {PresenceStats} */
export function statsResult({ num_clients: numClients = 0, num_users: numUsers = 0 }) {
  return { numClients, numUsers };
}

/** @param {string} channel @param {Record<string, any>} push @returns {Attendance} */
export function attendance(channel, { info = {} }) {
  return { channel, info: /** @type {ClientInfo} */ (clientInfo(info)) };
}
