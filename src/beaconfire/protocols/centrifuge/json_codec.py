"""The Centrifuge protocol in JSON (sections 2.2 and 3): one object per message, line breaks between messages, payloads
embedded without re-encoding.

Fields with a zero value are omitted, except those without a default in `beaconfire.model`. An empty result is `{}`. An
empty reply is a ping.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Raw

from beaconfire.base.errors import CommandError, PayloadError
from beaconfire.model.pushes import (
    DisconnectPush,
    MessagePush,
    Push,
    RefreshPush,
)
from beaconfire.protocols.centrifuge.fields import PUSHES, RESULTS, error_message
from beaconfire.protocols.centrifuge.json_messages import decode_commands, push_body, read_command, result_body
from beaconfire.protocols.centrifuge.requests import Command
from beaconfire.protocols.centrifuge.results import PublishResult, Result
from beaconfire.protocols.json_payload import NotJSONError, check_json, decode_json
from beaconfire.protocols.port import Payload, ProtocolError

_PING: Final = Payload(b"{}")
_NO_CHANNEL: Final = (MessagePush, DisconnectPush, RefreshPush)

_NULL: Final = Raw(b"null")

_encode: Final = msgspec.json.Encoder().encode

# In valid JSON a raw line break is white space, so it can become a space. Inside a payload it would cut the message in
# two: LF separates messages on all transports, and CR ends a line of an event stream (SSE).
_LINE_BREAKS: Final = bytes.maketrans(b"\r\n", b"  ")


class JsonCodec:
    """The codec `centrifuge-json`. `ref` is the id of the command, an int above 0."""

    name: Final = "centrifuge-json"
    separator: Final = b"\n"

    def decode(self, data: bytes, binary: bool) -> Sequence[Command]:
        """See `Codec.decode`. Accepts text and binary frames. Payloads are copies. Unknown fields are ignored.

        Raises ProtocolError for anything other than one or more JSON objects, for a number outside of the range of its
        field, and for a command with an id but without a known request.
        """
        try:
            commands = decode_json(decode_commands, data)
        except NotJSONError as error:
            raise ProtocolError(f"the frame is not a series of JSON commands: {error}") from None
        if not commands:
            raise ProtocolError("an empty frame")
        if len(commands) == 1:  # The most frequent case.
            return (read_command(commands[0]),)
        return [read_command(command) for command in commands]

    def encode_reply(self, ref: object, result: Result) -> Payload:
        """Raises PayloadError if a payload in the result is not JSON."""
        if type(result) is PublishResult:  # The most frequent result, and always empty in this protocol.
            assert isinstance(ref, int)
            return Payload(b'{"id":%d,"publish":{}}' % ref)
        return encode_message({"id": ref, RESULTS[type(result)]: result_body(result)})

    def encode_error(self, ref: object, error: CommandError, detail: str) -> Payload:
        """`detail` is appended to the message after a colon, because the protocol has no field for it."""
        body: dict[str, object] = {"code": error.code.code, "message": error_message(error.code, detail)}
        if error.code.temporary:
            body["temporary"] = True
        return encode_message({"id": ref, "error": body})

    def encode_push(self, push: Push) -> Payload:
        """Raises PayloadError if a payload in the push is not JSON."""
        body: dict[str, object] = {PUSHES[type(push)]: push_body(push)}
        return encode_message({"push": body if isinstance(push, _NO_CHANNEL) else {"channel": push.channel, **body}})

    def encode_ping(self) -> Payload:
        return _PING

    def delta_text(self, data: Raw) -> Raw:
        """The JSON text, or `null` for an empty payload, because the client decodes the text. Raises PayloadError."""
        return check_json(data) or _NULL

    def delta_data(self, text: bytes) -> Raw | None:
        """Always a JSON string (section 11). None for a patch that cuts a character in two and so is not UTF-8."""
        try:
            return Raw(_encode(text.decode()))
        except UnicodeDecodeError:
            return None


def encode_message(message: dict[str, object]) -> Payload:
    """Encodes a message on one line. Raises PayloadError for a string that is not valid Unicode."""
    try:
        data = _encode(message)
    except UnicodeEncodeError as error:
        raise PayloadError(f"a text is not Unicode: {error.reason}") from None
    if b"\n" in data or b"\r" in data:
        data = data.translate(_LINE_BREAKS)
    return Payload(data)
