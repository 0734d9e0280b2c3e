// @ts-check
/**
 * The state of a room on this page: its messages in the server's order, its members, and the stream position.
 *
 * Order: stored messages are sorted by (generation, offset). The generation increases with each new epoch of the stream.
 * Messages of rooms without history stay in the order of arrival. Pending messages are always last. For an own message,
 * the acknowledgement and the publication with its offset arrive in either order.
 * Uniqueness: a message with a known uid is a copy of the known message.
 */

/** @typedef {import("/client/events.js").ClientInfo} ClientInfo */
/** @typedef {import("/client/events.js").Position} Position */
/** @typedef {import("/client/events.js").Publication} Publication */
/** @typedef {import("/client/events.js").Subscribed} Subscribed */
/** @typedef {import("./store.js").OutgoingMessage} OutgoingMessage */
/** @typedef {{user: string, name: string, client: string}} Member */
/**
 * A line in the message list. The `state` of a message: pending, sent (stored by the server), or refused with `problem`.
 * A gap marks a place where messages may be missing.
 * @typedef {object} Entry
 * @property {"message" | "gap"} kind
 * @property {string} uid
 * @property {number} generation
 * @property {number} offset 0 if unknown
 * @property {string} text
 * @property {string} author the displayed name; "" for a backend
 * @property {number} at milliseconds since 1970; 0 if unknown
 * @property {boolean} mine
 * @property {"pending" | "sent" | "refused"} state
 * @property {string} problem
 */

const ENTRIES_MAX = 500;

export class Room {
  /** @type {Entry[]} */
  entries = [];
  /** @type {Map<string, Member> | null} by client id; null if the room has no presence */
  members = null;
  /** @type {"joining" | "joined" | "refused"} "joined" after recovery is complete; "joining" also without a connection */
  phase = "joining";
  problem = "";
  unread = 0;
  draft = "";
  /** @type {Position | null} the position of the last received message; null if the room has no history */
  position = null;
  /** Whether the page was subscribed before. */
  visited = false;

  /** @type {Map<string, Entry>} */
  #byUid = new Map();
  /** @type {Map<string, Member | null> | null} joins and leaves (null) that arrive while a presence request is running */
  #changesMeanwhile = null;
  #generation = 0;
  #count = 0;

  /** @param {string} name */
  constructor(name) {
    this.name = name;
  }

  /** Applies a `subscribed` event: takes its position, and adds a gap entry if messages may be lost. @param {Subscribed} subscribed */
  applySubscribed({ recovered, position }) {
    const lost = this.visited && !recovered;
    const before = this.position;
    this.visited = true;
    this.position = position && { ...position };
    if (position && before?.epoch !== position.epoch) this.#generation++;
    if (lost && this.entries.some((entry) => entry.state === "sent")) {
      const offset = before && before.epoch === position?.epoch ? before.offset + 0.5 : 0;
      this.#place(this.#entry({ kind: "gap", offset }));
    }
  }

  /**
   * Adds a publication, live or from the history. Returns its entry, or null for a known message.
   * @param {Publication} publication @param {(uid: string) => boolean} isMine
   * @returns {Entry | null}
   */
  receive({ data, offset, info }, isMine) {
    if (this.position) this.position.offset = Math.max(this.position.offset, offset);
    const uid = uidOf(data) ?? (offset ? `${this.#generation}:${offset}` : `n${++this.#count}`);
    const known = this.#byUid.get(uid);
    if (known) {
      if (known.state !== "sent" || (offset && !known.offset)) this.#settle(known, offset);
      return null;
    }
    const entry = this.#entry({
      uid,
      offset,
      text: textOf(data),
      author: info ? nameOf(info) : "",
      at: timeOf(data),
      mine: isMine(uid),
    });
    this.#place(entry);
    return entry;
  }

  /** Adds an outgoing message as pending. @param {OutgoingMessage} message @param {string} author */
  addOutgoing(message, author) {
    const known = this.#byUid.get(message.uid);
    if (known) {
      known.state = "pending";
      known.problem = "";
    } else {
      this.#place(this.#entry({ ...message, author, mine: true, state: "pending" }));
    }
  }

  /** Marks a message as stored. Its offset may be unknown until the publication arrives. @param {string} uid */
  acknowledge(uid) {
    const entry = this.#byUid.get(uid);
    if (entry && entry.state !== "sent") this.#settle(entry, 0);
  }

  /** @param {string} uid @param {string} problem */
  refuse(uid, problem) {
    const entry = this.#byUid.get(uid);
    if (entry && entry.state === "pending") Object.assign(entry, { state: "refused", problem });
  }

  /** @param {string} uid */
  discard(uid) {
    const entry = this.#byUid.get(uid);
    if (entry && entry.state !== "sent") this.#remove(entry);
  }

  /**
   * Sets the member list from a presence result; null keeps the current list. Joins and leaves that arrive before the
   * promise resolves are applied to the result, because they are never older than the result.
   * @param {Promise<ClientInfo[] | null>} result
   */
  async setMembers(result) {
    const changes = (this.#changesMeanwhile = new Map());
    const infos = await result;
    if (this.#changesMeanwhile === changes) this.#changesMeanwhile = null;
    if (!infos) return;
    this.members = new Map(infos.map((info) => [info.client, memberOf(info)]));
    for (const [client, member] of changes) this.#applyChange(client, member);
  }

  /** @param {ClientInfo} info */
  addMember(info) {
    this.#applyChange(info.client, memberOf(info));
  }

  /** @param {ClientInfo} info */
  removeMember(info) {
    this.#applyChange(info.client, null);
  }

  /** @param {string} client @param {Member | null} member null after a leave */
  #applyChange(client, member) {
    this.#changesMeanwhile?.set(client, member);
    if (member) this.members?.set(client, member);
    else this.members?.delete(client);
  }

  /** @param {Partial<Entry>} fields @returns {Entry} */
  #entry(fields) {
    return {
      kind: "message",
      uid: `g${++this.#count}`,
      generation: this.#generation,
      offset: 0,
      text: "",
      author: "",
      at: 0,
      mine: false,
      state: "sent",
      problem: "",
      ...fields,
    };
  }

  /** @param {Entry} entry @param {number} offset 0 if unknown */
  #settle(entry, offset) {
    this.#remove(entry);
    this.#place(Object.assign(entry, { state: "sent", generation: this.#generation, offset }));
  }

  /** @param {Entry} entry */
  #place(entry) {
    let index = this.entries.length;
    while (index > 0 && before(entry, this.entries[index - 1])) index--;
    this.entries.splice(index, 0, entry);
    this.#byUid.set(entry.uid, entry);
    if (this.entries.length > ENTRIES_MAX && this.entries[0].state === "sent") this.#remove(this.entries[0]);
  }

  /** @param {Entry} entry */
  #remove(entry) {
    this.entries.splice(this.entries.indexOf(entry), 1);
    this.#byUid.delete(entry.uid);
  }
}

/** Whether the new `entry` belongs before the existing `other`. @param {Entry} entry @param {Entry} other */
function before(entry, other) {
  if ((entry.state === "sent") !== (other.state === "sent")) return entry.state === "sent";
  if (entry.state !== "sent") return false;
  if (entry.generation !== other.generation) return entry.generation < other.generation;
  return entry.kind === "message" && entry.offset > 0 && other.offset > 0 && entry.offset < other.offset;
}

/** @param {any} data @returns {string | null} */
function uidOf(data) {
  const uid = data?.uid;
  return typeof uid === "string" && uid.length >= 8 && uid.length <= 64 ? uid : null;
}

/** Any publisher may publish here, so the data may be any JSON. @param {any} data @returns {string} */
function textOf(data) {
  if (typeof data === "string") return data;
  return typeof data?.text === "string" ? data.text : JSON.stringify(data);
}

/** @param {any} data @returns {number} */
function timeOf(data) {
  return Number.isFinite(data?.at) && data.at > 0 && data.at < 8.64e15 ? data.at : 0;
}

/** @param {ClientInfo} info @returns {Member} */
function memberOf(info) {
  return { client: info.client, user: info.user, name: nameOf(info) };
}

/** The displayed name. It is verified only if it is the user id. @param {ClientInfo} info @returns {string} */
function nameOf({ user, connInfo }) {
  const name = connInfo?.name;
  return (typeof name === "string" && name.trim()) || user || "anonymous";
}
