"""Recoveries that are too large for one reply: they go on in pieces, as fast as the client reads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from msgspec import structs

from beaconfire.base.units import Seconds, Size
from beaconfire.channels.options import ChannelOptions
from beaconfire.delivery import patches
from beaconfire.model.grants import SubscriptionGrant
from beaconfire.model.identity import Identity
from beaconfire.protocols.fossil import create
from beaconfire.session.reply_budget import PUBLICATION_BYTES
from tests.unit.kit import RECOVERABLE, HarnessClient, NodeHarness, settle

TEXT = "x" * 98
PUBLICATION_SIZE = PUBLICATION_BYTES + 100
"""The size of a publication of TEXT."""

ALL_FEATURES = ChannelOptions(
    allow_subscribe_for_client=True,
    presence=True,
    join_leave=True,
    force_push_join_leave=True,
    history_size=10,
    history_ttl=Seconds(300),
    force_recovery=True,
    allow_tags_filter=True,
    allowed_delta_types=["fossil"],
)


def run_scenario(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(scenario())


def new_harness(channel: ChannelOptions = RECOVERABLE, pieces_of: int = 2, **options: Any) -> NodeHarness:
    """A harness in whose replies so many publications fit, with seven of them in each of two channels."""
    harness = NodeHarness(channel, reply_max_size=Size(PUBLICATION_SIZE * pieces_of), **options)
    for name in ("news", "sport"):
        harness.publish(name, *[TEXT] * 7)
    return harness


def since(offset: int = 0) -> dict[str, Any]:
    return {"recover": True, "offset": offset, "epoch": "epoch1"}


async def receive_all(client: HarnessClient) -> list[dict[str, Any]]:
    """What arrives until nothing more does."""
    found: list[dict[str, Any]] = []
    for _ in range(20):  # more turns than there are pieces
        await settle()
        found += client.receive()
    return found


def offsets(messages: list[dict[str, Any]], channel: str = "news") -> list[int]:
    """Of the publications pushed in a channel, which must be all that was pushed there."""
    pushes = [message["push"] for message in messages if message.get("push", {}).get("channel") == channel]
    return [push["pub"]["offset"] for push in pushes]


def test_what_does_not_fit_follows_the_reply() -> None:
    """The reply is recovered and holds the first piece; the client's position moves with what it gets."""

    async def scenario() -> None:
        harness = new_harness()
        client = harness.connect("ann")
        result = client.request("subscribe", channel="news", **since())
        assert (result["recovered"], result.get("offset", 0)) == (True, 0)
        assert [publication["offset"] for publication in result["publications"]] == [1, 2]
        assert offsets(await receive_all(client)) == [3, 4, 5, 6, 7]
        harness.publish("news", TEXT)
        assert offsets(await receive_all(client)) == [8]
        assert harness.recorder.limits() == ["client.reply_max_size"]

    run_scenario(scenario)


def test_a_client_that_does_not_read_gets_one_piece() -> None:
    """And costs no more than that. The rest comes when it reads, whatever was published meanwhile."""

    async def scenario() -> None:
        harness = new_harness()
        client = harness.connect("ann")
        client.request("subscribe", channel="news", **since())
        client.transport.writable = False
        assert await receive_all(client) == []
        harness.publish("news", TEXT, TEXT)
        assert await receive_all(client) == []
        assert client.session.outbox.queued_bytes < 3 * PUBLICATION_SIZE
        client.transport.writable = True
        client.session.on_writable()
        await settle()
        assert offsets(await receive_all(client)) == [3, 4, 5, 6, 7, 8, 9]

    run_scenario(scenario)


def test_channels_take_turns() -> None:
    """The subs of one connect share one reply, and then each gets a piece in turn; each channel stays in order."""

    async def scenario() -> None:
        harness = new_harness()
        harness.connect("ann")
        client = harness.open_session()
        epochs = {"news": "epoch1", "sport": "epoch2"}
        subs = {name: {"recover": True, "offset": 1, "epoch": epoch} for name, epoch in epochs.items()}
        found = client.request("connect", token="ann", subs=subs)["subs"]
        assert [publication["offset"] for publication in found["news"]["publications"]] == [2, 3]
        assert (found["sport"]["recovered"], found["sport"]["offset"]) == (True, 1)
        assert "publications" not in found["sport"]
        messages = await receive_all(client)
        assert offsets(messages, "news") == [4, 5, 6, 7]
        assert offsets(messages, "sport") == [2, 3, 4, 5, 6, 7]
        order = [message["push"]["channel"] for message in messages]
        assert order == ["news", "news", "sport", "sport"] * 2 + ["sport", "sport"]

    run_scenario(scenario)


def test_positions_are_those_of_what_was_sent() -> None:
    """A client that is cut in the middle goes on from there."""

    async def scenario() -> None:
        harness = new_harness()
        client = harness.connect("ann")
        client.request("subscribe", channel="news", **since())
        assert client.session.positions() == {"news": (2, "epoch1")}
        client.transport.writable = False
        await settle()
        client.drop_connection()
        harness.run_scheduled()
        await settle()
        assert client.session.positions() is None
        assert harness.node.hub.statistics().subscriptions == 0
        assert len(harness.node.background) == 0

    run_scenario(scenario)


@pytest.mark.parametrize(("server_side", "code"), [(False, 2500), (True, 3010)])
def test_history_that_is_gone_meanwhile_is_a_gap(server_side: bool, code: int) -> None:
    """The client is told to recover, and then it is told that it can't."""

    async def scenario() -> None:
        harness = new_harness()
        client = harness.connect("ann") if not server_side else harness.open_session()
        if server_side:
            harness.connect("ann")
            client.request("connect", token="ann", subs={"news": since()})
        else:
            client.request("subscribe", channel="news", **since())
        client.transport.writable = False
        await settle()
        harness.publish("news", *[TEXT] * 10)
        harness.run_scheduled()
        client.transport.writable = True
        client.session.on_writable()
        await settle()
        messages = await receive_all(client)
        code = client.disconnect_code or messages[-1]["push"]["unsubscribe"]["code"]
        assert code == code

    run_scenario(scenario)


def test_who_leaves_gets_nothing_more() -> None:
    """Nothing of the channel comes after the reply to unsubscribe."""

    async def scenario() -> None:
        harness = new_harness()
        client = harness.connect("ann")
        client.send("subscribe", channel="news", **since())
        number = client.send("unsubscribe", channel="news")
        messages = await receive_all(client)
        assert messages[-1] == {"id": number, "unsubscribe": {}}
        assert client.session.recoveries is None

    run_scenario(scenario)


def test_a_failing_engine_is_a_gap_for_one_and_nothing_for_the_next() -> None:
    """The failure is reported; the other recovery of the session goes on."""

    async def scenario() -> None:
        harness = new_harness()
        harness.recorder.expects_errors = True
        client = harness.connect("ann")
        client.request("subscribe", channel="news", **since())
        client.request("subscribe", channel="sport", recover=True, offset=3, epoch="epoch2")
        harness.calls.fail_next("history", OSError("no engine"))
        await settle()
        messages = await receive_all(client)
        assert offsets(messages, "sport") == [6, 7]
        assert {"channel": "news", "unsubscribe": {"code": 2500, "reason": "insufficient state"}} in [
            message["push"] for message in messages
        ]

    run_scenario(scenario)


def test_a_slow_engine_loses_nothing() -> None:
    """What is published while history is read on is held, and follows it."""

    async def scenario() -> None:
        harness = new_harness(pieces_of=5)
        client = harness.connect("ann")
        client.request("subscribe", channel="news", **since())
        harness.calls.hold("history")
        await settle()
        harness.run_scheduled()
        await settle()
        harness.publish("news", TEXT)
        harness.run_scheduled()
        harness.calls.release("history")
        await settle()
        assert offsets(await receive_all(client)) == [6, 7, 8]

    run_scenario(scenario)


def test_the_wishes_of_a_subscription_hold_for_every_piece() -> None:
    """A filter passes the same, and patches start from what the client was given last."""

    async def scenario() -> None:
        harness = NodeHarness(ALL_FEATURES, reply_max_size=Size(PUBLICATION_SIZE))
        for number in range(1, 7):
            harness.publish("news", f"{TEXT}{number}", tags={"number": str(number)})
        client = harness.connect("ann")
        not_three = {"key": "number", "cmp": "neq", "val": "3"}
        result = client.request("subscribe", channel="news", tf=not_three, delta="fossil", **since())
        assert [publication["offset"] for publication in result["publications"]] == [1]
        messages = [message for message in await receive_all(client) if "pub" in message["push"]]
        assert offsets(messages) == [2, 4, 5, 6]
        # A patch starts from the neighbour, which number 4 does not have.
        assert [message["push"]["pub"].get("delta", False) for message in messages] == [True, False, True, True]

    run_scenario(scenario)


def test_others_are_announced_meanwhile() -> None:
    """Joins have no place among publications, and the client knows that it is subscribed."""

    async def scenario() -> None:
        harness = new_harness(ALL_FEATURES)
        client = harness.connect("ann")
        client.request("subscribe", channel="news", **since())
        client.transport.writable = False
        await settle()
        harness.connect("bob", "news")
        client.transport.writable = True
        client.session.on_writable()
        await settle()
        joins = [
            message["push"]["join"]["info"]["user"]
            for message in await receive_all(client)
            if "join" in message["push"]
        ]
        assert "bob" in joins

    run_scenario(scenario)


def test_presence_lasts_however_long_it_takes() -> None:
    """It is refreshed, as that of subscriptions that are live."""

    async def scenario() -> None:
        harness = new_harness(ALL_FEATURES, ping_interval=Seconds(0), presence_update_interval=Seconds(10))
        client = harness.connect("ann")
        client.request("subscribe", channel="news", **since())
        client.transport.writable = False
        await settle()
        harness.advance_time(100)
        assert harness.present_clients("news") == {client.id}

    run_scenario(scenario)


CACHE = ChannelOptions(
    allow_subscribe_for_client=True,
    history_size=1,
    history_ttl=Seconds(300),
    force_recovery=True,
    force_recovery_mode="cache",
    auto_cache_recover=True,
)


def connect_to_caches(harness: NodeHarness) -> HarnessClient:
    """In the caches of both channels by a token; the first one's publication alone fills the reply."""
    harness.tokens.connections.known["ann"] = Identity(
        "ann", channels={"news": SubscriptionGrant(), "sport": SubscriptionGrant()}
    )
    client = harness.open_session()
    client.send("connect", token="ann")
    return client


def test_a_cache_for_which_a_reply_has_no_room_follows_it() -> None:
    """Only its latest publication counts, wherever the client was: what came before is no gap."""

    async def scenario() -> None:
        harness = new_harness(CACHE, pieces_of=1)
        client = connect_to_caches(harness)
        subs = client.receive()[0]["connect"]["subs"]
        assert [publication["offset"] for publication in subs["news"]["publications"]] == [7]
        assert "publications" not in subs["sport"]
        assert offsets(await receive_all(client), "sport") == [7]
        harness.publish("sport", TEXT)
        assert offsets(await receive_all(client), "sport") == [8]
        assert client.disconnect_code == 0

    run_scenario(scenario)


def test_a_cache_that_changes_before_its_turn() -> None:
    """The client is given what is the latest then, once."""

    async def scenario() -> None:
        harness = new_harness(CACHE, pieces_of=1)
        client = connect_to_caches(harness)
        client.receive()
        client.transport.writable = False
        await settle()
        harness.publish("sport", TEXT, TEXT)
        client.transport.writable = True
        client.session.on_writable()
        assert offsets(await receive_all(client), "sport") == [9]
        assert client.disconnect_code == 0

    run_scenario(scenario)


def test_a_cache_that_is_emptied_before_its_turn() -> None:
    """There is nothing to be given, and the client hears what comes."""

    async def scenario() -> None:
        harness = new_harness(CACHE, pieces_of=1)
        client = connect_to_caches(harness)
        client.receive()
        await harness.memory.broker.remove_history("sport")
        assert offsets(await receive_all(client), "sport") == []
        harness.publish("sport", TEXT)
        assert offsets(await receive_all(client), "sport") == [8]

    run_scenario(scenario)


def test_recoveries_that_are_given_up_are_forgotten_at_once() -> None:
    """However often a client that does not read subscribes and unsubscribes, one recovery for each channel is kept."""

    async def scenario() -> None:
        harness = new_harness()
        client = harness.connect("ann")
        client.request("subscribe", channel="sport", **since())
        client.transport.writable = False
        await settle()
        for _ in range(50):
            client.send("subscribe", channel="news", **since())
            client.send("unsubscribe", channel="news")
        client.send("subscribe", channel="news", **since())
        assert len(client.session.recoveries or ()) <= 2
        client.transport.writable = True
        client.session.on_writable()
        client.receive()
        assert offsets(await receive_all(client)) == [3, 4, 5, 6, 7]

    run_scenario(scenario)


def test_conflating_subscriptions_share_the_reply_too() -> None:
    """Each is told one publication at most, but a client may have any number of them up to its limit of channels. What
    has no room comes afterwards, and says how many were left out before it."""

    async def scenario() -> None:
        harness = new_harness(pieces_of=1)
        harness.connect("ann")
        client = harness.open_session()
        epochs = {"news": "epoch1", "sport": "epoch2"}
        rate = {"max_rate": 1}
        subs = {
            name: {"recover": True, "offset": 1, "epoch": epoch, "conflate": rate} for name, epoch in epochs.items()
        }
        found = client.request("connect", token="ann", subs=subs)["subs"]
        assert [publication["offset"] for publication in found["news"]["publications"]] == [7]
        assert (found["sport"]["recovered"], found["sport"]["offset"]) == (True, 1)
        assert "publications" not in found["sport"]
        assert (client.session.positions() or {})["sport"] == (1, "epoch2")
        [push] = [message["push"] for message in await receive_all(client)]
        assert (push["channel"], push["pub"]["offset"], push["pub"]["conflated"]) == ("sport", 7, 5)
        assert (client.session.positions() or {})["sport"] == (7, "epoch2")

    run_scenario(scenario)


@pytest.mark.parametrize("limit", [3, 5])
def test_a_conflating_recovery_that_takes_several_reads(limit: int) -> None:
    """More was published meanwhile than one read gives. The newest comes in the end; nothing stays owed."""

    async def scenario() -> None:
        harness = new_harness(
            structs.replace(RECOVERABLE, history_size=100), pieces_of=1, recovery_max_publication_limit=limit
        )
        harness.connect("ann")
        client = harness.open_session()
        epochs = {"news": "epoch1", "sport": "epoch2"}
        subs = {
            name: {"recover": True, "offset": 5, "epoch": epoch, "conflate": {"max_rate": 1}}
            for name, epoch in epochs.items()
        }
        client.send("connect", token="ann", subs=subs)
        client.receive()
        client.transport.writable = False
        await settle()
        harness.publish("sport", *[TEXT] * 20)
        client.transport.writable = True
        client.session.on_writable()
        messages = await receive_all(client)
        harness.advance_time(2)
        found = offsets(messages + await receive_all(client), "sport")
        assert found == sorted(set(found))
        assert found[-1] == 27
        assert (client.session.positions() or {})["sport"] == (27, "epoch2")

    run_scenario(scenario)


def test_patches_of_pieces_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand clients that come back after a cut have missed the same."""
    made = []

    def count(source: bytes, target: bytes) -> bytes | None:
        made.append(target)
        return create(source, target)

    monkeypatch.setattr(patches, "create", count)

    async def scenario() -> None:
        harness = new_harness(ALL_FEATURES)
        for user in ("ann", "bob"):
            client = harness.connect(user)
            client.request("subscribe", channel="news", delta="fossil", **since())
            await receive_all(client)
        assert len(made) == 6

    run_scenario(scenario)


def test_no_position_before_the_reply() -> None:
    """The first piece is in it: who was cut before would go on after what was never sent."""

    async def scenario() -> None:
        harness = new_harness(ALL_FEATURES)
        client = harness.connect("ann")
        harness.calls.hold("presence_add")
        client.send("subscribe", channel="news", **since())
        await settle()
        assert client.session.positions() == {}
        harness.calls.release("presence_add")
        await settle()
        assert offsets([m for m in await receive_all(client) if "pub" in m.get("push", {})]) == [3, 4, 5, 6, 7]
        assert client.session.positions() == {"news": (7, "epoch1")}

    run_scenario(scenario)


def test_a_piece_of_small_publications_fits_whatever_the_name_of_the_channel() -> None:
    """Each of them comes with the name. A piece that is larger than the queue would end the session as slow, and its
    next one, too."""

    async def scenario() -> None:
        channel = "n" * 250
        harness = NodeHarness(
            structs.replace(RECOVERABLE, history_size=1000),
            reply_max_size=Size(10_000),
            queue_max_size=Size(20_000),
            recovery_max_publication_limit=1000,
        )
        harness.publish(channel, *range(1000))
        client = harness.connect("ann")
        transport = client.transport
        write = transport.write

        def write_once(data: bytes) -> None:
            write(data)
            transport.writable = False

        transport.write = write_once  # type: ignore[method-assign]
        client.request("subscribe", channel=channel, **since())
        found: list[int] = []
        for _ in range(300):
            transport.writable = True
            client.session.on_writable()
            await settle()
            found += offsets(client.receive(), channel)
        assert (client.disconnect_code, found[-1:]) == (0, [1000])
        assert found == list(range(found[0], 1001))

    run_scenario(scenario)
