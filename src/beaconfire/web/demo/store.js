// @ts-check
/**
 * The data that the page keeps between visits: the name, the rooms, and the messages that are not stored by the server yet.
 *
 * If the browser offers no storage (private windows, blocked cookies), the data lasts until the page is closed.
 */

const PREFIX = "beaconfire.";
const OUTGOING = "outgoing.";
const SENT_MAX = 300;

/**
 * A message that the server has not acknowledged yet. If an acknowledgement is lost, the page sends the message again;
 * all readers, including this page, recognise the copy by its `uid`.
 * @typedef {{uid: string, room: string, text: string, at: number}} OutgoingMessage
 */

export class Store {
  /** @type {Map<string, string>} */
  #fallback = new Map();
  #sent = new Set(strings(this.#parse("sent")));

  get name() {
    return this.#read("name") ?? "";
  }

  set name(value) {
    this.#write("name", value);
  }

  /** @returns {string[]} */
  get rooms() {
    return strings(this.#parse("rooms"));
  }

  set rooms(names) {
    this.#write("rooms", JSON.stringify(names));
  }

  /** Whether this browser sent the message with this uid, now or on an earlier visit. @param {string} uid */
  isOwn(uid) {
    return this.#sent.has(uid);
  }

  /** Stores each message under its own key, so that two tabs do not overwrite each other's messages. @param {OutgoingMessage} message */
  keep(message) {
    this.#write(OUTGOING + message.uid, JSON.stringify(message));
    this.#sent.add(message.uid);
    this.#write("sent", JSON.stringify([...this.#sent].slice(-SENT_MAX)));
  }

  /** @param {string} uid */
  drop(uid) {
    this.#fallback.delete(PREFIX + OUTGOING + uid);
    try {
      localStorage.removeItem(PREFIX + OUTGOING + uid);
    } catch {
      // No storage: the message was only in the fallback.
    }
  }

  /** All outgoing messages, oldest first. @returns {OutgoingMessage[]} */
  get outgoing() {
    const start = PREFIX + OUTGOING;
    return this.#keys()
      .filter((key) => key.startsWith(start))
      .map((key) => this.#parse(key.slice(PREFIX.length)))
      .filter(isOutgoingMessage)
      .sort((a, b) => a.at - b.at);
  }

  /** The outgoing messages of one room. @param {string} room */
  outgoingFor(room) {
    return this.outgoing.filter((message) => message.room === room);
  }

  #keys() {
    try {
      return Object.keys(localStorage);
    } catch {
      return [...this.#fallback.keys()];
    }
  }

  /** @param {string} key */
  #read(key) {
    try {
      return localStorage.getItem(PREFIX + key);
    } catch {
      return this.#fallback.get(PREFIX + key) ?? null;
    }
  }

  /** @param {string} key @param {string} value */
  #write(key, value) {
    try {
      localStorage.setItem(PREFIX + key, value);
    } catch {
      this.#fallback.set(PREFIX + key, value);
    }
  }

  /** @param {string} key @returns {unknown} */
  #parse(key) {
    try {
      return JSON.parse(this.#read(key) ?? "null");
    } catch {
      return null;
    }
  }
}

/** @param {unknown} value @returns {string[]} */
function strings(value) {
  return Array.isArray(value) ? value.filter((item) => typeof item === "string") : [];
}

/** @param {any} value @returns {value is OutgoingMessage} */
function isOutgoingMessage(value) {
  return (
    typeof value?.uid === "string" &&
    typeof value.room === "string" &&
    typeof value.text === "string" &&
    typeof value.at === "number"
  );
}
