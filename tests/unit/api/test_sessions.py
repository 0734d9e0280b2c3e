"""subscribe, unsubscribe, disconnect and refresh, and their effects on connected clients."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from beaconfire.base.errors import (
    BAD_REQUEST,
    CONNECTION_EXPIRED,
    UNKNOWN_CHANNEL,
    CommandError,
    ErrorCode,
)
from tests.unit.api.harness import ApiHarness, Client

NOBODY: dict[str, Any] = {"channel": "chat"}


def closed(client: Client) -> tuple[int, str] | None:
    return client.transport.closed


@pytest.mark.parametrize("method", ["subscribe", "unsubscribe", "disconnect", "refresh"])
def test_a_selection_is_required(method: str) -> None:
    """The error names `user`, `client` and `session`."""

    async def main() -> None:
        harness = await ApiHarness().start()
        with pytest.raises(CommandError, match="user, client or session is required") as caught:
            await harness.call(method, **NOBODY)
        assert caught.value.code is BAD_REQUEST

    asyncio.run(main())


@pytest.mark.parametrize("method", ["subscribe", "unsubscribe", "disconnect", "refresh"])
def test_no_matching_connection_is_no_error(method: str) -> None:
    """Users can be connected to any node, or not at all."""

    async def main() -> None:
        harness = await ApiHarness().start()
        bystander = harness.connect("ann", "chat")
        assert await harness.call(method, **NOBODY, user="nobody") == {}
        assert await harness.call(method, **NOBODY, user="nobody", client=bystander.id) == {}
        assert closed(bystander) is None
        assert list(bystander.session.subscriptions) == ["chat"]

    asyncio.run(main())


@pytest.mark.parametrize("method", ["subscribe", "unsubscribe", "disconnect", "refresh"])
def test_client_and_session_must_match_the_same_connection(method: str) -> None:
    """API clients of Centrifugo send both. If no connection matches both, nothing happens."""

    async def main() -> None:
        harness = await ApiHarness().start()
        one, other = harness.connect("ann", "chat"), harness.connect("ann", "chat")
        request: dict[str, Any] = {"channel": "news" if method == "subscribe" else "chat", "expired": True}
        for session in (other.id, "unknown"):
            assert await harness.call(method, **request, client=one.id, session=session) == {}
        assert [(closed(client), list(client.session.subscriptions)) for client in (one, other)] == [
            (None, ["chat"])
        ] * 2
        assert await harness.call(method, **request, client=one.id, session=one.id) == {}
        assert (closed(one), list(one.session.subscriptions)) != (None, ["chat"])
        assert (closed(other), list(other.session.subscriptions)) == (None, ["chat"])

    asyncio.run(main())


@pytest.mark.parametrize("word", ["client", "session"])
def test_one_connection_can_be_selected(word: str) -> None:
    """By its client id, which is also the session id if the connect result has no `session`."""

    async def main() -> None:
        harness = await ApiHarness().start()
        one, other = harness.connect("ann"), harness.connect("ann")
        await harness.call("subscribe", channel="chat", **{word: one.id})
        await harness.call("disconnect", user="ann", **{word: other.id})
        assert list(one.session.subscriptions) == ["chat"]
        assert (closed(one), closed(other)) == (None, (3503, "force disconnect"))

    asyncio.run(main())


def test_subscribe_subscribes_every_connection_of_the_user() -> None:
    """The client gets `data`, other clients see `info`, and publications of the channel are delivered from then on."""

    async def main() -> None:
        harness = await ApiHarness().start()
        phone, desk = harness.connect("ann"), harness.connect("ann")
        await harness.call("subscribe", user="ann", channel="chat", data={"hello": 1}, info={"role": "guest"})
        for client in (phone, desk):
            assert client.pushes("subscribe")[0]["data"] == {"hello": 1}
        await harness.call("publish", channel="chat", data=1)
        assert (phone.data(), desk.data()) == ([1], [1])
        presence = (await harness.call("presence", channel="chat"))["presence"]
        assert presence[phone.id] == {
            "user": "ann",
            "client": phone.id,
            "conn_info": {"name": "ann"},
            "chan_info": {"role": "guest"},
        }

    asyncio.run(main())


def test_null_data_and_info_count_as_missing() -> None:
    """In subscribe requests."""

    async def main() -> None:
        harness = await ApiHarness().start()
        client = harness.connect("ann")
        await harness.call("subscribe", user="ann", channel="chat", data=None, info=None)
        assert "data" not in client.pushes("subscribe")[0]
        assert "chan_info" not in (await harness.call("presence", channel="chat"))["presence"][client.id]

    asyncio.run(main())


def test_data_and_info_in_base64() -> None:
    """`b64info` and `b64data` replace `info` and `data`."""

    async def main() -> None:
        harness = await ApiHarness().start()
        client = harness.connect("ann")
        await harness.call("subscribe", user="ann", channel="chat", b64data="eyJuIjoxfQ==", b64info="W10=")
        assert client.pushes("subscribe")[0]["data"] == {"n": 1}
        assert (await harness.call("presence", channel="chat"))["presence"][client.id]["chan_info"] == []

    asyncio.run(main())


def test_subscribe_recovers_since_a_position() -> None:
    """Later publications are delivered directly after the subscribe push."""

    async def main() -> None:
        harness = await ApiHarness().start()
        client = harness.connect("ann")
        for number in range(1, 4):
            await harness.call("publish", channel="chat", data=number)
        await harness.call("subscribe", user="ann", channel="chat", recover_since={"offset": 1, "epoch": "epoch"})
        assert client.data() == [2, 3]

    asyncio.run(main())


def test_override_changes_options_of_this_subscription() -> None:
    """An option with the value false differs from a missing option."""

    async def main() -> None:
        harness = await ApiHarness().start()
        hidden, plain = harness.connect("ann"), harness.connect("bob")
        await harness.call("subscribe", user="ann", channel="chat", override={"presence": {"value": False}})
        await harness.call("subscribe", user="bob", channel="chat", override={"join_leave": {"value": True}})
        assert list((await harness.call("presence", channel="chat"))["presence"]) == [plain.id]
        assert list(hidden.session.subscriptions) == ["chat"]

    asyncio.run(main())


def test_a_subscription_with_expiry() -> None:
    """`expire_at` is in seconds since 1970."""

    async def main() -> None:
        harness = await ApiHarness().start()
        client = harness.connect("ann")
        end = int(harness.clock.unix_s()) + 60
        await harness.call("subscribe", user="ann", channel="chat", expire_at=end)
        assert client.session.subscriptions["chat"].grant.expire_at_unix_s == end

    asyncio.run(main())


def test_unsubscribe_from_one_channel_or_all() -> None:
    """Clients get code 2000. An empty channel means all channels."""

    async def main() -> None:
        harness = await ApiHarness().start()
        client = harness.connect("ann", "chat", "news", "fleeting:x")
        await harness.call("unsubscribe", user="ann", channel="chat")
        assert client.pushes("unsubscribe") == [{"channel": "chat", "code": 2000, "reason": "server unsubscribed"}]
        await harness.call("unsubscribe", user="ann")
        assert [push["channel"] for push in client.pushes("unsubscribe")] == ["chat", "news", "fleeting:x"]
        assert client.session.subscriptions == {}

    asyncio.run(main())


def test_disconnect_keeps_the_whitelisted_connections() -> None:
    """All other connections of the user are closed, with 3503 by default."""

    async def main() -> None:
        harness = await ApiHarness().start()
        old, new, other = harness.connect("ann"), harness.connect("ann"), harness.connect("bob")
        await harness.call("disconnect", user="ann", whitelist=[new.id])
        assert (closed(old), closed(new), closed(other)) == ((3503, "force disconnect"), None, None)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ({}, (3503, "force disconnect")),
        ({"code": 0, "reason": "bye"}, (3503, "bye")),
        ({"code": 3000}, (3000, "connection closed")),
        ({"code": 4999, "reason": "x" * 123}, (4999, "x" * 123)),
        ({"code": 4001}, (4001, "disconnected by the server")),
    ],
)
def test_disconnect_codes(wanted: dict[str, Any], told: tuple[int, str]) -> None:
    """Code and reason are passed on. A known code has a default reason, and the reason is never empty."""

    async def main() -> None:
        harness = await ApiHarness().start()
        client = harness.connect("ann")
        await harness.call("disconnect", user="ann", disconnect=wanted)
        assert closed(client) == told

    asyncio.run(main())


def test_refresh_can_expire_connections_now() -> None:
    """With the code after which clients reconnect with new tokens."""

    async def main() -> None:
        harness = await ApiHarness().start()
        client = harness.connect("ann")
        await harness.call("refresh", user="ann", expired=True)
        assert closed(client) == (CONNECTION_EXPIRED.code, CONNECTION_EXPIRED.reason)

    asyncio.run(main())


def test_refresh_changes_expiry_and_info() -> None:
    """The connection continues, and other clients see the new info."""

    async def main() -> None:
        harness = await ApiHarness().start()
        client = harness.connect("ann")
        end = int(harness.clock.unix_s()) + 60
        await harness.call("refresh", user="ann", expire_at=end, info={"name": "Ann"})
        assert client.session.identity.expire_at_unix_s == end
        await harness.call("refresh", user="ann")
        assert client.session.identity.expire_at_unix_s == 0
        assert bytes(client.session.identity.info) == b'{"name": "Ann"}'

    asyncio.run(main())


@pytest.mark.parametrize(
    ("method", "request_", "code", "word"),
    [
        ("subscribe", {}, BAD_REQUEST, "channel"),
        ("subscribe", {"channel": ""}, BAD_REQUEST, "channel"),
        ("subscribe", {"channel": "nowhere:x"}, UNKNOWN_CHANNEL, "nowhere"),
        ("subscribe", {"channel": "x" * 41}, BAD_REQUEST, "max_length"),
        ("subscribe", {"channel": "chat", "b64info": "!"}, BAD_REQUEST, "b64info"),
        ("subscribe", {"channel": "chat", "data": 1, "b64data": "MQ=="}, BAD_REQUEST, "b64data"),
        ("subscribe", {"channel": "chat", "expire_at": -1}, BAD_REQUEST, "expire_at"),
        ("subscribe", {"channel": "chat", "expire_at": 2**70}, BAD_REQUEST, "expire_at"),
        ("subscribe", {"channel": "chat", "recover_since": {"offset": "1"}}, BAD_REQUEST, "recover_since.offset"),
        ("subscribe", {"channel": "chat", "recover_since": {"offset": 2**64}}, BAD_REQUEST, "recover_since.offset"),
        ("subscribe", {"channel": "chat", "override": {"presence": True}}, BAD_REQUEST, "override.presence"),
        ("unsubscribe", {"channel": "nowhere:x"}, UNKNOWN_CHANNEL, "nowhere"),
        ("unsubscribe", {"channel": 1}, BAD_REQUEST, "channel"),
        ("disconnect", {"disconnect": {"code": 2999}}, BAD_REQUEST, "disconnect.code"),
        ("disconnect", {"disconnect": {"code": 5000}}, BAD_REQUEST, "disconnect.code"),
        ("disconnect", {"disconnect": {"code": "4000"}}, BAD_REQUEST, "disconnect.code"),
        ("disconnect", {"disconnect": {"reason": "é" * 62}}, BAD_REQUEST, "disconnect.reason"),
        ("disconnect", {"whitelist": "client-1"}, BAD_REQUEST, "whitelist"),
        ("refresh", {"expired": "yes"}, BAD_REQUEST, "expired"),
        ("refresh", {"expire_at": 1.5}, BAD_REQUEST, "expire_at"),
        ("refresh", {"expire_at": -1}, BAD_REQUEST, "expire_at"),
    ],
)
def test_invalid_requests_are_rejected(method: str, request_: dict[str, Any], code: ErrorCode, word: str) -> None:
    """The error names the field, and the request has no effect."""

    async def main() -> None:
        harness = await ApiHarness().start()
        client = harness.connect("ann", "chat")
        with pytest.raises(CommandError) as caught:
            await harness.call(method, user="ann", **request_)
        assert caught.value.code is code
        assert word in caught.value.detail
        assert closed(client) is None
        assert list(client.session.subscriptions) == ["chat"]
        assert harness.calls() == [(method, code.code)]

    asyncio.run(main())
