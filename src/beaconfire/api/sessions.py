"""API methods for sessions: subscribe, unsubscribe, disconnect, refresh and send.

Each method sends a control message to all nodes. Each node applies the message to its own sessions.
"""

from __future__ import annotations

from msgspec import UNSET

from beaconfire.api.context import ApiContext, optional_payload, selector
from beaconfire.api.messages.common import EmptyResult
from beaconfire.api.messages.sessions import (
    BoolValue,
    DisconnectReason,
    DisconnectRequest,
    RefreshRequest,
    SendRequest,
    SubscribeOverride,
    SubscribeRequest,
    UnsubscribeRequest,
)
from beaconfire.base.errors import (
    BAD_REQUEST,
    DISCONNECTS,
    FORCE_DISCONNECT,
    CommandError,
)
from beaconfire.model.grants import SubscriptionOverride
from beaconfire.model.position import StreamPosition
from beaconfire.node.cluster import (
    DisconnectSessions,
    MessageSessions,
    RefreshSessions,
    SubscribeSessions,
    UnsubscribeSessions,
)

_REASON_BYTES_MAX = 123
"""The space for the reason in a close frame (RFC 6455 section 5.5)."""

_CODES = range(3000, 5000)
"""The close codes for libraries and applications (RFC 6455 section 7.4.2)."""

_REASONS = {code.code: code.reason for code in DISCONNECTS}

_REASON_DEFAULT = "disconnected by the server"
"""Never empty: centrifuge-js reconnects even after a terminal code if the reason is empty."""


async def subscribe(api: ApiContext, request: SubscribeRequest) -> EmptyResult:
    """Subscribes the selected sessions to a channel (server-side subscription)."""
    selected = selector(request)
    api.namespace(request.channel)
    since = request.recover_since
    message = SubscribeSessions(
        selected,
        request.channel,
        info=optional_payload("info", request.info, request.b64info),
        data=optional_payload("data", request.data, request.b64data),
        expire_at_unix_s=float(request.expire_at),
        since=StreamPosition(since.offset, since.epoch) if since is not None else None,
        override=_override(request.override) if request.override is not None else None,
    )
    await api.cluster.send(message)
    return EmptyResult()


def _override(override: SubscribeOverride) -> SubscriptionOverride:
    return SubscriptionOverride(
        presence=_bool(override.presence),
        join_leave=_bool(override.join_leave),
        force_recovery=_bool(override.force_recovery),
        force_positioning=_bool(override.force_positioning),
        force_push_join_leave=_bool(override.force_push_join_leave),
    )


def _bool(value: BoolValue | None) -> bool | None:
    return value.value if value is not None else None


async def unsubscribe(api: ApiContext, request: UnsubscribeRequest) -> EmptyResult:
    """Unsubscribes the selected sessions from a channel, or from all channels."""
    selected = selector(request)
    if request.channel:
        api.namespace(request.channel)
    await api.cluster.send(UnsubscribeSessions(selected, request.channel))
    return EmptyResult()


async def disconnect(api: ApiContext, request: DisconnectRequest) -> EmptyResult:
    """Disconnects the selected sessions."""
    selected = selector(request)
    code, reason = _code_and_reason(request.disconnect or DisconnectReason())
    await api.cluster.send(DisconnectSessions(selected, code, reason, tuple(request.whitelist)))
    return EmptyResult()


def _code_and_reason(requested: DisconnectReason) -> tuple[int, str]:
    code = requested.code or FORCE_DISCONNECT.code
    if code not in _CODES:
        raise CommandError(BAD_REQUEST, f"disconnect.code: expected {_CODES.start} to {_CODES.stop - 1}, got {code}")
    if len(requested.reason.encode()) > _REASON_BYTES_MAX:
        raise CommandError(BAD_REQUEST, f"disconnect.reason: expected at most {_REASON_BYTES_MAX} bytes")
    return code, requested.reason or _REASONS.get(code, _REASON_DEFAULT)


async def send(api: ApiContext, request: SendRequest) -> EmptyResult:
    """Sends data to the selected sessions, outside of any channel."""
    data = optional_payload("data", request.data, request.b64data)
    if not data:
        raise CommandError(BAD_REQUEST, "data or b64data is required")
    await api.cluster.send(MessageSessions(selector(request), data))
    return EmptyResult()


async def refresh(api: ApiContext, request: RefreshRequest) -> EmptyResult:
    """Changes the expiry, and optionally the info, of the selected sessions."""
    message = RefreshSessions(
        selector(request),
        expired=request.expired,
        expire_at_unix_s=float(request.expire_at),
        info=None if request.info is UNSET else optional_payload("info", request.info),
    )
    await api.cluster.send(message)
    return EmptyResult()
