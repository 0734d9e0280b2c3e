"""The native protocol for clients that only listen: pushes as they are, without replies around them (section 16).

The first message is `{"connect":{…}}`, an empty one is a ping that wants no answer. The client says one thing, a
connect request, before everything else.
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
from beaconfire.model.requests import Command, ConnectRequest
from beaconfire.model.results import Result
from beaconfire.protocols.centrifuge.fields import PUSHES, RESULTS
from beaconfire.protocols.centrifuge.json_codec import JsonCodec, encode_message
from beaconfire.protocols.centrifuge.json_messages import push_body, result_body
from beaconfire.protocols.json_payload import NotJSONError, read
from beaconfire.protocols.port import Payload, ProtocolError

_NO_CHANNEL: Final = (MessagePush, DisconnectPush, RefreshPush)
_CONNECT: Final = 1
"""The `ref` of the only command."""

_check_object: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class UnidirectionalCodec:
    """`protocols.base.Codec` of `centrifuge-unidirectional`. JSON only, stateless."""

    name: Final = "centrifuge-unidirectional"
    separator: Final = b"\n"
    app_pings: Final = True

    def __init__(self) -> None:
        self._bidirectional = JsonCodec()

    def decode(self, data: bytes, binary: bool) -> Sequence[Command]:
        """A connect request; nothing at all asks for nothing special. Raises ProtocolError."""
        if not data.strip():
            return (Command(_CONNECT, ConnectRequest()),)
        try:
            read(_check_object, data)  # or what follows could be made to say more than one thing
        except NotJSONError as error:
            raise ProtocolError(f"the connect request is no JSON object: {error}") from None
        return self._bidirectional.decode(b'{"id":%d,"connect":%b}' % (_CONNECT, data), binary)

    def encode_reply(self, ref: object, result: Result) -> Payload:
        """Raises PayloadError if a payload in the result is not JSON."""
        return encode_message({RESULTS[type(result)]: result_body(result)})

    def encode_error(self, ref: object, error: CommandError, detail: str) -> Payload:
        raise AssertionError("whoever only listens is disconnected instead")

    def encode_push(self, push: Push) -> Payload:
        """Raises PayloadError if a payload in the push is not JSON."""
        body: dict[str, object] = {PUSHES[type(push)]: push_body(push)}
        return encode_message(body if isinstance(push, _NO_CHANNEL) else {"channel": push.channel, **body})

    def encode_ping(self) -> Payload:
        return self._bidirectional.encode_ping()
