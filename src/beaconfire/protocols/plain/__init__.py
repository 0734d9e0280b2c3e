"""The plain protocol: JSON objects with a `type`, for clients without an SDK; see `docs/protocols/plain.md`.

`client_messages` decodes messages of clients, `server_messages` encodes replies and pushes, and `lobby` converts frames
that are no message of the protocol to publications and back. `connection` runs the commands.
"""
