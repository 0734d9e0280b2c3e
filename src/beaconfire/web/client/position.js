// @ts-check
/** The position of a subscription in a channel's stream. */

/** @typedef {import("./events.js").Position} Position */

/** Tracks the position in a channel, so that each publication is delivered once and missed ones can be recovered. */
export class PositionTracker {
  /** @type {Position | null} null if the channel has no stream that can be recovered */
  position;
  hasSubscribed = false;

  /** @param {Position | null} [since] */
  constructor(since = null) {
    this.position = since;
  }

  /** The fields of a subscribe request that ask for recovery. */
  recoveryFields() {
    return this.position ? { recover: true, ...this.position } : {};
  }

  /**
   * Applies a subscribe result. Returns the recovered publications that are new, and the `subscribed` event. The position
   * is set before the first new publication; the caller passes each one to `advance`.
   * @param {string} channel @param {Record<string, any>} result
   * @returns {{fresh: Record<string, any>[], subscribed: import("./events.js").Subscribed}}
   */
  applyResult(channel, { epoch = "", offset = 0, recoverable = false, recovered = false, publications = [], data = null }) {
    const wasRecovering = this.hasSubscribed || this.position !== null;
    const known = (recovered && this.position?.epoch === epoch && this.position?.offset) || 0;
    const fresh = publications.filter((/** @type {Record<string, any>} */ pub) => !pub.offset || pub.offset > known);
    const start = fresh.length ? fresh[0].offset - 1 : Math.max(offset, known);
    this.position = recoverable ? { offset: start, epoch } : null;
    this.hasSubscribed = true;
    return { fresh, subscribed: { channel, wasRecovering, recovered, position: this.position, data } };
  }

  /** Moves the position to a publication. Returns false for a publication that was delivered before. @param {Record<string, any>} publication */
  advance({ offset = 0, epoch = "" }) {
    if (!this.position || !offset) return true;
    if (offset <= this.position.offset) return false;
    this.position = { offset, epoch: epoch || this.position.epoch };
    return true;
  }

  /** Makes the next recovery fail: no stream has the epoch "_", so the server replies with `recovered: false`. */
  invalidate() {
    if (this.position) this.position = { offset: 0, epoch: "_" };
  }
}
