// @ts-check
/** The commands of one connection and their replies. */

import { BATCH_CHARACTERS_MAX } from "./constants.js";
import { ClientError } from "./errors.js";
import { Timer } from "./timer.js";

/** @typedef {(error: ClientError | null, result: Record<string, any>) => void} OnReply */

/** The commands of one connection. Commands of the same task are sent together, in their order. */
export class Commands {
  #write;
  #lastId = 0;
  /** @type {Map<number, {kind: string, onReply: OnReply, timeout: Timer}>} */
  #pending = new Map();
  /** @type {string[]} */
  #queue = [];

  /** @param {(commands: string) => void} write sends commands, one per line */
  constructor(write) {
    this.#write = write;
  }

  /**
   * Encodes a command and registers its reply. `onReply` is called once and synchronously with the reply, because a push
   * that follows the reply in the same frame must find the reply processed; a promise would resolve too late.
   * @param {string} kind @param {Record<string, any>} request @param {number} timeoutMs @param {OnReply} onReply
   */
  encode(kind, request, timeoutMs, onReply) {
    const id = ++this.#lastId;
    const timeout = new Timer();
    timeout.start(timeoutMs, () => {
      this.#pending.delete(id);
      onReply(new ClientError(0, "no reply in time", { temporary: true, uncertain: true }), {});
    });
    this.#pending.set(id, { kind, onReply, timeout });
    return JSON.stringify({ id, [kind]: request });
  }

  /** @param {string} kind @param {Record<string, any>} request @param {number} timeoutMs @param {OnReply} onReply */
  send(kind, request, timeoutMs, onReply) {
    this.sendEncoded(this.encode(kind, request, timeoutMs, onReply));
  }

  /** @param {string} command */
  sendEncoded(command) {
    if (this.#queue.push(command) === 1) queueMicrotask(() => this.#flush());
  }

  #flush() {
    const commands = this.#queue;
    this.#queue = [];
    let batch = "";
    for (const command of commands) {
      if (batch && batch.length + command.length > BATCH_CHARACTERS_MAX) {
        this.#write(batch);
        batch = "";
      }
      batch += batch ? `\n${command}` : command;
    }
    if (batch) this.#write(batch);
  }

  /** @param {Record<string, any>} reply */
  receive(reply) {
    const pending = this.#pending.get(reply.id);
    if (!pending) return; // the timeout has passed
    this.#pending.delete(reply.id);
    pending.timeout.stop();
    const { error } = reply;
    pending.onReply(error ? new ClientError(error.code, error.message, error) : null, reply[pending.kind] ?? {});
  }

  /** Fails all commands that have no reply yet. @param {string} reason */
  failAll(reason) {
    const pending = [...this.#pending.values()];
    this.#pending.clear();
    this.#queue = [];
    for (const { onReply, timeout } of pending) {
      timeout.stop();
      onReply(new ClientError(0, `the connection was lost: ${reason}`, { temporary: true, uncertain: true }), {});
    }
  }
}

/**
 * Resolves when a client or subscription is in the state `wanted`. Waits only while the state is `pending`. Rejects with
 * `ClientError` in any other state and after `timeoutMs`.
 * @param {import("./events.js").Emitter<any> & {state: string}} target @param {string} wanted @param {string} pending
 * @param {number} timeoutMs @returns {Promise<void>}
 */
export function waitForState(target, wanted, pending, timeoutMs) {
  if (target.state === wanted) return Promise.resolve();
  const failure = () => new ClientError(0, `not ${wanted}, but ${target.state}`, { temporary: target.state === pending });
  if (target.state !== pending) return Promise.reject(failure());
  return new Promise((resolve, reject) => {
    const timeout = new Timer();
    const check = () => {
      if (target.state === pending && timeout.isSet) return;
      removeListener();
      timeout.stop();
      if (target.state === wanted) resolve();
      else reject(failure());
    };
    const removeListener = target.on("state", check);
    timeout.start(timeoutMs, check);
  });
}

/** Null for text that is not a JSON object, such as the login page of a network. @param {string} text @returns {Record<string, any> | null} */
export function parseObject(text) {
  try {
    const message = JSON.parse(text);
    return typeof message === "object" ? message : null;
  } catch {
    return null;
  }
}
