"""Recoveries that are too large for one reply: they continue in pieces, as fast as the client reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from msgspec import Raw, structs

from beaconfire.base.errors import EngineUnavailable
from beaconfire.base.units import Seconds, Size
from beaconfire.delivery import patches
from beaconfire.engines.port import HistoryPage
from beaconfire.model.publication import Publication
from beaconfire.protocols.fossil import create
from beaconfire.protocols.port import Frame
from beaconfire.session.operations.recover_in_pieces import DELAY_MAX_S
from tests.unit.kit import RECOVERABLE, NodeHarness, run, settle
from tests.unit.session.operations.pieces import (
    ALL_FEATURES,
    PUBLICATION_SIZE,
    TEXT,
    new_harness,
    offsets,
    receive_all,
    run_scenario,
    since,
)


def test_publications_that_do_not_fit_follow_the_reply() -> None:
    """The reply is recovered and has the first piece. The client's position moves with what it gets."""

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
    """It costs no more memory than one piece.

    The rest is sent when the client reads, with everything published meanwhile.
    """

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


def test_recoveries_of_one_session_take_turns() -> None:
    """The subs of one connect share a reply. Then each channel gets a piece in turn, in its order."""

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


def test_position_without_a_piece_is_that_of_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """Offsets may have holes: the offset before the first missed publication need not be a position of the stream."""

    async def scenario() -> None:
        harness = new_harness()
        history = harness.memory.broker.history

        async def without_offset_2(*arguments: Any) -> HistoryPage:
            page = await history(*arguments)
            kept = [publication for publication in page.publications if publication.offset != 2]
            return structs.replace(page, publications=kept)

        monkeypatch.setattr(harness.memory.broker, "history", without_offset_2)
        harness.connect("ann")
        client = harness.open_session()
        epochs = {"news": "epoch1", "sport": "epoch2"}
        subs = {name: {"recover": True, "offset": 1, "epoch": epoch} for name, epoch in epochs.items()}
        found = client.request("connect", token="ann", subs=subs)["subs"]
        assert (found["sport"]["recovered"], found["sport"]["offset"]) == (True, 1)
        assert offsets(await receive_all(client), "sport") == [3, 4, 5, 6, 7]

    run_scenario(scenario)


def test_position_is_the_end_of_the_last_piece() -> None:
    """A client whose connection is cut recovers from there."""

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
def test_history_that_is_gone_between_pieces_is_a_gap(server_side: bool, code: int) -> None:
    """The client must recover again, and then learns that it is not recovered."""

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


def test_unsubscribe_stops_the_recovery() -> None:
    """Nothing of the channel is sent after the unsubscribe reply."""

    async def scenario() -> None:
        harness = new_harness()
        client = harness.connect("ann")
        client.send("subscribe", channel="news", **since())
        number = client.send("unsubscribe", channel="news")
        messages = await receive_all(client)
        assert messages[-1] == {"id": number, "unsubscribe": {}}
        assert client.session.recoveries is None

    run_scenario(scenario)


def test_failing_read_is_a_gap_for_one_channel_only() -> None:
    """The failure is reported, and the session's other recovery continues."""

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


def test_read_is_repeated_while_the_engine_is_not_available() -> None:
    """The client gets all pieces, and what was published meanwhile, and is told of no gap."""

    async def scenario() -> None:
        harness = new_harness()
        client = harness.connect("ann")
        client.request("subscribe", channel="news", **since())
        for _ in range(2):
            harness.calls.fail_next("history", EngineUnavailable("no link"), after=True)
            await settle()
            assert offsets(await receive_all(client)) == []
            harness.publish("news", TEXT)
            harness.advance_time(DELAY_MAX_S)
        assert offsets(await receive_all(client)) == [3, 4, 5, 6, 7, 8, 9]
        assert len(harness.node.background) == 0

    run_scenario(scenario)


def test_recovery_that_waits_for_the_engine_ends_with_its_subscription() -> None:
    """Nothing waits then."""

    async def scenario() -> None:
        harness = new_harness()
        client = harness.connect("ann")
        client.request("subscribe", channel="news", **since())
        harness.calls.fail_next("history", EngineUnavailable("no link"))
        await receive_all(client)
        client.send("unsubscribe", channel="news")
        harness.advance_time(DELAY_MAX_S)
        assert offsets(await receive_all(client)) == []
        assert client.session.recoveries is None

    run_scenario(scenario)


def test_piece_is_read_again_if_the_link_was_lost_during_the_read() -> None:
    """A publication that was announced meanwhile does not continue from the page that was read."""

    async def scenario() -> None:
        harness = new_harness(pieces_of=5)
        client = harness.connect("ann")
        client.request("subscribe", channel="news", **since())
        harness.calls.hold("history", after=True)
        await settle()
        harness.run_scheduled()
        await settle()
        run(harness.memory.broker.detach(["news"]))
        harness.publish("news", TEXT, TEXT)
        harness.node.hub.healer = None  # nobody finds offset 8, which was not announced
        harness.node.hub.publish("news", Publication(Raw(b"9"), offset=9), "epoch1", (), False, 8)
        harness.run_scheduled()
        harness.calls.release("history", after=True)
        assert offsets(await receive_all(client)) == [6, 7, 8, 9]

    run_scenario(scenario)


def test_publications_during_a_read_are_held() -> None:
    """They follow the piece."""

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


def test_filter_and_patches_apply_to_every_piece() -> None:
    """The filter is the same, and patches start from the last publication that was sent."""

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
        # A patch starts from the previous publication, which was filtered out before number 4.
        assert [message["push"]["pub"].get("delta", False) for message in messages] == [True, False, True, True]

    run_scenario(scenario)


def test_joins_are_sent_during_a_recovery() -> None:
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


def test_presence_is_refreshed_during_a_recovery() -> None:
    """The entry does not expire, however long the recovery takes."""

    async def scenario() -> None:
        harness = new_harness(ALL_FEATURES, ping_interval=Seconds(0), presence_update_interval=Seconds(10))
        client = harness.connect("ann")
        client.request("subscribe", channel="news", **since())
        client.transport.writable = False
        await settle()
        harness.advance_time(100)
        assert harness.present_clients("news") == {client.id}

    run_scenario(scenario)


def test_unsubscribe_removes_the_recovery_at_once() -> None:
    """A client that does not read and subscribes again and again has one recovery per channel."""

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


def test_patches_of_pieces_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that come back after a network failure have missed the same publications."""
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


def test_subscription_has_no_position_before_the_reply() -> None:
    """The reply has the first piece. A client that is cut before it must not continue after it."""

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


def test_channel_name_counts_against_the_size_of_a_piece() -> None:
    """Each push of a piece has the channel name.

    A piece larger than the outbox would disconnect the client again and again.
    """

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

        def write_once(frames: Sequence[Frame]) -> None:
            write(frames)
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
