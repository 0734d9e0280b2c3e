// @ts-check
/**
 * A room as this page knows it: its messages in the server's order, who is in it, and where we stand.
 *
 * Order: stored messages stand by (generation, offset), where a generation is one life of the room's history;
 * messages of rooms without history stand as they came; messages on their way are always last.
 * Uniqueness: a message with a uid that is here already is the same message, sent again.
 */

/** @typedef {import("./connection.js").Message} Message */
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
  /** @type {"away" | "joining" | "joined" | "refused"} */
  phase = "away";
  problem = "";
  unread = 0;
  draft = "";
  /** @type {{offset: number, epoch: string} | null} what was heard up to; null where the room keeps no history */
  position = null;
  /** Joined before: what happened since then was missed and must be recovered. */
  visited = false;

  /** @type {Map<string, Entry>} */
  #byUid = new Map();
  #generation = 0;
  #count = 0;

  /** @param {string} name */
  constructor(name) {
    this.name = name;
  }

  /** Takes over the position of a `joined` and leaves an honest mark where continuity was lost. @param {Message} joined */
  enter(joined) {
    const lost = this.visited && joined.recovered !== true;
    const before = this.position;
    this.visited = true;
    this.position = null;
    if (typeof joined.epoch === "string" && typeof joined.offset === "number") {
      if (before?.epoch !== joined.epoch) this.#generation++;
      this.position = { offset: joined.offset, epoch: joined.epoch };
    }
    if (lost && this.entries.some((entry) => entry.state === "sent")) {
      const offset = before && before.epoch === this.position?.epoch ? before.offset + 0.5 : 0;
      this.#place(this.#entry({ kind: "gap", offset }));
    }
  }

  /**
   * Adds a `message` of the server, live or from history. Returns its entry, or null if it was here already.
   * @param {Message} message @param {(uid: string) => boolean} isMine
   * @returns {Entry | null}
   */
  receive(message, isMine) {
    const offset = typeof message.offset === "number" ? message.offset : 0;
    if (this.position && offset) {
      if (message.epoch && message.epoch !== this.position.epoch) {
        this.position = { offset: 0, epoch: message.epoch };
        this.#generation++;
      }
      this.position.offset = Math.max(this.position.offset, offset);
    }
    const uid = uidOf(message) ?? (offset ? `${this.#generation}:${offset}` : `n${++this.#count}`);
    const known = this.#byUid.get(uid);
    if (known) {
      if (known.state !== "sent") this.acknowledge(uid, offset);
      return null;
    }
    const entry = this.#entry({
      uid,
      offset,
      text: textOf(message.data),
      author: message.client === undefined && message.user === undefined ? "" : nameOf(message),
      at: timeOf(message.data),
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

  /** The message is stored. @param {string} uid @param {number} offset 0 in a room without history */
  acknowledge(uid, offset) {
    const entry = this.#byUid.get(uid);
    if (!entry || entry.state === "sent") return;
    this.#remove(entry);
    entry.state = "sent";
    entry.generation = this.#generation;
    entry.offset = offset;
    this.#place(entry);
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

  /** @param {Record<string, Message>} clients as in a `presence` answer */
  setMembers(clients) {
    this.members = new Map();
    for (const client of Object.values(clients)) this.addMember(client);
  }

  /** @param {Message} info */
  addMember(info) {
    const client = String(info.client);
    this.members?.set(client, { client, user: String(info.user ?? ""), name: nameOf(info) });
  }

  /** @param {Message} info */
  removeMember(info) {
    this.members?.delete(String(info.client));
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

/** @param {Message} message @returns {string | null} */
function uidOf(message) {
  const uid = message.data?.uid;
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

/** The name to show for whoever a message or presence entry is about. @param {Message} about @returns {string} */
function nameOf(about) {
  const name = about.info?.name;
  return (typeof name === "string" && name.trim()) || String(about.user ?? "") || "anonymous";
}
