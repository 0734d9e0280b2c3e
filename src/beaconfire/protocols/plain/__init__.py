"""The plain protocol: JSON objects with a `type`, for clients without an SDK; see `docs/protocols/plain.md`.

`client_messages` decodes messages of clients to commands. `server_messages` encodes results, errors and pushes.
`lobby` converts frames that are no message of the protocol to publications and back. `PlainCodec` combines the three.
"""

from __future__ import annotations

from collections.abc import Sequence

from beaconfire.base.errors import CommandError
from beaconfire.model.pushes import PublicationPush, Push
from beaconfire.model.requests import Command
from beaconfire.model.results import Result
from beaconfire.protocols.plain import client_messages, lobby, server_messages
from beaconfire.protocols.port import Payload

__all__ = ["PlainCodec"]


class PlainCodec:
    """The codec `plain`. Each frame holds one message, in both directions.

    `lobby_channel` is the channel in which frames that are no message of the protocol are published. If it is None,
    such frames are answered with an error. No input ends the session: `decode` returns exactly one command for any
    frame.
    """

    name = "plain"
    separator: bytes | None = None
    app_pings = False

    def __init__(self, lobby_channel: str | None) -> None:
        self._lobby_channel = lobby_channel

    def decode(self, data: bytes, binary: bool) -> Sequence[Command]:
        """Returns exactly one command. Its `ref` is None for a lobby frame, which has no reply. Never raises."""
        return (client_messages.decode(data, binary, lobby=self._lobby_channel is not None),)

    def encode_reply(self, ref: object, result: Result) -> Payload:
        assert isinstance(ref, client_messages.Ref), "only commands with a ref are answered"
        return Payload(server_messages.encode_result(ref, result))

    def encode_error(self, ref: object, error: CommandError, detail: str) -> Payload:
        """The detail of a malformed message is always included: it describes only the client's own message, and there
        is no SDK that would check the message."""
        assert isinstance(ref, client_messages.Ref), "only commands with a ref are answered"
        return Payload(server_messages.encode_error(ref, error, error.detail if ref.malformed else detail))

    def encode_push(self, push: Push) -> Payload:
        """See `server_messages.encode_push`. A lobby frame becomes the same bytes that its sender sent."""
        if type(push) is PublicationPush and push.channel == self._lobby_channel:
            frame = lobby.unwrap(push.pub)
            if frame is not None:
                return frame
        return Payload(server_messages.encode_push(push))

    def encode_ping(self) -> Payload:
        raise AssertionError("the plain protocol uses the pings of the transport")
