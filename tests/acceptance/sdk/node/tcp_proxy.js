// A TCP proxy between a client and the server that can interrupt connections.

import { once } from 'node:events';
import { connect, createServer } from 'node:net';

/** Forwards bytes in both directions on `port`. */
export class TcpProxy {
  #wires = new Set();
  #isCut = false;
  #server;

  /** A proxy to a port of this machine. */
  static async open(serverPort) {
    const proxy = new TcpProxy();
    proxy.#server = createServer(client => proxy.#carry(client, serverPort));
    proxy.#server.listen(0, '127.0.0.1');
    await once(proxy.#server, 'listening');
    proxy.port = proxy.#server.address().port;
    return proxy;
  }

  /** Resets every connection, and refuses new ones until `restore`. */
  cut() {
    this.#isCut = true;
    for (const { client, server } of this.#wires) {
      client.resetAndDestroy();
      server.resetAndDestroy();
    }
    this.#wires.clear();
  }

  restore() {
    this.#isCut = false;
  }

  /** Silently drops all data of the existing connections to the server, to the client, or both. */
  mute({ upstream = false, downstream = false }) {
    for (const wire of this.#wires) {
      wire.upstreamMuted ||= upstream;
      wire.downstreamMuted ||= downstream;
    }
  }

  close() {
    this.cut();
    this.#server.close();
  }

  #carry(client, serverPort) {
    if (this.#isCut) {
      client.resetAndDestroy();
      return;
    }
    const server = connect(serverPort, '127.0.0.1');
    const wire = { client, server, upstreamMuted: false, downstreamMuted: false };
    this.#wires.add(wire);
    client.on('data', data => wire.upstreamMuted || server.write(data));
    server.on('data', data => wire.downstreamMuted || client.write(data));
    // A muted direction does not forward the end either. This is a half-open connection.
    client.on('close', () => wire.upstreamMuted || server.end());
    server.on('close', () => wire.downstreamMuted || client.end());
    // Resets are expected; 'close' follows.
    client.on('error', () => {});
    server.on('error', () => {});
  }
}
