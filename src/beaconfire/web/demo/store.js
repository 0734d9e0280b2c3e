// @ts-check
/**
 * What the page remembers between visits: the name, the rooms, the messages that are not sent yet.
 *
 * Where the browser gives no storage (private windows, blocked cookies) it is remembered until the page is closed.
 */

const PREFIX = "beaconfire.";
const LETTER = "letter.";
const SENT_MAX = 300;

/**
 * A message on its way: it stays here until the server has acknowledged it. `uid` is how readers, this page among
 * them, recognise a message that was sent twice because the acknowledgement of the first got lost.
 * @typedef {{uid: string, room: string, text: string, at: number}} Letter
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

  /** Whether this browser wrote the message with this uid, perhaps on an earlier visit. @param {string} uid */
  hasSent(uid) {
    return this.#sent.has(uid);
  }

  /** One entry per letter, so that two tabs never overwrite each other's. @param {Letter} letter */
  keep(letter) {
    this.#write(LETTER + letter.uid, JSON.stringify(letter));
    this.#sent.add(letter.uid);
    this.#write("sent", JSON.stringify([...this.#sent].slice(-SENT_MAX)));
  }

  /** @param {string} uid */
  drop(uid) {
    this.#fallback.delete(PREFIX + LETTER + uid);
    try {
      localStorage.removeItem(PREFIX + LETTER + uid);
    } catch {
      // No storage: it was in the fallback only.
    }
  }

  /** All letters, oldest first. @returns {Letter[]} */
  get letters() {
    const start = PREFIX + LETTER;
    return this.#keys()
      .filter((key) => key.startsWith(start))
      .map((key) => this.#parse(key.slice(PREFIX.length)))
      .filter(isLetter)
      .sort((a, b) => a.at - b.at);
  }

  /** Those for a room. @param {string} room */
  lettersFor(room) {
    return this.letters.filter((letter) => letter.room === room);
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

/** @param {any} value @returns {value is Letter} */
function isLetter(value) {
  return (
    typeof value?.uid === "string" &&
    typeof value.room === "string" &&
    typeof value.text === "string" &&
    typeof value.at === "number"
  );
}
