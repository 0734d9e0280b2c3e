"""Publications, and the clients that they come from."""

from __future__ import annotations

from msgspec import Raw, Struct

NO_PAYLOAD = Raw(b"")
"""The one empty payload. Encoders omit a payload field when it *is* this object."""


class ClientInfo(Struct, frozen=True, omit_defaults=True):
    """Who published or is present. `conn_info` is from the connection's token, `chan_info` the subscription's."""

    user: str
    client: str
    conn_info: Raw = NO_PAYLOAD
    chan_info: Raw = NO_PAYLOAD


class Publication(Struct, frozen=True, omit_defaults=True):
    """Data published in a channel. `offset` is 0 in a channel without history; `epoch` comes with offset 1 only.

    On its way to one who asked for it, `delta` may be true: then the data is a patch (see `deltas`); and `conflated`
    may be how many publications before this one were left out in its favour (see `conflation`).
    """

    data: Raw = NO_PAYLOAD
    info: ClientInfo | None = None
    offset: int = 0
    tags: dict[str, str] | None = None
    epoch: str = ""
    delta: bool = False
    conflated: int = 0
