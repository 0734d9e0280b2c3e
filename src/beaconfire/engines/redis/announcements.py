"""The bytes of publications, joins and leaves: in streams, and in what the server announces.

The first byte of an announcement is its kind. A publication of a stream follows as `offset:epoch:previous:body`, which
the script has written. A body is what the stream keeps: the nonce of the publish, `NONCE_BYTES` long, and a
msgpack array.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec
from msgspec import Raw, Struct

from beaconfire.engines.port import BrokerEvents, MemberChange, PublishOptions
from beaconfire.engines.wire.messages import Change, Info
from beaconfire.engines.wire.values import data_of, from_info, to_info
from beaconfire.model.publication import ClientInfo, Publication, to_payload

NONCE_BYTES: Final = 12

STORED: Final = b"p"
UNSTORED: Final = b"n"
CHANGES: Final = b"c"


class Body(Struct, array_like=True, gc=False):
    """A publication without its position. `exclude` and `delta` are used by its announcement only."""

    data: bytes
    info: Info | None
    tags: Mapping[str, str] | None
    exclude: Sequence[str] = ()
    delta: bool = False


_encode: Final[Callable[[object], bytes]] = msgspec.msgpack.Encoder().encode
_decode_body: Final[Callable[[bytes | memoryview], Body]] = msgspec.msgpack.Decoder(Body).decode
_decode_changes: Final[Callable[[bytes | memoryview], list[Change]]] = msgspec.msgpack.Decoder(list[Change]).decode


def encode_body(data: Raw, options: PublishOptions, info: ClientInfo | None, tags: Mapping[str, str] | None) -> bytes:
    """The body without the nonce."""
    return _encode(
        Body(data_of(data), None if info is None else to_info(info), tags or None, options.exclude, options.delta)
    )


def encode_changes(changes: Sequence[MemberChange]) -> bytes:
    """The announcement of joins and leaves."""
    return CHANGES + _encode([Change(change.joined, to_info(change.info)) for change in changes])


def to_publication(body: memoryview, offset: int, epoch: str) -> Publication:
    """The publication of a body without its nonce, in the stream of this epoch."""
    return _publication(_decode_body(body), offset, epoch if offset == 1 else "")


def _publication(body: Body, offset: int, epoch: str) -> Publication:
    info = body.info
    tags = body.tags
    return Publication(
        to_payload(body.data),
        None if info is None else from_info(info),
        offset,
        None if tags is None else dict(tags),
        epoch,
    )


def tell(events: BrokerEvents, channel: str, announcement: bytes) -> None:
    """Passes an announcement on. Raises ValueError if the bytes are none."""
    kind = announcement[:1]
    if kind == STORED:
        head, epoch_bytes, previous, body = announcement.split(b":", 3)
        offset, epoch = int(head[1:]), epoch_bytes.decode()
        decoded = _decode_body(memoryview(body)[NONCE_BYTES:])
        publication = _publication(decoded, offset, epoch if offset == 1 else "")
        events.on_publication(channel, publication, epoch, int(previous), decoded.exclude, decoded.delta)
    elif kind == UNSTORED:
        decoded = _decode_body(memoryview(announcement)[1:])
        events.on_publication(channel, _publication(decoded, 0, ""), "", 0, decoded.exclude, decoded.delta)
    elif kind == CHANGES:
        for change in _decode_changes(memoryview(announcement)[1:]):
            (events.on_join if change.joined else events.on_leave)(channel, from_info(change.info))
    else:
        raise ValueError(f"an announcement of kind {kind!r}")
