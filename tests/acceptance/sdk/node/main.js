// Runs every check of the JavaScript SDK, many at once: one JSON line for each on standard output.
//
//     node main.js RUN WAY PORT HASTY_PORT [CHECK_TO_LEAVE_OUT ...]
//
// RUN keeps the channels and users of several runs apart. WAY is a codec, or a transport and a codec as in
// `http_stream-json`. PORT is a server with the reference configuration,
// HASTY_PORT one whose clocks run fast.

import { inspect } from 'node:util';
import { Backend } from './backend.js';
import { CHECKS, Scene } from './scene.js';
// Those with checks that wait for clocks come first, so that the others fill the time.
import './tokens.js';
import './recovery.js';
import './rooms.js';
import './server_side.js';
import './tailoring.js';
import './abuse.js';

const CHECK_DEADLINE_MS = 20_000;
/** Enough to hide the waiting, few enough for short-lived tokens not to run out in a queue of handshakes. */
const AT_ONCE = 16;

async function run(name, perform, scene) {
  const started = performance.now();
  let error = '';
  let timer;
  const deadline = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not done within ${CHECK_DEADLINE_MS} ms`)), CHECK_DEADLINE_MS);
  });
  try {
    await Promise.race([perform(scene), deadline]);
  } catch (failure) {
    error = failure instanceof Error ? failure.stack : inspect(failure);
  }
  clearTimeout(timer);
  const seconds = Math.round(performance.now() - started) / 1000;
  process.stdout.write(`${JSON.stringify({ check: name, error, seconds })}\n`);
  scene.close();
}

const [label, way, port, hastyPort, ...leftOut] = process.argv.slice(2);
const [reference, hasty] = [new Backend(Number(port)), new Backend(Number(hastyPort))];
const waiting = [...CHECKS].filter(([name]) => !leftOut.includes(name));

async function takeTurns() {
  for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
    const [name, perform] = next;
    await run(name, perform, new Scene(`${name}.${label}`, way, reference, hasty));
  }
}

await Promise.all(Array.from({ length: AT_ONCE }, takeTurns));
// Sockets whose close nobody answers would keep the process for half a minute.
process.exit();
