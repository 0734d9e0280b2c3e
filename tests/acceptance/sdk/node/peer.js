// SDK clients that record all events, so that a check can wait for the expected ones.

import assert from 'node:assert/strict';
import { EventEmitter, once } from 'node:events';
import { inspect } from 'node:util';
import { Centrifuge as JsonCentrifuge } from 'centrifuge';
import { Centrifuge as ProtobufCentrifuge } from 'centrifuge/build/protobuf';
import WebSocket from 'ws';

export const WAIT_DEADLINE_MS = 10_000;

const CLIENT_EVENTS = [
  'connecting', 'connected', 'disconnected', 'error', 'message',
  'subscribing', 'subscribed', 'unsubscribed', 'publication', 'join', 'leave',
];
const ROOM_EVENTS = ['subscribing', 'subscribed', 'unsubscribed', 'publication', 'join', 'leave', 'error'];

/** The events of a client or a subscription, in their order. */
class EventLog {
  entries = [];
  #changes = new EventEmitter();

  constructor(emitter, kinds) {
    for (const kind of kinds) {
      emitter.on(kind, context => {
        this.entries.push([kind, context]);
        this.#changes.emit('change');
      });
    }
  }

  all(...kinds) {
    return this.entries.filter(([kind]) => kinds.includes(kind)).map(([, context]) => context);
  }

  /** The `number`th entry of this kind (or these) with these fields, once it is there. */
  async wait(kinds, { number = 1, ...fields } = {}) {
    const deadline = AbortSignal.timeout(WAIT_DEADLINE_MS);
    const fits = context => Object.entries(fields).every(([name, value]) => context[name] === value);
    for (;;) {
      const found = this.all(...[kinds].flat()).filter(fits);
      if (found.length >= number) {
        return found[number - 1];
      }
      try {
        await once(this.#changes, 'change', { signal: deadline });
      } catch {
        const recorded = inspect(this.entries, { depth: 4, breakLength: 120 });
        throw new Error(`waited for ${kinds} ${number} ${inspect(fields)}; recorded: ${recorded}`);
      }
    }
  }
}

/** A subscription with its event log. */
export class Room {
  constructor(peer, channel, options) {
    this.peer = peer;
    this.channel = channel;
    this.subscription = peer.client.newSubscription(channel, {
      minResubscribeDelay: 50, maxResubscribeDelay: 200, ...options,
    });
    this.eventLog = new EventLog(this.subscription, ROOM_EVENTS);
  }

  async publish(value) {
    await this.subscription.publish(this.peer.encode(value));
  }

  /** The values of all publications so far. */
  published() {
    return this.eventLog.all('publication').map(publication => this.peer.decode(publication.data));
  }

  /** Waits for as many publications as `values`. They must be equal to `values`, in this order. */
  async waitPublications(...values) {
    await this.eventLog.wait('publication', { number: values.length });
    assert.deepEqual(this.published(), values);
  }
}

/** An SDK client with its event log. */
export class Peer {
  #protobuf;

  constructor(port, protobuf, transport, options) {
    this.#protobuf = protobuf;
    const Centrifuge = protobuf ? ProtobufCentrifuge : JsonCentrifuge;
    const http = `http://127.0.0.1:${port}`;
    const endpoint = transport === 'websocket'
      ? `ws://127.0.0.1:${port}/connection/websocket`
      : [{ transport, endpoint: `${http}/connection/${transport}` }];
    this.client = new Centrifuge(endpoint, {
      websocket: WebSocket, emulationEndpoint: `${http}/emulation`,
      minReconnectDelay: 50, maxReconnectDelay: 200, ...options,
    });
    this.eventLog = new EventLog(this.client, CLIENT_EVENTS);
  }

  /** A payload as the codec wants it. */
  encode(value) {
    return this.#protobuf ? new TextEncoder().encode(JSON.stringify(value)) : value;
  }

  decode(payload) {
    return payload instanceof Uint8Array ? JSON.parse(new TextDecoder().decode(payload)) : payload;
  }

  get id() {
    return this.eventLog.all('connected').at(-1).client;
  }

  /** Resolves once it is connected. */
  async connect() {
    this.client.connect();
    await this.eventLog.wait('connected');
    return this;
  }

  room(channel, options = {}) {
    return new Room(this, channel, options);
  }

  /** Resolves once it is subscribed. */
  async subscribe(channel, options = {}) {
    const room = this.room(channel, options);
    room.subscription.subscribe();
    await room.eventLog.wait('subscribed');
    return room;
  }

  /** The event that tells why the connection ended. */
  waitLost(code) {
    return this.eventLog.wait(['connecting', 'disconnected'], { code });
  }

  /** The event of an end for good; nothing may have been tried after it. */
  async waitRefused(code) {
    const context = await this.eventLog.wait('disconnected', { code });
    assert.equal(this.client.state, 'disconnected');
    return context;
  }

  /** Commands sent together with whatever `call` makes the SDK send, in one frame. */
  batch(call) {
    this.client.startBatching();
    try {
      return call();
    } finally {
      this.client.stopBatching();
    }
  }
}

/** The error code of the server's refusal. Rejects if it does not. */
export async function refusal(promise) {
  try {
    await promise;
  } catch (error) {
    return error.code;
  }
  throw new Error('the server accepted it');
}
