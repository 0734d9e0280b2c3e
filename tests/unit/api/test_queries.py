"""presence, history, channels, connections, info and rpc."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest

from beaconfire.api.messages.queries import HistoryResult
from beaconfire.api.options import ApiOptions
from beaconfire.base.errors import (
    BAD_REQUEST,
    LIMIT_EXCEEDED,
    METHOD_NOT_FOUND,
    NOT_AVAILABLE,
    UNKNOWN_CHANNEL,
    UNRECOVERABLE_POSITION,
    CommandError,
    ErrorCode,
)
from beaconfire.base.units import Size
from beaconfire.model.publication import ClientInfo
from tests.unit.api.harness import ApiHarness


def test_presence_and_presence_stats() -> None:
    """Two connections of one user are two clients and one user."""

    async def main() -> None:
        harness = await ApiHarness().start()
        assert await harness.call("presence", channel="chat") == {"presence": {}}
        one, other = harness.connect("ann", "chat"), harness.connect("ann", "chat")
        presence = (await harness.call("presence", channel="chat"))["presence"]
        assert set(presence) == {one.id, other.id}
        assert presence[one.id] == {"user": "ann", "client": one.id, "conn_info": {"name": "ann"}}
        assert await harness.call("presence_stats", channel="chat") == {"num_clients": 2, "num_users": 1}

    asyncio.run(main())


def test_info_that_is_not_json_is_returned_in_base64() -> None:
    """Clients with Protobuf may have any bytes there, and the response must be JSON."""

    async def main() -> None:
        harness = await ApiHarness().start()
        info = ClientInfo("ann", "c", msgspec.Raw(b"\xff"), msgspec.Raw(b"{"))
        await harness.engine.presence.add("chat", [info], 60.0)
        presence = (await harness.call("presence", channel="chat"))["presence"]
        assert presence == {"c": {"user": "ann", "client": "c", "b64conn_info": "/w==", "b64chan_info": "ew=="}}

    asyncio.run(main())


async def _filled(count: int) -> ApiHarness:
    harness = await ApiHarness().start()
    for number in range(1, count + 1):
        await harness.call("publish", channel="chat", data=number)
    return harness


@pytest.mark.parametrize(
    ("request_", "data"),
    [
        ({}, []),
        ({"limit": 0}, []),
        ({"limit": -1}, [1, 2, 3, 4]),
        ({"limit": 2}, [1, 2]),
        ({"limit": 1000}, [1, 2, 3, 4]),
        ({"limit": -5, "reverse": True}, [4, 3, 2, 1]),
        ({"limit": -1, "since": {"offset": 2, "epoch": "epoch"}}, [3, 4]),
        ({"limit": -1, "since": {"offset": 0, "epoch": "epoch"}}, [1, 2, 3, 4]),
        ({"limit": -1, "since": {"offset": 2}}, [3, 4]),
        ({"limit": -1, "since": {"offset": 4, "epoch": "epoch"}}, []),
        ({"limit": 1, "since": {"offset": 3, "epoch": "epoch"}, "reverse": True}, [2]),
    ],
)
def test_history_pages(request_: dict[str, Any], data: list[int]) -> None:
    """Limit 0 returns only the position, a negative limit everything. `since` is exclusive. The position is always the
    latest.
    """

    async def main() -> None:
        harness = await _filled(4)
        page = await harness.call("history", channel="chat", **request_)
        assert [publication["data"] for publication in page["publications"]] == data
        assert (page["offset"], page["epoch"]) == (4, "epoch")

    asyncio.run(main())


def test_the_history_limit_of_clients_does_not_apply() -> None:
    """`client.history_max_publication_limit` is only for clients."""

    async def main() -> None:
        harness = await ApiHarness().start()
        for number in range(3):
            await harness.call("publish", channel="chat", data=number)
        assert len((await harness.call("history", channel="chat", limit=-1))["publications"]) == 3

    asyncio.run(main())


def test_history_has_the_publisher_and_the_exact_text() -> None:
    """`info` is set if a client published. Payloads are not encoded again."""

    async def main() -> None:
        harness = await ApiHarness().start()
        client = harness.connect("ann", "chat")
        namespace = harness.namespaces.resolve("chat")
        await harness.node.channels.publish("chat", namespace, msgspec.Raw(b'{"n": 1.50}'), client.session.info("chat"))
        result = await harness.api.call("history", b'{"channel":"chat","limit":1}')
        assert isinstance(result, HistoryResult)
        text = msgspec.json.encode(result)
        assert b'"data":{"n": 1.50}' in text
        publication = json.loads(text)["publications"][0]
        assert publication["info"] == {"user": "ann", "client": client.id, "conn_info": {"name": "ann"}}

    asyncio.run(main())


def test_history_remove_keeps_the_position() -> None:
    """Offsets continue."""

    async def main() -> None:
        harness = await _filled(2)
        assert await harness.call("history_remove", channel="chat") == {}
        assert await harness.call("history", channel="chat", limit=-1) == {
            "publications": [],
            "epoch": "epoch",
            "offset": 2,
        }
        assert (await harness.call("publish", channel="chat", data=1))["offset"] == 3

    asyncio.run(main())


def test_channels_with_subscribers() -> None:
    """With their numbers of clients, filtered by a glob pattern."""

    async def main() -> None:
        harness = await ApiHarness().start()
        harness.connect("ann", "chat", "fleeting:x")
        harness.connect("bob", "chat")
        everything = {"chat": {"num_clients": 2}, "fleeting:x": {"num_clients": 1}}
        assert await harness.call("channels") == {"channels": everything}
        assert await harness.call("channels", pattern="fleet*") == {"channels": {"fleeting:x": {"num_clients": 1}}}
        assert await harness.call("channels", pattern="none*") == {"channels": {}}

    asyncio.run(main())


def test_connections_are_listed_by_client_id() -> None:
    """Each with user, transport and channels."""

    async def main() -> None:
        harness = await ApiHarness().start()
        ann, bob = harness.connect("ann", "news", "chat"), harness.connect("bob", "chat")
        everyone = await harness.call("connections")
        assert set(everyone["connections"]) == {ann.id, bob.id}
        assert everyone["connections"][ann.id] == {
            "user": "ann",
            "transport": "test",
            "protocol": "centrifuge-json",
            "channels": ["chat", "news"],
            "connected_at_ms": 1_700_000_000_000,
        }
        assert "truncated" not in everyone
        assert set((await harness.call("connections", user="bob"))["connections"]) == {bob.id}
        assert set((await harness.call("connections", channel="news"))["connections"]) == {ann.id}
        assert (await harness.call("connections", user="bob", channel="news"))["connections"] == {}

    asyncio.run(main())


def test_a_truncated_list_of_connections_is_marked() -> None:
    """The limit is exact."""

    async def main() -> None:
        harness = await ApiHarness().start()
        for _ in range(3):
            harness.connect("ann")
        cut = await harness.call("connections", limit=2)
        assert (len(cut["connections"]), cut["truncated"]) == (2, True)
        assert "truncated" not in await harness.call("connections", limit=3)

    asyncio.run(main())


def test_info_lists_every_node() -> None:
    """With all figures, including zeros."""

    async def main() -> None:
        harness = await ApiHarness().start()
        harness.connect("ann", "chat")
        harness.clock.advance(61.9)
        assert await harness.call("info") == {
            "nodes": [
                {
                    "uid": "uid",
                    "name": "node",
                    "version": "1.2.3",
                    "num_clients": 1,
                    "num_users": 1,
                    "num_channels": 1,
                    "num_subs": 1,
                    "uptime": 61,
                }
            ]
        }

    asyncio.run(main())


@pytest.mark.parametrize(
    ("method", "request_", "code", "word"),
    [
        ("presence", {}, BAD_REQUEST, "channel"),
        ("presence", {"channel": "fleeting:x"}, NOT_AVAILABLE, "presence"),
        ("presence", {"channel": "nowhere:x"}, UNKNOWN_CHANNEL, "nowhere"),
        ("presence_stats", {"channel": "fleeting:x"}, NOT_AVAILABLE, "presence"),
        ("presence_stats", {"channel": ["x"]}, BAD_REQUEST, "channel"),
        ("history", {"limit": 1}, BAD_REQUEST, "channel"),
        ("history", {"channel": "fleeting:x"}, NOT_AVAILABLE, "history_size"),
        ("history", {"channel": "chat", "limit": "all"}, BAD_REQUEST, "limit"),
        ("history", {"channel": "chat", "limit": 2**40}, BAD_REQUEST, "limit"),
        ("history", {"channel": "chat", "since": {"offset": -1}}, BAD_REQUEST, "since.offset"),
        ("history", {"channel": "chat", "since": {"offset": 1, "epoch": "x"}}, UNRECOVERABLE_POSITION, "since.epoch"),
        ("history", {"channel": "chat", "since": {}, "reverse": True}, BAD_REQUEST, "since.offset"),
        ("history_remove", {"channel": "fleeting:x"}, NOT_AVAILABLE, "history"),
        ("history_remove", {}, BAD_REQUEST, "channel"),
        ("channels", {"pattern": 1}, BAD_REQUEST, "pattern"),
        ("connections", {"limit": 0}, BAD_REQUEST, "limit"),
        ("connections", {"limit": 10_001}, BAD_REQUEST, "limit"),
        ("rpc", {}, BAD_REQUEST, "method"),
        ("rpc", {"method": ""}, BAD_REQUEST, "method"),
        ("rpc", {"method": "getBalance", "params": {}}, METHOD_NOT_FOUND, "getBalance"),
    ],
)
def test_invalid_requests_are_rejected(method: str, request_: dict[str, Any], code: ErrorCode, word: str) -> None:
    """The error has the right code and names the field or option."""

    async def main() -> None:
        harness = await ApiHarness().start()
        with pytest.raises(CommandError) as caught:
            await harness.call(method, **request_)
        assert caught.value.code is code
        assert word in caught.value.detail
        assert harness.calls() == [(method, code.code)]

    asyncio.run(main())


def test_responses_have_a_size_limit() -> None:
    """History and connections are cut, and the caller can continue. Results that would be misleading if cut get error
    106.
    """

    async def main() -> None:
        harness = await ApiHarness(ApiOptions(response_max_size=Size(1000))).start()
        for number in range(30):
            harness.connect("ann", f"other{number}" + "y" * 30, "chat")
        for number in range(10):
            await harness.call("publish", channel="chat", data=f"{number}" + "x" * 150)
        found: list[int] = []
        while len(found) < 10:
            page = await harness.call(
                "history", channel="chat", limit=-1, since={"offset": len(found), "epoch": "epoch"}
            )
            assert 0 < len(page["publications"]) < 7
            found += [publication["offset"] for publication in page["publications"]]
        assert found == list(range(1, 11))
        connections = await harness.call("connections")
        assert connections["truncated"] is True
        assert 0 < len(connections["connections"]) < 4
        for method, request in (("presence", {"channel": "chat"}), ("channels", {})):
            with pytest.raises(CommandError, match=r"larger than api\.response_max_size: use") as caught:
                await harness.call(method, **request)
            assert caught.value.code is LIMIT_EXCEEDED
        assert len((await harness.call("channels", pattern="other1*"))["channels"]) == 11
        assert set(harness.limits_hit()) == {"api.response_max_size"}

    asyncio.run(main())
