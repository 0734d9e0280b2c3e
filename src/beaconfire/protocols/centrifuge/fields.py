"""Which message travels in which field: the names of requests, results and pushes, once, for both encodings.

From section 1 of the Centrifuge client protocol v2. Order matters for requests: the first one present counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NoReturn

from beaconfire.base.errors import ErrorCode
from beaconfire.model.pushes import (
    DisconnectPush,
    JoinPush,
    LeavePush,
    MessagePush,
    PublicationPush,
    Push,
    RefreshPush,
    SubscribePush,
    UnsubscribePush,
)
from beaconfire.model.requests import (
    PONG,
    Command,
    ConnectRequest,
    HistoryRequest,
    PingRequest,
    PresenceRequest,
    PresenceStatsRequest,
    PublishRequest,
    RefreshRequest,
    Request,
    RPCRequest,
    SendRequest,
    SubRefreshRequest,
    SubscribeRequest,
    UnsubscribeRequest,
)
from beaconfire.model.results import (
    ConnectResult,
    HistoryResult,
    PingResult,
    PresenceResult,
    PresenceStatsResult,
    PublishResult,
    RefreshResult,
    Result,
    RPCResult,
    SubRefreshResult,
    SubscribeResult,
    UnsubscribeResult,
)
from beaconfire.protocols.port import ProtocolError

REQUESTS: Final[Mapping[str, type[Request]]] = {
    "connect": ConnectRequest,
    "subscribe": SubscribeRequest,
    "unsubscribe": UnsubscribeRequest,
    "publish": PublishRequest,
    "presence": PresenceRequest,
    "presence_stats": PresenceStatsRequest,
    "history": HistoryRequest,
    "ping": PingRequest,
    "send": SendRequest,
    "rpc": RPCRequest,
    "refresh": RefreshRequest,
    "sub_refresh": SubRefreshRequest,
}

RESULTS: Final[Mapping[type[Result], str]] = {
    ConnectResult: "connect",
    SubscribeResult: "subscribe",
    UnsubscribeResult: "unsubscribe",
    PublishResult: "publish",
    PresenceResult: "presence",
    PresenceStatsResult: "presence_stats",
    HistoryResult: "history",
    PingResult: "ping",
    RPCResult: "rpc",
    RefreshResult: "refresh",
    SubRefreshResult: "sub_refresh",
}

PUSHES: Final[Mapping[type[Push], str]] = {
    PublicationPush: "pub",
    JoinPush: "join",
    LeavePush: "leave",
    UnsubscribePush: "unsubscribe",
    MessagePush: "message",
    SubscribePush: "subscribe",
    DisconnectPush: "disconnect",
    RefreshPush: "refresh",
}

PONG_COMMAND: Final = Command(None, PONG)

U32_RANGE: Final = range(2**32)
U64_RANGE: Final = range(2**64)
I32_RANGE: Final = range(-(2**31), 2**31)
I64_RANGE: Final = range(-(2**63), 2**63)


def refuse_nameless(ref: int) -> NoReturn:
    """For a command with an id that asks for nothing known (section 5, rule 3)."""
    raise ProtocolError(f"command {ref} holds no known request; expected one of {', '.join(REQUESTS)}")


def error_message(code: ErrorCode, detail: str) -> str:
    """The protocol has no field for a detail, so it follows the message after a colon."""
    return f"{code.message}: {detail}" if detail else code.message
