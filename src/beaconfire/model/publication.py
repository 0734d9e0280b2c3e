"""Publications, and information about the clients that publish or are present."""

from __future__ import annotations

from msgspec import Raw, Struct

NO_PAYLOAD = Raw(b"")
"""The empty payload. Encoders compare by identity: they omit a payload field only if its value *is* this object."""


def to_payload(data: bytes) -> Raw:
    """The payload with these bytes. Empty bytes are `NO_PAYLOAD`."""
    return Raw(data) if data else NO_PAYLOAD


class ClientInfo(Struct, frozen=True, omit_defaults=True, gc=False):
    """The user id and client id of a publisher or of an entry in presence (protocol reference, section 1).

    `conn_info` comes from the connection token, `chan_info` from the subscription token. Both are payloads, or empty.
    """

    user: str
    client: str
    conn_info: Raw = NO_PAYLOAD
    chan_info: Raw = NO_PAYLOAD


class Publication(Struct, frozen=True, omit_defaults=True, gc=False):
    """Data published in a channel (section 1, Publication).

    `info` is None if the server API published. `offset` is 0 if the publication is not stored in history. `epoch` is
    set only for offset 1, so that a client that subscribed before the stream existed learns the epoch (section 10).

    `delta` and `conflated` are set only during delivery, for subscriptions that requested them. If `delta` is true,
    `data` is a patch (section 11). `conflated` is the number of earlier publications that were
    omitted because this one replaces them (see `Conflate`).
    """

    data: Raw = NO_PAYLOAD
    info: ClientInfo | None = None
    offset: int = 0
    tags: dict[str, str] | None = None
    epoch: str = ""
    delta: bool = False
    conflated: int = 0
