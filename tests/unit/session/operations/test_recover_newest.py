"""Recoveries in pieces that send only the newest publication: of caches and of conflated subscriptions."""

from __future__ import annotations

import pytest
from msgspec import structs

from beaconfire.base.units import Seconds
from beaconfire.channels.options import ChannelOptions
from beaconfire.model.grants import SubscriptionGrant
from beaconfire.model.identity import Identity
from tests.unit.kit import RECOVERABLE, HarnessClient, NodeHarness, settle
from tests.unit.session.operations.pieces import TEXT, new_harness, offsets, receive_all, run_scenario

CACHE = ChannelOptions(
    allow_subscribe_for_client=True,
    history_size=1,
    history_ttl=Seconds(300),
    force_recovery=True,
    force_recovery_mode="cache",
    auto_cache_recover=True,
)


def connect_to_caches(harness: NodeHarness) -> HarnessClient:
    """A client with server-side subscriptions to the caches of both channels. The first publication fills the reply."""
    harness.tokens.connections.known["ann"] = Identity(
        "ann", channels={"news": SubscriptionGrant(), "sport": SubscriptionGrant()}
    )
    client = harness.open_session()
    client.send("connect", token="ann")
    return client


def test_cached_publication_that_does_not_fit_follows_the_reply() -> None:
    """Only the latest publication counts. The ones before it are no gap."""

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


def test_cache_that_changes_before_its_piece() -> None:
    """The client gets the publication that is the latest then, once."""

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


def test_cache_that_is_emptied_before_its_piece() -> None:
    """The client gets nothing from the cache, and then gets later publications."""

    async def scenario() -> None:
        harness = new_harness(CACHE, pieces_of=1)
        client = connect_to_caches(harness)
        client.receive()
        await harness.memory.broker.remove_history("sport")
        assert offsets(await receive_all(client), "sport") == []
        harness.publish("sport", TEXT)
        assert offsets(await receive_all(client), "sport") == [8]

    run_scenario(scenario)


def test_conflated_subscriptions_share_the_reply() -> None:
    """Each gets at most one publication, but a client may have many of them.

    One that does not fit follows the reply, with its left-out count.
    """

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
def test_conflated_recovery_with_several_reads(limit: int) -> None:
    """More was published meanwhile than one read returns.

    The newest publication is sent in the end, and none stays held.
    """

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
