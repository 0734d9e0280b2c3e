"""Where a listener is, told in the ids of its events and taken from them when it comes back.

An `EventSource` sends the last id it saw as `Last-Event-ID` when it connects again (HTML standard, section 9.2.3). An
id here names the position in every channel that can be recovered. It stands with the last event of a write, as what a
browser has of an event whose end it has not seen does not count. A cut within a write repeats what came before in that
write; nothing is lost, and offsets tell what is repeated.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from beaconfire.protocols.json_payload import NotJSONError, decode_json
from beaconfire.protocols.port import Frame

ID_BYTES_MAX: Final = 8 * 1024
"""An id must fit into a request's head. Beyond it there is none, and a listener resumes from an earlier one."""

_Position = tuple[int, str]
_Offset = Annotated[int, Meta(ge=0, le=2**63 - 1)]
"""What engines count to. Another number makes an id none of ours, and in a request it would be refused for good."""

_decode_id: Final = msgspec.json.Decoder(dict[str, tuple[_Offset, str]]).decode
_decode_object: Final = msgspec.json.Decoder(dict[str, Any]).decode


def event_id(data: Frame, positions: Mapping[str, _Position]) -> Frame:
    """Gives the last event of `data`, which are whole events, an id. `positions` are offset and epoch by channel."""
    if not positions:
        return data
    text = json.dumps(positions, separators=(",", ":"))  # ASCII, as a header wants it
    if len(text) > ID_BYTES_MAX:
        return data
    return b"%bid: %b\n\n" % (data[:-1], text.encode())


def resume(opening: bytes, last_id: str) -> bytes:
    """The connect request of a listener that was at `last_id`. An id that is none of ours changes nothing: one that is
    not what `event_id` makes, channels with an offset from 0 to 2⁶³-1 and an epoch.

    What the request itself says of a channel's position is older, and does not count.
    """
    try:
        positions = decode_json(_decode_id, last_id.encode())
        request = decode_json(_decode_object, opening or b"{}")
    except NotJSONError:
        return opening  # whatever is wrong with a request, the protocol says
    wanted = request.get("subs")
    subs = dict(wanted) if isinstance(wanted, dict) else {}
    for channel, (offset, epoch) in positions.items():
        entry = subs.get(channel)
        known = entry if isinstance(entry, dict) else {}  # it may have a token
        subs[channel] = {**known, "recover": True, "offset": offset, "epoch": epoch}
    return msgspec.json.encode({**request, "subs": subs})
