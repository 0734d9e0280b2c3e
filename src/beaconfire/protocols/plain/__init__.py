"""The plain protocol: JSON objects with a `type` that ten lines of JavaScript can speak; see `docs/protocols/plain.md`.

`requests` turns what clients send into commands, `answers` turns results and pushes into JSON, and `lobby` carries
frames that are no message of the protocol through a channel and back. `PlainCodec` puts the three together.
"""

from __future__ import annotations

from collections.abc import Sequence

from beaconfire.base.errors import CommandError
from beaconfire.model.pushes import PublicationPush, Push
from beaconfire.model.requests import Command
from beaconfire.model.results import Result
from beaconfire.protocols.plain import answers, lobby, requests
from beaconfire.protocols.port import Payload

__all__ = ["PlainCodec"]


class PlainCodec:
    """Implements `protocols.base.Codec`. One message per frame, in both directions.

    `lobby_channel` is the channel that carries frames which are no message of the protocol; with None they are
    answered with an error. No input is fatal: whatever a client sends, `decode` returns exactly one command.
    """

    name = "plain"
    separator: bytes | None = None
    app_pings = False

    def __init__(self, lobby_channel: str | None) -> None:
        self._lobby_channel = lobby_channel

    def decode(self, data: bytes, binary: bool) -> Sequence[Command]:
        """The one command of this frame; its ref is None for a lobby frame, which has no answer. Never raises."""
        return (requests.read(data, binary, lobby=self._lobby_channel is not None),)

    def encode_reply(self, ref: object, result: Result) -> Payload:
        assert isinstance(ref, requests.Ref), "only commands with a ref are answered"
        return Payload(answers.write_result(ref, result))

    def encode_error(self, ref: object, error: CommandError, detail: str) -> Payload:
        """What was malformed is always told: it is the client's own message, and its author may have no SDK to ask."""
        assert isinstance(ref, requests.Ref), "only commands with a ref are answered"
        return Payload(answers.write_error(ref, error, error.detail if ref.malformed else detail))

    def encode_push(self, push: Push) -> Payload:
        """As `answers.write_push`; a frame of the lobby becomes the very bytes its sender sent."""
        if type(push) is PublicationPush and push.channel == self._lobby_channel:
            frame = lobby.unwrap(push.pub)
            if frame is not None:
                return frame
        return Payload(answers.write_push(push))

    def encode_ping(self) -> Payload:
        raise AssertionError("the plain protocol is kept alive by the transport's own pings")
