"""publish and broadcast, on a real node with connected clients."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest

from beaconfire.base.errors import (
    BAD_REQUEST,
    NOT_AVAILABLE,
    OUT_OF_SEQUENCE,
    UNKNOWN_CHANNEL,
    CommandError,
    ErrorCode,
)
from tests.unit.api.harness import ApiHarness


def test_publish_stores_and_delivers() -> None:
    """Subscribers get the data, the backend gets the position, and offsets rise by one."""

    async def main() -> None:
        harness = await ApiHarness().start()
        client = harness.connect("ann", "chat")
        assert await harness.call("publish", channel="chat", data={"n": 1}) == {
            "offset": 1,
            "epoch": "epoch",
            "durability": "memory",
        }
        assert await harness.call("publish", channel="chat", data=[2]) == {
            "offset": 2,
            "epoch": "epoch",
            "durability": "memory",
        }
        assert client.data() == [{"n": 1}, [2]]

    asyncio.run(main())


def test_publish_without_history_has_no_position() -> None:
    """The result is empty. With `skip_history` it is also empty, and the stored offsets do not change."""

    async def main() -> None:
        harness = await ApiHarness().start()
        client = harness.connect("ann", "chat", "fleeting:x")
        assert await harness.call("publish", channel="fleeting:x", data=1) == {}
        assert await harness.call("publish", channel="chat", data=2, skip_history=True) == {}
        assert await harness.call("publish", channel="chat", data=3) == {
            "offset": 1,
            "epoch": "epoch",
            "durability": "memory",
        }
        assert client.data() == [1, 2, 3]

    asyncio.run(main())


def test_numbered_publishes_are_made_once() -> None:
    """A repeated number gets the first result. A gap gets error 150, which names the expected number."""

    async def main() -> None:
        harness = await ApiHarness().start()
        client = harness.connect("ann", "chat")
        first = await harness.call("publish", channel="chat", data=1, producer="relay", seq=1)
        await harness.call("publish", channel="chat", data=2, producer="relay", seq=2)
        assert await harness.call("publish", channel="chat", data=1, producer="relay", seq=1) == first
        with pytest.raises(CommandError) as refused:
            await harness.call("publish", channel="chat", data=4, producer="relay", seq=4)
        assert refused.value.code is OUT_OF_SEQUENCE
        assert "expected 3" in refused.value.detail
        assert client.data() == [1, 2]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("channel", "fields", "code", "detail"),
    [
        ("chat", {"seq": 1}, BAD_REQUEST, "producer and seq"),
        ("chat", {"producer": "relay"}, BAD_REQUEST, "producer and seq"),
        ("fleeting:x", {"producer": "relay", "seq": 1}, NOT_AVAILABLE, "history"),
        ("chat", {"producer": "relay", "seq": 1, "skip_history": True}, NOT_AVAILABLE, "history"),
    ],
)
def test_numbers_need_a_producer_and_history(
    channel: str, fields: dict[str, Any], code: ErrorCode, detail: str
) -> None:
    """The error names what is missing, and nothing is published."""

    async def main() -> None:
        harness = await ApiHarness().start()
        client = harness.connect("ann", "chat", "fleeting:x")
        with pytest.raises(CommandError) as refused:
            await harness.call("publish", channel=channel, data=1, **fields)
        assert refused.value.code is code
        assert detail in refused.value.detail
        assert client.data() == []

    asyncio.run(main())


def test_null_can_be_published() -> None:
    """JSON's null is not the same as missing data."""

    async def main() -> None:
        harness = await ApiHarness().start()
        client = harness.connect("ann", "chat")
        await harness.call("publish", channel="chat", data=None)
        assert client.pushes("pub")[0]["data"] is None
        assert client.pushes("pub")[0]["offset"] == 1

    asyncio.run(main())


def test_data_in_base64() -> None:
    """`b64data` has the same effect as `data`. A null `data` next to it counts as missing."""

    async def main() -> None:
        harness = await ApiHarness().start()
        client = harness.connect("ann", "chat")
        await harness.call("publish", channel="chat", b64data=base64.b64encode(b'{"n":1}').decode(), data=None)
        assert client.data() == [{"n": 1}]

    asyncio.run(main())


def test_tags_are_delivered_and_stored() -> None:
    """Subscribers get them, and history has them."""

    async def main() -> None:
        harness = await ApiHarness().start()
        client = harness.connect("ann", "chat")
        await harness.call("publish", channel="chat", data=1, tags={"lang": "en"})
        assert client.pushes("pub")[0]["tags"] == {"lang": "en"}
        page = await harness.call("history", channel="chat", limit=-1)
        assert page["publications"][0]["tags"] == {"lang": "en"}

    asyncio.run(main())


def test_delta_is_passed_to_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """With publish and broadcast, and only if requested."""
    allowed: list[bool] = []

    async def main() -> None:
        harness = await ApiHarness().start()
        harness.connect("ann", "chat")
        monkeypatch.setattr(harness.node.hub, "publish", lambda *arguments: allowed.append(arguments[4]))
        await harness.call("publish", channel="chat", data=1, delta=True)
        await harness.call("publish", channel="chat", data=1)
        await harness.call("broadcast", channels=["chat"], data=1, delta=True)

    asyncio.run(main())
    assert allowed == [True, False, True]


def test_exclude_affects_only_live_delivery() -> None:
    """The excluded client does not get the publication, other clients do, and history has it."""

    async def main() -> None:
        harness = await ApiHarness().start()
        ann, bob = harness.connect("ann", "chat"), harness.connect("bob", "chat")
        await harness.call("publish", channel="chat", data=1, exclude=[ann.id, "unknown"])
        await harness.call("broadcast", channels=["chat"], data=2, exclude=[bob.id])
        assert (ann.data(), bob.data()) == ([2], [1])
        page = await harness.call("history", channel="chat", limit=-1)
        assert [publication["data"] for publication in page["publications"]] == [1, 2]

    asyncio.run(main())


def test_idempotency_key() -> None:
    """The second publish with a key in the same channel has no effect and gets the position of the first one."""

    async def main() -> None:
        harness = await ApiHarness().start()
        client = harness.connect("ann", "chat", "other")
        first = await harness.call("publish", channel="chat", data=1, idempotency_key="k")
        await harness.call("publish", channel="chat", data=2)
        assert await harness.call("publish", channel="chat", data=3, idempotency_key="k") == first
        assert await harness.call("publish", channel="other", data=4, idempotency_key="k") == first
        assert client.data() == [1, 2, 4]
        harness.clock.advance(301)
        assert (await harness.call("publish", channel="chat", data=5, idempotency_key="k"))["offset"] == 3

    asyncio.run(main())


def test_version_suppression() -> None:
    """A version that is not newer is not published; the result is the current position. Versions of other epochs are
    not compared.
    """

    async def main() -> None:
        harness = await ApiHarness().start()
        client = harness.connect("ann", "chat")
        await harness.call("publish", channel="chat", data=1, version=5)
        assert await harness.call("publish", channel="chat", data=2, version=5) == {
            "offset": 1,
            "epoch": "epoch",
            "durability": "memory",
        }
        assert (await harness.call("publish", channel="chat", data=3, version=6))["offset"] == 2
        assert (await harness.call("publish", channel="chat", data=4, version=1, version_epoch="new"))["offset"] == 3
        assert client.data() == [1, 3, 4]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("request_", "code", "word"),
    [
        ({"data": 1}, BAD_REQUEST, "channel"),
        ({"channel": "", "data": 1}, BAD_REQUEST, "channel"),
        ({"channel": "x" * 41, "data": 1}, BAD_REQUEST, "channel_names.max_length"),
        ({"channel": "nowhere:x", "data": 1}, UNKNOWN_CHANNEL, "nowhere"),
        ({"channel": "chat"}, BAD_REQUEST, "data"),
        ({"channel": "strict:x", "data": [1]}, BAD_REQUEST, "JSON object"),
        ({"channel": "chat", "b64data": "no base64!"}, BAD_REQUEST, "b64data"),
        ({"channel": "chat", "b64data": "YQ"}, BAD_REQUEST, "b64data"),
        ({"channel": "chat", "b64data": "é"}, BAD_REQUEST, "b64data"),
        ({"channel": "chat", "data": 1, "b64data": "YQ=="}, BAD_REQUEST, "not both"),
        ({"channel": "chat", "data": 1, "tags": ["x"]}, BAD_REQUEST, "tags"),
        ({"channel": "chat", "data": 1, "exclude": "client-1"}, BAD_REQUEST, "exclude"),
        ({"channel": "chat", "data": 1, "version": "5"}, BAD_REQUEST, "version"),
        ({"channel": "chat", "data": 1, "delta": "fossil"}, BAD_REQUEST, "delta"),
        ({"channel": "chat", "data": 1, "idempotency_key": "k" * 1025}, BAD_REQUEST, "idempotency_key"),
    ],
)
def test_invalid_publishes_are_rejected(request_: dict[str, Any], code: ErrorCode, word: str) -> None:
    """The error has the right code and names the field, and nothing is published."""

    async def main() -> None:
        harness = await ApiHarness().start()
        client = harness.connect("ann", "chat")
        with pytest.raises(CommandError) as caught:
            await harness.call("publish", **request_)
        assert caught.value.code is code
        assert word in caught.value.detail
        assert client.data() == []
        assert harness.calls() == [("publish", code.code)]

    asyncio.run(main())


def test_binary_namespaces_accept_any_data() -> None:
    """Also empty data, as `publication_data_format` defines."""

    async def main() -> None:
        harness = await ApiHarness().start()
        assert (await harness.call("publish", channel="open:x", b64data="/w=="))["offset"] == 1
        assert (await harness.call("publish", channel="open:x"))["offset"] == 2
        page = await harness.call("history", channel="open:x", limit=-1)
        assert page["publications"] == [{"b64data": "/w==", "offset": 1}, {"offset": 2}]

    asyncio.run(main())


def test_broadcast_responses_are_in_order() -> None:
    """Publishing in each channel succeeds or fails separately."""

    async def main() -> None:
        harness = await ApiHarness().start()
        client = harness.connect("ann", "chat", "fleeting:x")
        result = await harness.call("broadcast", channels=["chat", "nowhere:x", "", "fleeting:x", "strict:x"], data=1)
        responses = result["responses"]
        assert responses[0] == {"result": {"offset": 1, "epoch": "epoch", "durability": "memory"}}
        assert [response.get("error", {}).get("code") for response in responses] == [None, 102, 107, None, 107]
        assert responses[3] == {"result": {}}
        assert client.data() == [1, 1]

    asyncio.run(main())


def test_broadcast_needs_channels_and_valid_data() -> None:
    """Errors that affect all channels are errors of the whole call."""

    async def main() -> None:
        harness = await ApiHarness().start()
        for request in ({"channels": [], "data": 1}, {"data": 1}, {"channels": ["chat"], "b64data": "!"}):
            with pytest.raises(CommandError):
                await harness.call("broadcast", **request)

    asyncio.run(main())


def test_a_failing_engine_fails_one_channel_of_a_broadcast(monkeypatch: pytest.MonkeyPatch) -> None:
    """The positions of other channels are still returned, and the exception is reported."""

    async def main() -> None:
        harness = await ApiHarness().start()
        publish = harness.engine.broker.publish

        async def fail_in_chat(channel: str, *rest: Any, **more: Any) -> Any:
            if channel == "chat":
                raise OSError("no link")
            return await publish(channel, *rest, **more)

        monkeypatch.setattr(harness.engine.broker, "publish", fail_in_chat)
        responses = (await harness.call("broadcast", channels=["chat", "other"], data=1))["responses"]
        assert responses == [
            {"error": {"code": 100, "message": "internal server error"}},
            {"result": {"offset": 1, "epoch": "epoch", "durability": "memory"}},
        ]
        assert harness.internal_errors() == ["api broadcast"]

    asyncio.run(main())
