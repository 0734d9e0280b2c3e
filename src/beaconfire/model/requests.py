"""Requests of clients, as the operations of a session take them: the same for every protocol.

A protocol translates its own messages into these requests. A field that the client did not send has its default value.
Section numbers are those of the Centrifuge client protocol v2, whose semantics the operations follow.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Raw, Struct

from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import NO_PAYLOAD


class Conflate(Struct, frozen=True, omit_defaults=True):
    """Requests conflation: the client wants the latest publication rather than all of them.

    `max_rate` is the highest number of deliveries per second; 0 means no limit. While the connection is not writable,
    only the latest publication is kept, whatever the rate.
    """

    max_rate: float = 0.0


class FilterNode(Struct, frozen=True, omit_defaults=True):
    """A node of a tags filter (section 12): either `op` with `nodes`, or a comparison of the tag `key` by `cmp` with
    `val` or `vals`.
    """

    op: str = ""
    key: str = ""
    cmp: str = ""
    val: str = ""
    vals: list[str] = []
    nodes: list[FilterNode] = []


class SubscriptionRequest(Struct, frozen=True):
    """A request to be subscribed to `channel` (section 9).

    With `since`, the client asks for all publications after this position (section 10); an empty epoch stands for the
    current epoch. With `reject_unrecovered`, the request fails with error 112 if some of them are missing.
    `positioned`, `recoverable` and `join_leave` request these options. `delta` names a delta format, or is empty
    (section 11). `data` is for the application.
    """

    channel: str
    token: str = ""
    data: Raw = NO_PAYLOAD
    since: StreamPosition | None = None
    reject_unrecovered: bool = False
    positioned: bool = False
    recoverable: bool = False
    join_leave: bool = False
    delta: str = ""
    tags_filter: FilterNode | None = None
    conflate: Conflate | None = None
    ticket: str = ""
    """The ticket of an earlier subscription to the channel."""


class ConnectionRequest(Struct, frozen=True):
    """A request to authenticate the session (section 6).

    `subscriptions` holds, by channel, positions for server-side subscriptions and further channels to subscribe to.
    `name` and `version` are those of the client's SDK. `headers` are HTTP headers that a browser cannot set itself.
    `user` is an unverified user name, which becomes the user id only in insecure mode.
    """

    token: str = ""
    data: Raw = NO_PAYLOAD
    subscriptions: Mapping[str, SubscriptionRequest] = {}
    name: str = ""
    version: str = ""
    headers: Mapping[str, str] = {}
    user: str = ""
    ticket: str = ""
    """The ticket of an earlier connection, beside or instead of the token."""
    wants_tickets: bool = False
    """Whether the results of this session shall hold tickets."""
