"""Requests of the Centrifuge client protocol v2 (section 1 of the protocol reference), and the command with a request.

A field that the client did not send has its default value.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from msgspec import Raw, Struct

from beaconfire.model.position import SincePosition
from beaconfire.model.publication import NO_PAYLOAD
from beaconfire.model.requests import Conflate, FilterNode


class SubscribeRequest(Struct, frozen=True, omit_defaults=True):
    """Subscribes to `channel` (section 9).

    If `recover` is true, the client asks for all publications after the position of `offset` and `epoch` (section 10).
    `positioned`, `recoverable` and `join_leave` request these options. `delta` names a delta format (section 11).
    `tf` is a tags filter (section 12). The bit of value 2 in `flag` asks for error 112 if recovery fails (section 10).
    `type` is 0 for the only supported type of subscription. `ticket` is that of an earlier subscription result.
    """

    channel: str = ""
    token: str = ""
    recover: bool = False
    epoch: str = ""
    offset: int = 0
    data: Raw = NO_PAYLOAD
    positioned: bool = False
    recoverable: bool = False
    join_leave: bool = False
    delta: str = ""
    tf: FilterNode | None = None
    conflate: Conflate | None = None
    flag: int = 0
    type: int = 0
    ticket: str = ""


class ConnectRequest(Struct, frozen=True, omit_defaults=True):
    """Authenticates the session (section 6).

    `subs` holds, by channel, positions for server-side subscriptions and further channels to subscribe to. `name` and
    `version` are those of the client's SDK. `headers` are HTTP headers that a browser cannot set itself.
    `ticket` is that of an earlier connect or refresh result. With `want_tickets`, the results of this session hold
    tickets.
    """

    token: str = ""
    data: Raw = NO_PAYLOAD
    subs: dict[str, SubscribeRequest] = {}
    name: str = ""
    version: str = ""
    headers: dict[str, str] = {}
    ticket: str = ""
    want_tickets: bool = False


class UnsubscribeRequest(Struct, frozen=True, omit_defaults=True):
    """Ends the subscription to `channel` (section 9). Unknown channels are no error."""

    channel: str = ""


class PublishRequest(Struct, frozen=True, omit_defaults=True):
    """Publishes `data` in `channel` (section 13)."""

    channel: str = ""
    data: Raw = NO_PAYLOAD


class PresenceRequest(Struct, frozen=True, omit_defaults=True):
    """Asks for the clients in `channel` (section 13)."""

    channel: str = ""


class PresenceStatsRequest(Struct, frozen=True, omit_defaults=True):
    """Asks for the numbers of clients and users in `channel` (section 13)."""

    channel: str = ""


class HistoryRequest(Struct, frozen=True, omit_defaults=True):
    """Asks for a page of a channel's history (section 13).

    `limit` 0 asks only for the position; a negative limit asks for as many publications as allowed. `since` is
    exclusive. With `reverse`, the order is newest first, and `since` selects earlier ones.
    """

    channel: str = ""
    limit: int = 0
    since: SincePosition | None = None
    reverse: bool = False


class PingRequest(Struct, frozen=True, omit_defaults=True):
    """A ping from the client. Centrifuge SDKs do not send it (section 5, rule 3)."""


class SendRequest(Struct, frozen=True, omit_defaults=True):
    """A message for the server's application, without a reply (section 13)."""

    data: Raw = NO_PAYLOAD


class RPCRequest(Struct, frozen=True, omit_defaults=True):
    """Calls an RPC method of the server's application (section 13)."""

    data: Raw = NO_PAYLOAD
    method: str = ""


class RefreshRequest(Struct, frozen=True, omit_defaults=True):
    """A new token for the connection (section 8)."""

    token: str = ""


class SubRefreshRequest(Struct, frozen=True, omit_defaults=True):
    """A new token for the subscription to `channel` (section 8)."""

    channel: str = ""
    token: str = ""


Request: TypeAlias = (
    ConnectRequest
    | SubscribeRequest
    | UnsubscribeRequest
    | PublishRequest
    | PresenceRequest
    | PresenceStatsRequest
    | HistoryRequest
    | PingRequest
    | SendRequest
    | RPCRequest
    | RefreshRequest
    | SubRefreshRequest
)


class Pong(Struct, frozen=True):
    """The client's reply to an application-level ping: a command without an id and without a request (section 7)."""


PONG = Pong()


class Command(NamedTuple):
    """A decoded command.

    `ref` is the id of the command, above 0. It is None if the command has no reply (pong and send).
    """

    ref: object
    request: Request | Pong
