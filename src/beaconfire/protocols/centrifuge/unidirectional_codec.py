"""The unidirectional Centrifuge protocol (section 16): the client sends one connect request and then only receives.

Pushes are not wrapped in replies. The first message is `{"connect":{…}}`. An empty message is a ping without a pong.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from beaconfire.base.errors import CommandError
from beaconfire.model.pushes import (
    DisconnectPush,
    MessagePush,
    Push,
    RefreshPush,
)
from beaconfire.protocols.centrifuge.fields import PUSHES, RESULTS
from beaconfire.protocols.centrifuge.json_codec import JsonCodec, encode_message
from beaconfire.protocols.centrifuge.json_messages import push_body, result_body
from beaconfire.protocols.centrifuge.requests import Command, ConnectRequest
from beaconfire.protocols.centrifuge.results import Result
from beaconfire.protocols.json_payload import NotJSONError, decode_json
from beaconfire.protocols.port import Payload, ProtocolError

_NO_CHANNEL: Final = (MessagePush, DisconnectPush, RefreshPush)
_CONNECT: Final = 1
"""The `ref` of the connect command, the only command of a session."""

_check_object: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class UnidirectionalCodec:
    """The codec `centrifuge-unidirectional`. JSON only."""

    name: Final = "centrifuge-unidirectional"
    separator: Final = b"\n"

    def __init__(self) -> None:
        self._bidirectional = JsonCodec()

    def decode(self, data: bytes, binary: bool) -> Sequence[Command]:
        """Decodes a connect request. An empty body is a connect request without fields. Raises ProtocolError."""
        if not data.strip():
            return (Command(_CONNECT, ConnectRequest()),)
        try:
            # `data` must be one object. Otherwise it could inject further fields or commands into the text below.
            decode_json(_check_object, data)
        except NotJSONError as error:
            raise ProtocolError(f"the connect request is not a JSON object: {error}") from None
        return self._bidirectional.decode(b'{"id":%d,"connect":%b}' % (_CONNECT, data), binary)

    def encode_reply(self, ref: object, result: Result) -> Payload:
        """Raises PayloadError if a payload in the result is not JSON."""
        return encode_message({RESULTS[type(result)]: result_body(result)})

    def encode_error(self, ref: object, error: CommandError, detail: str) -> Payload:
        raise AssertionError("a unidirectional client is disconnected instead of getting an error reply")

    def encode_push(self, push: Push) -> Payload:
        """Raises PayloadError if a payload in the push is not JSON."""
        body: dict[str, object] = {PUSHES[type(push)]: push_body(push)}
        return encode_message(body if isinstance(push, _NO_CHANNEL) else {"channel": push.channel, **body})

    def encode_ping(self) -> Payload:
        return self._bidirectional.encode_ping()
