"""The encoding of pushes in the plain protocol."""

from __future__ import annotations

from beaconfire.model.pushes import PublicationPush, Push
from beaconfire.protocols.plain import lobby, server_messages
from beaconfire.protocols.port import Payload


class PlainCodec:
    """The codec `plain`. Each frame holds one message.

    `lobby_channel` is the channel in which frames that are no message of the protocol are published, or None.
    """

    name = "plain"
    separator: bytes | None = None

    def __init__(self, lobby_channel: str | None) -> None:
        self.lobby_channel = lobby_channel

    def encode_push(self, push: Push) -> Payload:
        """See `server_messages.encode_push`. A lobby frame becomes the same bytes that its sender sent."""
        if type(push) is PublicationPush and push.channel == self.lobby_channel:
            frame = lobby.unwrap(push.pub)
            if frame is not None:
                return frame
        return Payload(server_messages.encode_push(push))
