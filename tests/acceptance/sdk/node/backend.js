// The application's backend for the scenarios: it signs tokens and calls the server API.

import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';

const SECRET = 'secret';
const API_KEY = 'api_key';

const base64url = text => Buffer.from(text).toString('base64url');

/** A JWT with exactly these claims. */
export function sign(claims, { secret = SECRET, alg = 'HS256' } = {}) {
  const unsigned = `${base64url(JSON.stringify({ alg, typ: 'JWT' }))}.${base64url(JSON.stringify(claims))}`;
  const signature = alg === 'none' ? '' : createHmac('sha256', secret).update(unsigned).digest('base64url');
  return `${unsigned}.${signature}`;
}

/** A connection token; a `ttlS` below zero makes one that has expired. */
export function connectionToken(user, { ttlS, ...claims } = {}) {
  return sign({ sub: user, info: { name: user }, ...expiry(ttlS), ...claims });
}

/** A token with which `user` may subscribe to `channel`. */
export function subscriptionToken(user, channel, { ttlS, ...claims } = {}) {
  return sign({ sub: user, channel, info: { role: 'guest' }, ...expiry(ttlS), ...claims });
}

const expiry = ttlS => (ttlS === undefined ? {} : { exp: Math.ceil(Date.now() / 1000 + ttlS) });

/** A server, as the application's backend uses it. */
export class Backend {
  constructor(port) {
    this.port = port;
  }

  /** The result of a server API call. Rejects if the server answers with an error. */
  async call(method, parameters) {
    const response = await fetch(`http://127.0.0.1:${this.port}/api/${method}`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', 'X-API-Key': API_KEY },
      body: JSON.stringify(parameters),
    });
    const answer = await response.json();
    assert.equal(answer.error, undefined);
    return answer.result;
  }

  /** Publishes the values one after the other. */
  async publish(channel, ...values) {
    for (const data of values) {
      await this.call('publish', { channel, data });
    }
  }
}
