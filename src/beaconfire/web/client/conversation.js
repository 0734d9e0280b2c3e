// @ts-check
/** The commands of one connection and their answers. */

import { Alarm } from "./clock.js";
import { BATCH_CHARACTERS_MAX } from "./tables.js";
import { ClientError } from "./words.js";

/** @typedef {(error: ClientError | null, result: Record<string, any>) => void} OnAnswer */

/** The commands and answers of one connection. What one task asks is sent together, in its order. */
export class Conversation {
  #send;
  #lastId = 0;
  /** @type {Map<number, {kind: string, onAnswer: OnAnswer, deadline: Alarm}>} */
  #unanswered = new Map();
  /** @type {string[]} */
  #waiting = [];

  /** @param {(commands: string) => void} send */
  constructor(send) {
    this.#send = send;
  }

  /**
   * The text of a command. `onAnswer` is called once, and at once when the answer is there: what follows it in the same
   * frame must find it done. A promise would be late.
   * @param {string} kind @param {Record<string, any>} request @param {number} timeoutMs @param {OnAnswer} onAnswer
   */
  command(kind, request, timeoutMs, onAnswer) {
    const id = ++this.#lastId;
    const deadline = new Alarm();
    deadline.after(timeoutMs, () => {
      this.#unanswered.delete(id);
      onAnswer(new ClientError(0, "no answer in time", { temporary: true, uncertain: true }), {});
    });
    this.#unanswered.set(id, { kind, onAnswer, deadline });
    return JSON.stringify({ id, [kind]: request });
  }

  /** @param {string} kind @param {Record<string, any>} request @param {number} timeoutMs @param {OnAnswer} onAnswer */
  ask(kind, request, timeoutMs, onAnswer) {
    this.say(this.command(kind, request, timeoutMs, onAnswer));
  }

  /** @param {string} command */
  say(command) {
    if (this.#waiting.push(command) === 1) queueMicrotask(() => this.#flush());
  }

  #flush() {
    const commands = this.#waiting;
    this.#waiting = [];
    let batch = "";
    for (const command of commands) {
      if (batch && batch.length + command.length > BATCH_CHARACTERS_MAX) {
        this.#send(batch);
        batch = "";
      }
      batch += batch ? `\n${command}` : command;
    }
    if (batch) this.#send(batch);
  }

  /** @param {Record<string, any>} reply */
  hear(reply) {
    const asked = this.#unanswered.get(reply.id);
    if (!asked) return; // too late
    this.#unanswered.delete(reply.id);
    asked.deadline.stop();
    const { error } = reply;
    asked.onAnswer(error ? new ClientError(error.code, error.message, error) : null, reply[asked.kind] ?? {});
  }

  /** All that is not answered never will be. @param {string} reason */
  end(reason) {
    const asked = [...this.#unanswered.values()];
    this.#unanswered.clear();
    this.#waiting = [];
    for (const { onAnswer, deadline } of asked) {
      deadline.stop();
      onAnswer(new ClientError(0, `the connection was lost: ${reason}`, { temporary: true, uncertain: true }), {});
    }
  }
}

/**
 * Resolves once a client or subscription is in `wanted`, if it is on its way there. Rejects with `ClientError`.
 * @param {import("./words.js").Emitter<any> & {state: string}} one @param {string} wanted @param {string} onTheWay
 * @param {number} timeoutMs @returns {Promise<void>}
 */
export function waitFor(one, wanted, onTheWay, timeoutMs) {
  if (one.state === wanted) return Promise.resolve();
  const refusal = () => new ClientError(0, `not ${wanted}, but ${one.state}`, { temporary: one.state === onTheWay });
  if (one.state !== onTheWay) return Promise.reject(refusal());
  return new Promise((resolve, reject) => {
    const deadline = new Alarm();
    const settle = () => {
      if (one.state === onTheWay && deadline.isSet) return;
      ignore();
      deadline.stop();
      if (one.state === wanted) resolve();
      else reject(refusal());
    };
    const ignore = one.on("state", settle);
    deadline.after(timeoutMs, settle);
  });
}

/** Null for what is no object: a login page of the network, for one. @param {string} text @returns {Record<string, any> | null} */
export function parseObject(text) {
  try {
    const message = JSON.parse(text);
    return typeof message === "object" ? message : null;
  } catch {
    return null;
  }
}
