"""The native protocol in JSON: one object per message, line breaks between messages, payloads embedded verbatim.

Sections 2.2 and 3 of the protocol. Zero values are left out except where `beaconfire.messages` has no default, an
empty result is still there as `{}`, and an empty reply is a ping.
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
from beaconfire.model.requests import Command
from beaconfire.model.results import PublishResult, Result
from beaconfire.protocols.centrifuge.fields import PUSHES, RESULTS, error_message
from beaconfire.protocols.centrifuge.json_messages import decode_commands, push_body, read_command, result_body
from beaconfire.protocols.json_payload import NotJSONError, embeddable, read
from beaconfire.protocols.port import Payload, ProtocolError

_PING: Final = Payload(b"{}")
_NO_CHANNEL: Final = (MessagePush, DisconnectPush, RefreshPush)

_NULL: Final = Raw(b"null")

_encode: Final = msgspec.json.Encoder().encode

# In valid JSON a raw line break is white space. One inside a payload would cut the message in two: LF separates
# messages on every transport, and for an event stream CR does as well.
_LINE_BREAKS: Final = bytes.maketrans(b"\r\n", b"  ")


class JsonCodec:
    """`protocols.base.Codec` of `centrifuge-json`. Stateless. `ref` is the command's id, an int above 0."""

    name: Final = "centrifuge-json"
    separator: Final = b"\n"
    app_pings: Final = True

    def decode(self, data: bytes, binary: bool) -> Sequence[Command]:
        """Payloads are copies and own their bytes. The kind of frame does not matter.

        Raises ProtocolError for anything but one or more JSON objects, for a number outside of its field's range,
        and for a command with an id that asks for nothing known. Unknown fields are skipped.
        """
        try:
            commands = read(decode_commands, data)
        except NotJSONError as error:
            raise ProtocolError(f"the frame is not a series of JSON commands: {error}") from None
        if not commands:
            raise ProtocolError("an empty frame")
        if len(commands) == 1:  # nearly always
            return (read_command(commands[0]),)
        return [read_command(command) for command in commands]

    def encode_reply(self, ref: object, result: Result) -> Payload:
        """Raises PayloadError if a payload in the result is not JSON."""
        if type(result) is PublishResult:  # the most frequent one, and always empty in this protocol
            assert isinstance(ref, int)
            return Payload(b'{"id":%d,"publish":{}}' % ref)
        return encode_message({"id": ref, RESULTS[type(result)]: result_body(result)})

    def encode_error(self, ref: object, error: CommandError, detail: str) -> Payload:
        """`detail`, if any, is appended to the message after a colon: the protocol has no field for it."""
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
        """The JSON text; `null` for an empty payload, since the client will read it as JSON. Raises PayloadError."""
        return embeddable(data) or _NULL

    def delta_data(self, text: bytes) -> Raw | None:
        """A JSON string, always. A patch may have cut a character in two; then it is no text and cannot be one."""
        try:
            return Raw(_encode(text.decode()))
        except UnicodeDecodeError:
            return None


def encode_message(message: dict[str, object]) -> Payload:
    """One message, on one line. Raises PayloadError."""
    try:
        data = _encode(message)
    except UnicodeEncodeError as error:
        raise PayloadError(f"a text is not Unicode: {error.reason}") from None
    if b"\n" in data or b"\r" in data:
        data = data.translate(_LINE_BREAKS)
    return Payload(data)
