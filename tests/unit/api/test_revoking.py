"""revoke: what the request may be, and what becomes of it. The effects are tested with the sessions."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from beaconfire.api.options import ApiOptions
from beaconfire.base.errors import BAD_REQUEST, UNKNOWN_CHANNEL, CommandError, ErrorCode
from beaconfire.base.units import Seconds
from beaconfire.model.events import TokensRevoked
from beaconfire.model.identity import Identity
from beaconfire.session.revocations import LIFETIME_MAX_S
from tests.unit.api.harness import ApiHarness

YEAR_S = LIFETIME_MAX_S


@pytest.mark.parametrize(
    ("request_", "code", "detail"),
    [
        ({}, BAD_REQUEST, "exactly one of user and token_id is required"),
        ({"channel": "chat"}, BAD_REQUEST, "exactly one of user and token_id is required"),
        ({"user": "ann", "token_id": "t"}, BAD_REQUEST, "exactly one of user and token_id is required"),
        ({"token_id": "t", "channel": "chat"}, BAD_REQUEST, "channel: needs user"),
        ({"user": "a" * 1025}, BAD_REQUEST, "user: expected at most 1024 bytes"),
        ({"token_id": "é" * 513}, BAD_REQUEST, "token_id: expected at most 1024 bytes"),
        ({"user": "ann", "channel": "nowhere:x"}, UNKNOWN_CHANNEL, "no namespace 'nowhere' is configured"),
        ({"user": "ann", "channel": "c" * 41}, BAD_REQUEST, "channel is longer than channel_names.max_length"),
        ({"user": "ann", "expire_at": 1_600_000_000}, BAD_REQUEST, "expire_at: must be in the future"),
        ({"user": "ann", "expire_at": 2_000_000_000}, BAD_REQUEST, "expire_at: must be at most one year from now"),
        ({"user": "ann", "expire_at": -1}, BAD_REQUEST, "expire_at"),
        ({"user": 42}, BAD_REQUEST, "user"),
    ],
)
def test_a_wrong_request_is_refused(request_: dict[str, Any], code: ErrorCode, detail: str) -> None:
    """The error names the field and the remedy, and nothing is revoked."""

    async def main() -> None:
        harness = await ApiHarness().start()
        with pytest.raises(CommandError, match=detail) as caught:
            await harness.call("revoke", **request_)
        assert caught.value.code is code
        assert len(harness.node.work.revocations) == 0
        assert harness.recorder.of(TokensRevoked) == []

    asyncio.run(main())


def test_a_revocation_is_kept_for_the_default_time_or_until_expire_at() -> None:
    """The call may be repeated. Each call is an event."""

    async def main() -> None:
        harness = await ApiHarness(ApiOptions(keys=["right"], revocation_ttl=Seconds(60))).start()
        now = harness.clock.unix_s()
        later = int(now) + 3600
        assert await harness.call("revoke", user="ann", channel="chat") == {}
        assert await harness.call("revoke", token_id="t", expire_at=later) == {}
        assert await harness.call("revoke", token_id="t", expire_at=later) == {}
        assert harness.recorder.of(TokensRevoked) == [
            TokensRevoked("ann", "chat", now + 60),
            TokensRevoked("", "", later),
            TokensRevoked("", "", later),
        ]
        assert harness.node.statistics().revocations == 2
        assert harness.node.work.revocations.revokes_session(Identity("ann", issued_at_unix_s=now, token_id="t"))

    asyncio.run(main())


def test_the_leeway_covers_a_backend_whose_clock_is_ahead() -> None:
    """Tokens that such a backend issued before the call have a later `iat`."""

    async def main() -> None:
        harness = await ApiHarness().start()
        harness.api.leeway_s = 5.0
        now = harness.clock.unix_s()
        await harness.call("revoke", user="ann")
        revokes = harness.node.work.revocations.revokes_session
        void = [revokes(Identity("ann", issued_at_unix_s=now + ahead_s)) for ahead_s in (0, 5, 6)]
        assert void == [True, True, False]

    asyncio.run(main())


@pytest.mark.parametrize("method", ["publish", "history", "presence", "subscribe", "history_remove"])
def test_no_call_can_name_the_internal_channel(method: str) -> None:
    """A publication there could revoke the tokens of everybody."""

    async def main() -> None:
        harness = await ApiHarness().start()
        channel = harness.node.work.revocation_stream.channel
        with pytest.raises(CommandError) as caught:
            await harness.call(method, channel=channel, user="ann", **({"data": 1} if method == "publish" else {}))
        assert caught.value.code is UNKNOWN_CHANNEL
        assert (await harness.call("channels"))["channels"] == {}

    asyncio.run(main())
