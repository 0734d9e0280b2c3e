"""Ids of Server-Sent Events, from which a client recovers when it reconnects.

An `EventSource` sends the last id that it received as `Last-Event-ID` when it reconnects (HTML standard, section
9.2.3). Our ids contain the position in every channel that can be recovered. The last event of each write has the id,
because a browser ignores an event whose end it has not received. If the connection breaks within a write, the earlier
events of that write are sent again: nothing is lost, and the client recognizes repeated publications by their offsets.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from beaconfire.protocols.json_payload import NotJSONError, decode_json

ID_BYTES_MAX: Final = 8 * 1024
"""An id must fit into a request head. Larger ids are not sent; the client then resumes from an earlier id."""

_Position = tuple[int, str]
_Offset = Annotated[int, Meta(ge=0, le=2**63 - 1)]
"""The offsets of engines. An id with another number is not ours, and in a request it would cause a final error."""

_decode_id: Final = msgspec.json.Decoder(dict[str, tuple[_Offset, str]]).decode
_decode_object: Final = msgspec.json.Decoder(dict[str, Any]).decode


def event_id(data: bytes, positions: Mapping[str, _Position]) -> bytes:
    """Adds an id to the last event of `data`, which are whole events. `positions` are offset and epoch by channel."""
    if not positions:
        return data
    text = json.dumps(positions, separators=(",", ":"))  # ASCII, because it returns in a header
    if len(text) > ID_BYTES_MAX:
        return data
    return b"%bid: %b\n\n" % (data[:-1], text.encode())


def resume(connect_request: bytes, last_id: str) -> bytes:
    """Adds the positions of `last_id` to a connect request.

    An id that `event_id` cannot have made is ignored: our ids contain, by channel, an offset from 0 to 2⁶³-1 and an
    epoch. Positions in the request itself are older than the id and are replaced.
    """
    try:
        positions = decode_json(_decode_id, last_id.encode())
        request = decode_json(_decode_object, connect_request or b"{}")
    except NotJSONError:
        return connect_request  # the protocol reports what is wrong with a request
    requested = request.get("subs")
    subs = dict(requested) if isinstance(requested, dict) else {}
    for channel, (offset, epoch) in positions.items():
        entry = subs.get(channel)
        other_fields = entry if isinstance(entry, dict) else {}  # perhaps a token
        subs[channel] = {**other_fields, "recover": True, "offset": offset, "epoch": epoch}
    return msgspec.json.encode({**request, "subs": subs})
