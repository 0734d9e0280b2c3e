// The helpers of one check, and the list of all checks.

import { EventEmitter, once } from 'node:events';
import { connectionToken, subscriptionToken } from './backend.js';
import { TcpProxy } from './tcp_proxy.js';
import { Peer, WAIT_DEADLINE_MS } from './peer.js';

/** All checks, by their names in `tests.acceptance.sdk.checks`. */
export const CHECKS = new Map();

/** Registers a check under its name. */
export function check(name, run) {
  CHECKS.set(name, run);
}

/** The environment of one check: its own channels and users, so that all checks of all runs can share a server. */
export class Scenario {
  #peers = [];
  #proxies = [];

  constructor(name, variant, reference, fast) {
    const [codec, transport = 'websocket'] = variant.split('-').reverse();
    this.name = name;
    this.protobuf = codec === 'protobuf';
    this.transport = transport;
    this.backend = reference;
    this.fast = fast;
  }

  /** A channel without a namespace: it requires a subscription token, and has history and presence. */
  get channel() {
    return this.name;
  }

  /** A channel of the namespace that keeps two publications and requires no token. */
  get small() {
    return `small:${this.name}`;
  }

  /** A channel of the namespace with deltas and filters; it requires no token. */
  get prices() {
    return `prices:${this.name}`;
  }

  user(name) {
    return `${name}@${this.name}`;
  }

  /** A client that is not connected yet. Without token options it has a valid token. */
  peer(name = 'ann', { port = this.backend.port, protobuf = this.protobuf, ...options } = {}) {
    const tokens = 'token' in options || 'getToken' in options ? {} : { token: connectionToken(this.user(name)) };
    // Server-Sent Events are text: in such a scenario Protobuf clients use WebSocket.
    const transport = protobuf && this.transport === 'sse' ? 'websocket' : this.transport;
    const peer = new Peer(port, protobuf, transport, { ...tokens, ...options });
    this.#peers.push(peer);
    return peer;
  }

  connected(name = 'ann', options = {}) {
    return this.peer(name, options).connect();
  }

  /** A subscription token for one of this scenario's users. */
  token(name = 'ann', { channel = this.channel, ...claims } = {}) {
    return subscriptionToken(this.user(name), channel, claims);
  }

  /** The subscription of a connected client to the scenario's channel, or to another one. */
  async joined(name = 'ann', { channel = this.channel, ...options } = {}) {
    const peer = await this.connected(name, options);
    return peer.subscribe(channel, { token: this.token(name, { channel }) });
  }

  async proxy(backend = this.backend) {
    const proxy = await TcpProxy.open(backend.port);
    this.#proxies.push(proxy);
    return proxy;
  }

  close() {
    this.#peers.forEach(peer => peer.client.disconnect());
    this.#proxies.forEach(proxy => proxy.close());
  }
}

/** A backend's token endpoint: returns the given tokens one after the other, and then the last one repeatedly.
 *
 * An Error in the list is thrown instead. `asked` counts the calls. */
export class Tokens {
  asked = 0;
  #tokens;
  #changes = new EventEmitter();

  constructor(...tokens) {
    this.#tokens = tokens;
  }

  async waitAsked(number) {
    const signal = AbortSignal.timeout(WAIT_DEADLINE_MS);
    while (this.asked < number) {
      await once(this.#changes, 'change', { signal });
    }
  }

  get = async () => {
    const token = this.#tokens[Math.min(this.asked, this.#tokens.length - 1)];
    this.asked += 1;
    this.#changes.emit('change');
    if (token instanceof Error) {
      throw token;
    }
    return token();
  };
}
