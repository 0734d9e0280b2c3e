"""The messages of a load test: their data, and shortcuts for the two messages that are sent and received most often.

Everything else goes through the client codecs of `protocols.centrifuge`. The shortcuts give the same results (tested
with random messages); without them, one process could load a server less.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec
from msgspec import Raw

from beaconfire.protocols.centrifuge.client_codec import ClientCodec
from beaconfire.protocols.centrifuge.client_json import ClientJsonCodec
from beaconfire.protocols.centrifuge.client_protobuf import ClientProtobufCodec
from beaconfire.protocols.centrifuge.requests import PublishRequest

DATA: Final = re.compile(rb'\{"t":(\d{1,20}),"n":(\d{1,20}),"x":"')
"""How the data of a load test message begins: the time at which it was due (monotonic, nanoseconds), and its number.

Payloads are embedded verbatim in both encodings. So a search in the encoded push finds the data, and the push needs no
decoding. That saves about 1 µs (JSON) or 4 µs (Protobuf) per received publication.
"""


def encode_data(due_ns: int, message: int, size_bytes: int) -> bytes:
    """The data of one message: JSON of exactly `size_bytes`, if that is at least `plan.PAYLOAD_BYTES_MIN`."""
    head = b'{"t":%d,"n":%d,"x":"' % (due_ns, message)
    return head + b"x" * (size_bytes - len(head) - 2) + b'"}'


class Encoding(NamedTuple):
    """A client codec with its shortcuts.

    `encode_publish(number, channel, data)` is a publish command. `publish_succeeded` matches a whole encoded reply if
    and only if the reply is the result of a publish command, which needs no decoding: it holds nothing to count.
    """

    codec: ClientCodec
    encode_publish: Callable[[int, str, bytes], bytes]
    publish_succeeded: re.Pattern[bytes]


_encode_text: Final = msgspec.json.Encoder().encode


def _encode_json_publish(number: int, channel: str, data: bytes) -> bytes:
    """Saves about 1 µs per message: no request struct, and no search for line breaks, which our data lacks."""
    return b'{"id":%d,"publish":{"channel":%s,"data":%s}}' % (number, _encode_text(channel), data)


_protobuf: Final = ClientProtobufCodec()


def _encode_protobuf_publish(number: int, channel: str, data: bytes) -> bytes:
    return _protobuf.encode(number, PublishRequest(channel, Raw(data)))


# A regular expression needs 0.2 µs for such a reply; the codecs need 0.8 µs (JSON) or 3 µs (Protobuf).
JSON: Final = Encoding(ClientJsonCodec(), _encode_json_publish, re.compile(rb'\{"id":[1-9]\d*,"publish":\{\}\}'))
# Field 1 is the id, a varint. Field 8 is the publish result, of length 0.
PROTOBUF: Final = Encoding(
    _protobuf, _encode_protobuf_publish, re.compile(rb"\x08[\x80-\xff]{0,4}[\x01-\x7f]\x42\x00", re.DOTALL)
)
