// @ts-check
/**
 * A room as this page knows it: its messages in the server's order, who is in it, and where we stand.
 *
 * Order: stored messages stand by (generation, offset), where a generation is one life of the room's history;
 * messages of rooms without history stand as they came; messages on their way are always last. Of our own we are told
 * in either order that they are stored, and, as everybody else, at which offset.
 * Uniqueness: a message with a uid that is here already is the same message, sent again.
 */

/** @typedef {import("/client/events.js").ClientInfo} ClientInfo */
/** @typedef {import("/client/events.js").Position} Position */
/** @typedef {import("/client/events.js").Publication} Publication */
/** @typedef {import("/client/events.js").Subscribed} Subscribed */
/** @typedef {import("./store.js").Letter} Letter */
/** @typedef {{user: string, name: string, client: string}} Member */
/**
 * A line of the room. `state` of a message: on its way, sent (stored), or refused with `problem`. A gap says that
 * messages may be missing at this place.
 * @typedef {object} Entry
 * @property {"message" | "gap"} kind
 * @property {string} uid
 * @property {number} generation
 * @property {number} offset 0 where unknown
 * @property {string} text
 * @property {string} author shown name; "" for the server
 * @property {number} at milliseconds since 1970; 0 where unknown
 * @property {boolean} mine
 * @property {"pending" | "sent" | "refused"} state
 * @property {string} problem
 */

const ENTRIES_MAX = 500;

export class Room {
  /** @type {Entry[]} */
  entries = [];
  /** @type {Map<string, Member> | null} by client id; null where the room does not tell */
  members = null;
  /** @type {"joining" | "joined" | "refused"} joined once it is up to date; joining also while there is no connection */
  phase = "joining";
  problem = "";
  unread = 0;
  draft = "";
  /** @type {Position | null} what was heard up to; null where the room keeps no history */
  position = null;
  /** Joined before: what happened since then was missed. */
  visited = false;

  /** @type {Map<string, Entry>} */
  #byUid = new Map();
  /** @type {Map<string, Member | null> | null} who came, and who went (null), while we wait to be told who is here */
  #moves = null;
  #generation = 0;
  #count = 0;

  /** @param {string} name */
  constructor(name) {
    this.name = name;
  }

  /** Takes over the position of a subscription and leaves an honest mark where continuity was lost. @param {Subscribed} subscribed */
  enter({ recovered, position }) {
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
   * Adds what was published, live or long ago. Returns its entry, or null if it was here already.
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

  /** Shows a message that is on its way. @param {Letter} letter @param {string} author */
  write(letter, author) {
    const known = this.#byUid.get(letter.uid);
    if (known) {
      known.state = "pending";
      known.problem = "";
    } else {
      this.#place(this.#entry({ ...letter, author, mine: true, state: "pending" }));
    }
  }

  /** The message is stored, where we may yet be told. @param {string} uid */
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
   * Takes over who is here, once that is answered; null keeps what there is. Who comes and goes meanwhile counts on top
   * of it: the answer may be older, and is never newer than what comes behind it.
   * @param {Promise<ClientInfo[] | null>} answer
   */
  async setMembers(answer) {
    const moves = (this.#moves = new Map());
    const infos = await answer;
    if (this.#moves === moves) this.#moves = null;
    if (!infos) return;
    this.members = new Map(infos.map((info) => [info.client, memberOf(info)]));
    for (const [client, member] of moves) this.#move(client, member);
  }

  /** @param {ClientInfo} info */
  addMember(info) {
    this.#move(info.client, memberOf(info));
  }

  /** @param {ClientInfo} info */
  removeMember(info) {
    this.#move(info.client, null);
  }

  /** @param {string} client @param {Member | null} member null if it has gone */
  #move(client, member) {
    this.#moves?.set(client, member);
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

  /** @param {Entry} entry @param {number} offset 0 where unknown */
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

/** Whether `entry` stands before `other`, which is here already. @param {Entry} entry @param {Entry} other */
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

/** Any publisher may write here, so any JSON may come. @param {any} data @returns {string} */
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

/** The name to show. Nobody has verified it, unless there is a user. @param {ClientInfo} info @returns {string} */
function nameOf({ user, connInfo }) {
  const name = connInfo?.name;
  return (typeof name === "string" && name.trim()) || user || "anonymous";
}
