"""The names of the fields that hold requests, results and pushes. JSON and Protobuf use the same names.

See section 1 of the Centrifuge client protocol v2. The order of requests matters: the first request in this order
counts if a command has several.
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
from beaconfire.protocols.centrifuge.requests import (
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
from beaconfire.protocols.centrifuge.results import (
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


def raise_unknown_request(ref: int) -> NoReturn:
    """Raises ProtocolError for a command with an id but without a known request (section 5, rule 3)."""
    raise ProtocolError(f"command {ref} holds no known request; expected one of {', '.join(REQUESTS)}")


def error_message(code: ErrorCode, detail: str) -> str:
    """The text of an error reply. The protocol has no field for `detail`, so it follows the message after a colon."""
    return f"{code.message}: {detail}" if detail else code.message
