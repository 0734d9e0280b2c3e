// What a check gets to work with, and the list of all checks.

import { EventEmitter, once } from 'node:events';
import { connectionToken, subscriptionToken } from './backend.js';
import { Link } from './link.js';
import { Peer, WAIT_DEADLINE_MS } from './peer.js';

/** Every check by its name in `tests.acceptance.sdk.checks`. */
export const CHECKS = new Map();

/** Registers a check under its name. */
export function check(name, run) {
  CHECKS.set(name, run);
}

/** The stage of one check: its own channels and users, so that all checks of all runs can share a server. */
export class Scene {
  #peers = [];
  #links = [];

  constructor(name, way, reference, hasty) {
    const [codec, transport = 'websocket'] = way.split('-').reverse();
    this.name = name;
    this.protobuf = codec === 'protobuf';
    this.transport = transport;
    this.backend = reference;
    this.hasty = hasty;
  }

  /** A channel without a namespace: it needs a subscription token, and keeps history and presence. */
  get channel() {
    return this.name;
  }

  /** A channel of the namespace that keeps two publications and needs no token. */
  get small() {
    return `small:${this.name}`;
  }

  /** A channel of the namespace with deltas and filters, which needs no token either. */
  get prices() {
    return `prices:${this.name}`;
  }

  user(name) {
    return `${name}@${this.name}`;
  }

  /** A client that has not connected yet. Without options about tokens it has a good one. */
  peer(name = 'ann', { port = this.backend.port, protobuf = this.protobuf, ...options } = {}) {
    const tokens = 'token' in options || 'getToken' in options ? {} : { token: connectionToken(this.user(name)) };
    // Server-Sent Events are text: who speaks Protobuf in such a scene comes by WebSocket.
    const transport = protobuf && this.transport === 'sse' ? 'websocket' : this.transport;
    const peer = new Peer(port, protobuf, transport, { ...tokens, ...options });
    this.#peers.push(peer);
    return peer;
  }

  connected(name = 'ann', options = {}) {
    return this.peer(name, options).connect();
  }

  /** A subscription token for one of this scene's users. */
  token(name = 'ann', { channel = this.channel, ...claims } = {}) {
    return subscriptionToken(this.user(name), channel, claims);
  }

  /** A connected client's subscription to the scene's channel, or to another one. */
  async joined(name = 'ann', { channel = this.channel, ...options } = {}) {
    const peer = await this.connected(name, options);
    return peer.subscribe(channel, { token: this.token(name, { channel }) });
  }

  async link(backend = this.backend) {
    const link = await Link.open(backend.port);
    this.#links.push(link);
    return link;
  }

  close() {
    this.#peers.forEach(peer => peer.client.disconnect());
    this.#links.forEach(link => link.close());
  }
}

/** A backend's token endpoint: hands out the given tokens one after the other, the last one again and again.
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
