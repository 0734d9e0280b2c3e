"""What clients send and receive, in the terms of no protocol."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from msgspec import Struct

from beaconfire.model.position import StreamPosition


class Subscribe(Struct, frozen=True):
    channel: str
    since: StreamPosition | None = None
    token: str = ""


class Unsubscribe(Struct, frozen=True):
    channel: str


class Publish(Struct, frozen=True):
    channel: str
    data: object


class History(Struct, frozen=True):
    channel: str
    limit: int = 100
    since: StreamPosition | None = None


class Presence(Struct, frozen=True):
    channel: str


class Rpc(Struct, frozen=True):
    method: str
    data: object = None


class Refresh(Struct, frozen=True):
    token: str


class SubRefresh(Struct, frozen=True):
    channel: str
    token: str


Request: TypeAlias = Subscribe | Unsubscribe | Publish | History | Presence | Rpc | Refresh | SubRefresh


class Subscribed(NamedTuple):
    """`position` is the position after `publications`. `recovered` is None if the client asked for no recovery."""

    position: StreamPosition | None
    recovered: bool | None
    publications: tuple[object, ...]


class Connected(NamedTuple):
    """The reply to a connect, with the server-side subscriptions by channel."""

    client: str
    subscriptions: dict[str, Subscribed]


class Reply(NamedTuple):
    """`error` is 0 for success. Then `value` is a `Subscribed`, the data of a history page (a tuple), the ids of the
    present clients (a set), the result of an rpc, the time until the next refresh in seconds, or None."""

    ref: int
    error: int = 0
    value: object = None


class Published(NamedTuple):
    channel: str
    data: object
    offset: int = 0


class Joined(NamedTuple):
    channel: str
    client: str


class Left(NamedTuple):
    channel: str
    client: str


class Ended(NamedTuple):
    """The server has ended a subscription."""

    channel: str
    code: int


class Started(NamedTuple):
    """The server has made a subscription."""

    channel: str


class Expires(NamedTuple):
    """The server has changed the expiry of the connection. 0 is never."""

    ttl_s: int


Received: TypeAlias = Connected | Reply | Published | Joined | Left | Ended | Started | Expires
