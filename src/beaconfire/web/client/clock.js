// @ts-check
/** Time, as tabs that sleep need it. */

const LONGEST_TIMER_MS = 3_600_000;

/**
 * One thing to do at a time of the clock. Timers of sleeping tabs are late and do not count what was slept through, so
 * every look is at the clock; one that was set back must not keep us waiting.
 */
export class Alarm {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;

  get isSet() {
    return this.#timer !== undefined;
  }

  /** Replaces what was set before. @param {number} delayMs @param {() => void} action */
  after(delayMs, action) {
    this.stop();
    const begun = Date.now();
    const look = () => {
      const now = Date.now();
      const left = now < begun ? 0 : begun + delayMs - now;
      this.#timer = left > 0 ? setTimeout(look, Math.min(left, LONGEST_TIMER_MS)) : undefined;
      if (left <= 0) action();
    };
    this.#timer = setTimeout(look, Math.max(0, Math.min(delayMs, LONGEST_TIMER_MS)));
  }

  stop() {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }
}

/**
 * The promise's outcome, or an error after `delayMs`.
 * @template T @param {Promise<T>} promise @param {number} delayMs @returns {Promise<T>}
 */
export function within(promise, delayMs) {
  const alarm = new Alarm();
  const late = new Promise((_, reject) => alarm.after(delayMs, () => reject(new Error("it takes too long"))));
  return Promise.race([promise, /** @type {Promise<T>} */ (late)]).finally(() => alarm.stop());
}
