"""A protocol for tests, with everything that the protocols of the server do not have.

Events with acknowledgements, client ids that clients choose, pings of the client, a goodbye of the server, messages
that span messages of the transport, and sessions that outlive a transport.

Each message is a map in MessagePack after its length in four bytes, big-endian. A message of the transport may hold
several messages of the protocol, and any part of one. See `messages` for what client and server send.
"""
