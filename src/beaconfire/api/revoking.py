"""The API method revoke."""

from __future__ import annotations

from typing import Final

from beaconfire.api.context import ApiContext
from beaconfire.api.messages.common import EmptyResult
from beaconfire.api.messages.sessions import RevokeRequest
from beaconfire.base.errors import BAD_REQUEST, CommandError
from beaconfire.model.events import TokensRevoked
from beaconfire.session.revocations import LIFETIME_MAX_S, Revocation

NAME_BYTES_MAX: Final = 1024
"""The longest user id and token id. They are kept in the memory of every node."""


async def revoke(api: ApiContext, request: RevokeRequest) -> EmptyResult:
    """Makes tokens void on all nodes. See `Revocation`."""
    _check_selection(api, request)
    now_unix_s = api.unix_s()
    revocation = Revocation(
        expire_at_unix_s=_expire_at_unix_s(api, request, now_unix_s),
        # A backend whose clock is ahead issues tokens in the future.
        issued_until_unix_s=now_unix_s + api.leeway_s if request.user else 0.0,
        user=request.user,
        channel=request.channel,
        token_id=request.token_id,
    )
    await api.revocation_stream.revoke(revocation)
    api.events.emit(TokensRevoked(request.user, request.channel, revocation.expire_at_unix_s))
    return EmptyResult()


def _check_selection(api: ApiContext, request: RevokeRequest) -> None:
    """Raises CommandError 107, and 102 for a channel of an unknown namespace."""
    if bool(request.user) == bool(request.token_id):
        raise CommandError(BAD_REQUEST, "exactly one of user and token_id is required")
    if request.channel and not request.user:
        raise CommandError(BAD_REQUEST, "channel: needs user, because token_id names one token; leave channel out")
    for name, value in (("user", request.user), ("token_id", request.token_id)):
        if len(value.encode()) > NAME_BYTES_MAX:
            raise CommandError(BAD_REQUEST, f"{name}: expected at most {NAME_BYTES_MAX} bytes")
    if request.channel:
        api.namespace(request.channel)


def _expire_at_unix_s(api: ApiContext, request: RevokeRequest, now_unix_s: float) -> float:
    if not request.expire_at:
        return now_unix_s + float(api.options.revocation_ttl)
    if request.expire_at <= now_unix_s:
        raise CommandError(BAD_REQUEST, "expire_at: must be in the future; 0 means api.revocation_ttl from now")
    if request.expire_at > now_unix_s + LIFETIME_MAX_S:
        raise CommandError(BAD_REQUEST, "expire_at: must be at most one year from now")
    return float(request.expire_at)
