// @ts-check
/** The events of clients and subscriptions, and the emitter that calls their listeners. */

/** Emits an event. A symbol hides the method from pages. */
export const EMIT = Symbol("emit");

/** A position in a channel's stream: the offset of the last received publication. @typedef {{offset: number, epoch: string}} Position */
/** The client that published, joined or left. @typedef {{user: string, client: string, connInfo?: any, chanInfo?: any}} ClientInfo */
/**
 * `offset` is 0 in channels without history. `recovered`: the publication was missed and delivered later. `info` is
 * missing if a backend published. `conflated` is the number of publications left out before this one by `conflate`.
 * @typedef {{channel: string, data: any, offset: number, info?: ClientInfo, tags: Record<string, string>, recovered: boolean,
 *   conflated: number}} Publication
 */
/** @typedef {"idle" | "connecting" | "connected" | "disconnected"} State */
/**
 * `code` is a close code or error code of the server, or 0. `retryAt` is the time of the next attempt (milliseconds since
 * 1970), or 0 if none is scheduled. `transport` is the name of the transport in use, or "". `client` is the connection id.
 * @typedef {{state: State, previous: State, code: number, reason: string, retryAt: number, transport: string, client: string}} StateChange
 */
/** @typedef {"unsubscribed" | "subscribing" | "subscribed"} SubscriptionState */
/** @typedef {{channel: string, state: SubscriptionState, previous: SubscriptionState, code: number, reason: string}} SubscriptionChange */
/**
 * `wasRecovering`: the subscription was subscribed before, or started with `since`. If `wasRecovering` is true and
 * `recovered` is false, publications may be lost: the page must read the current state again.
 * @typedef {{channel: string, wasRecovering: boolean, recovered: boolean, position: Position | null, data: any}} Subscribed
 */
/** @typedef {{channel: string, info: ClientInfo}} Attendance */
/** @typedef {{publications: Publication[], offset: number, epoch: string}} History */
/** @typedef {{limit?: number, since?: Position, reverse?: boolean}} HistoryQuery */
/** @typedef {{numClients: number, numUsers: number}} PresenceStats */

/**
 * Listeners by event name. An error thrown by a listener is reported as uncaught; the other listeners are still called.
 * @template {object} Events
 */
export class Emitter {
  /** @type {Map<string, Set<(event: any) => void>>} */
  #listeners = new Map();

  /**
   * Calls `listener` for every event with this name. Returns a function that removes the listener.
   * @template {keyof Events & string} Name
   * @param {Name} name @param {(event: Events[Name]) => void} listener @returns {() => void}
   */
  on(name, listener) {
    const listeners = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, listeners.add(listener));
    return () => void listeners.delete(listener);
  }

  /** @template {keyof Events & string} Name @param {Name} name @param {Events[Name]} event */
  [EMIT](name, event) {
    for (const listener of [...(this.#listeners.get(name) ?? [])]) {
      try {
        listener(event);
      } catch (error) {
        setTimeout(() => {
          throw error;
        });
      }
    }
  }
}
