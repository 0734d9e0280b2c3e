// Runs all checks of the JavaScript SDK in parallel, and prints one JSON line per check on standard output.
//
//     node main.js RUN VARIANT PORT FAST_PORT [EXCLUDED_CHECK ...]
//
// RUN separates the channels and users of several runs. VARIANT is a codec, or a transport and a codec, such as
// `http_stream-json`. PORT is a server with the reference configuration,
// FAST_PORT is a server with short timeouts.

import { inspect } from 'node:util';
import { Backend } from './backend.js';
import { CHECKS, Scenario } from './scenario.js';
// Modules with checks that wait for timeouts are first, so that the other checks run during these waits.
import './tokens.js';
import './recovery.js';
import './channels.js';
import './server_side.js';
import './reduced_delivery.js';
import './abuse.js';

const CHECK_DEADLINE_MS = 20_000;
/** Enough to use the waiting times. With more, short-lived tokens would expire in the queue of handshakes. */
const AT_ONCE = 16;

async function run(name, perform, scenario) {
  const started = performance.now();
  let error = '';
  let timer;
  const deadline = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not done within ${CHECK_DEADLINE_MS} ms`)), CHECK_DEADLINE_MS);
  });
  try {
    await Promise.race([perform(scenario), deadline]);
  } catch (failure) {
    error = failure instanceof Error ? failure.stack : inspect(failure);
  }
  clearTimeout(timer);
  const seconds = Math.round(performance.now() - started) / 1000;
  process.stdout.write(`${JSON.stringify({ check: name, error, seconds })}\n`);
  scenario.close();
}

const [label, variant, port, fastPort, ...excluded] = process.argv.slice(2);
const [reference, fast] = [new Backend(Number(port)), new Backend(Number(fastPort))];
const waiting = [...CHECKS].filter(([name]) => !excluded.includes(name));

async function runChecks() {
  for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
    const [name, perform] = next;
    await run(name, perform, new Scenario(`${name}.${label}`, variant, reference, fast));
  }
}

await Promise.all(Array.from({ length: AT_ONCE }, runChecks));
// Sockets with an unanswered close frame would keep the process alive for half a minute.
process.exit();
