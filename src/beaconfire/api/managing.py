"""What backends do to connections. Every node gets the message and applies it to its own."""

from __future__ import annotations

from msgspec import UNSET

from beaconfire.api.context import ApiContext, attachment, selector
from beaconfire.api.requests import (
    DisconnectReason,
    DisconnectRequest,
    Nothing,
    RefreshRequest,
    SubscribeRequest,
    SubscriptionSwitches,
    Switch,
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
    RefreshSessions,
    SubscribeSessions,
    UnsubscribeSessions,
)

_REASON_BYTES_MAX = 123
"""What fits into a close frame beside the code (RFC 6455 section 5.5)."""

_CODES = range(3000, 5000)
"""Codes that libraries and applications may use (RFC 6455 section 7.4.2)."""

_REASONS = {code.code: code.reason for code in DISCONNECTS}

_REASON_DEFAULT = "disconnected by the server"
"""Never empty: centrifuge-js comes back even after a terminal code if no reason stands beside it."""


async def subscribe(api: ApiContext, request: SubscribeRequest) -> Nothing:
    who = selector(request)
    api.namespace(request.channel)
    since = request.recover_since
    message = SubscribeSessions(
        who,
        request.channel,
        info=attachment("info", request.info, request.b64info),
        data=attachment("data", request.data, request.b64data),
        expire_at_unix_s=float(request.expire_at),
        since=StreamPosition(since.offset, since.epoch) if since is not None else None,
        override=_override(request.override) if request.override is not None else None,
    )
    await api.cluster.send(message)
    return Nothing()


def _override(switches: SubscriptionSwitches) -> SubscriptionOverride:
    return SubscriptionOverride(
        presence=_value(switches.presence),
        join_leave=_value(switches.join_leave),
        force_recovery=_value(switches.force_recovery),
        force_positioning=_value(switches.force_positioning),
        force_push_join_leave=_value(switches.force_push_join_leave),
    )


def _value(switch: Switch | None) -> bool | None:
    return switch.value if switch is not None else None


async def unsubscribe(api: ApiContext, request: UnsubscribeRequest) -> Nothing:
    who = selector(request)
    if request.channel:
        api.namespace(request.channel)
    await api.cluster.send(UnsubscribeSessions(who, request.channel))
    return Nothing()


async def disconnect(api: ApiContext, request: DisconnectRequest) -> Nothing:
    who = selector(request)
    code, reason = _disconnect(request.disconnect or DisconnectReason())
    await api.cluster.send(DisconnectSessions(who, code, reason, tuple(request.whitelist)))
    return Nothing()


def _disconnect(wanted: DisconnectReason) -> tuple[int, str]:
    code = wanted.code or FORCE_DISCONNECT.code
    if code not in _CODES:
        raise CommandError(BAD_REQUEST, f"disconnect.code: expected {_CODES.start} to {_CODES.stop - 1}, got {code}")
    if len(wanted.reason.encode()) > _REASON_BYTES_MAX:
        raise CommandError(BAD_REQUEST, f"disconnect.reason: expected at most {_REASON_BYTES_MAX} bytes")
    return code, wanted.reason or _REASONS.get(code, _REASON_DEFAULT)


async def refresh(api: ApiContext, request: RefreshRequest) -> Nothing:
    message = RefreshSessions(
        selector(request),
        expired=request.expired,
        expire_at_unix_s=float(request.expire_at),
        info=None if request.info is UNSET else attachment("info", request.info),
    )
    await api.cluster.send(message)
    return Nothing()
