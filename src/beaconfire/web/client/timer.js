// @ts-check
/** Timers that work correctly in tabs that were suspended. */

const LONGEST_TIMER_MS = 3_600_000;

/**
 * Runs one action at a time of the wall clock. Browsers delay the timers of suspended tabs and do not count the suspended
 * time, so this class compares the clock with the due time. If the clock was set back, the action runs at once.
 */
export class Timer {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;

  get isSet() {
    return this.#timer !== undefined;
  }

  /** Replaces the previous action. @param {number} delayMs @param {() => void} action */
  start(delayMs, action) {
    this.stop();
    const startedAt = Date.now();
    const check = () => {
      const now = Date.now();
      const left = now < startedAt ? 0 : startedAt + delayMs - now;
      this.#timer = left > 0 ? setTimeout(check, Math.min(left, LONGEST_TIMER_MS)) : undefined;
      if (left <= 0) action();
    };
    this.#timer = setTimeout(check, Math.max(0, Math.min(delayMs, LONGEST_TIMER_MS)));
  }

  stop() {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }
}

/**
 * Resolves or rejects like `promise`, or rejects after `delayMs`.
 * @template T @param {Promise<T>} promise @param {number} delayMs @returns {Promise<T>}
 */
export function withTimeout(promise, delayMs) {
  const timer = new Timer();
  const timeout = new Promise((_, reject) => timer.start(delayMs, () => reject(new Error("timed out"))));
  return Promise.race([promise, /** @type {Promise<T>} */ (timeout)]).finally(() => timer.stop());
}
