// A wire that can be cut: a TCP proxy between a client and the server, on this machine.

import { once } from 'node:events';
import { connect, createServer } from 'node:net';

/** Carries bytes both ways on `port`, until told otherwise. Nobody at either end is told why. */
export class Link {
  #wires = new Set();
  #isCut = false;
  #server;

  /** A link to a port of this machine. */
  static async open(serverPort) {
    const link = new Link();
    link.#server = createServer(client => link.#carry(client, serverPort));
    link.#server.listen(0, '127.0.0.1');
    await once(link.#server, 'listening');
    link.port = link.#server.address().port;
    return link;
  }

  /** Every connection is reset, and new ones are refused until `mend`. */
  cut() {
    this.#isCut = true;
    for (const { client, server } of this.#wires) {
      client.resetAndDestroy();
      server.resetAndDestroy();
    }
    this.#wires.clear();
  }

  mend() {
    this.#isCut = false;
  }

  /** From now on the connections that exist lose what goes to the server, to the client, or both, silently. */
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
    // A muted direction keeps even its end to itself: that is what a half-open connection is.
    client.on('close', () => wire.upstreamMuted || server.end());
    server.on('close', () => wire.downstreamMuted || client.end());
    // Resets are what this is for; 'close' follows.
    client.on('error', () => {});
    server.on('error', () => {});
  }
}
