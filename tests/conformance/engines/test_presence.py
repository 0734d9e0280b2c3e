"""The clients that are present in a channel."""

from __future__ import annotations

import asyncio

from msgspec import Raw

from beaconfire.engines.port import PresenceStats
from beaconfire.model.publication import ClientInfo

from .harness import Harness, Run

ANN = ClientInfo("ann", "c1", Raw(b'{"name":"Ann"}'), Raw(b"[1]"))
ANN_AGAIN = ClientInfo("ann", "c2")
BOB = ClientInfo("bob", "c3")
TTL_S = 60.0


def test_members_returns_the_added_clients(run: Run) -> None:
    """By client id with their info, for each channel. An unknown channel is empty."""

    async def scenario(h: Harness) -> None:
        presence = h.engine.presence
        await presence.add("a", [ANN], TTL_S)
        await presence.add("a", [BOB], TTL_S)
        await presence.add("b", [BOB], TTL_S)
        assert await presence.members("a") == {"c1": ANN, "c3": BOB}
        assert await presence.members("b") == {"c3": BOB}
        assert await presence.members("c") == {}
        assert await presence.stats("c") == PresenceStats(0, 0)

    run(scenario)


def test_stats_count_clients_and_users(run: Run) -> None:
    """A user with several clients counts once. All anonymous clients together count as one user."""

    async def scenario(h: Harness) -> None:
        for info in (ANN, ANN_AGAIN, BOB, ClientInfo("", "c4"), ClientInfo("", "c5")):
            await h.engine.presence.add("a", [info], TTL_S)
        assert await h.engine.presence.stats("a") == PresenceStats(num_clients=5, num_users=3)
        await h.engine.presence.remove("a", ["c2"])
        assert await h.engine.presence.stats("a") == PresenceStats(num_clients=4, num_users=3)
        await h.engine.presence.remove("a", ["c1"])
        assert await h.engine.presence.stats("a") == PresenceStats(num_clients=3, num_users=2)

    run(scenario)


def test_adding_a_client_again_replaces_its_entry(run: Run) -> None:
    """A client has one entry in a channel: the latest."""

    async def scenario(h: Harness) -> None:
        await h.engine.presence.add("a", [ANN], TTL_S)
        changed = ClientInfo("ann", "c1", Raw(b'{"name":"Anna"}'))
        await h.engine.presence.add("a", [changed], TTL_S)
        assert await h.engine.presence.members("a") == {"c1": changed}
        assert await h.engine.presence.stats("a") == PresenceStats(1, 1)
        await h.engine.presence.add("a", [ClientInfo("bob", "c1")], TTL_S)
        assert await h.engine.presence.stats("a") == PresenceStats(1, 1)

    run(scenario)


def test_remove_is_idempotent(run: Run) -> None:
    """The entry is gone after the first remove. Removing it again, or removing unknown clients, has no effect."""

    async def scenario(h: Harness) -> None:
        await h.engine.presence.add("a", [ANN], TTL_S)
        await h.engine.presence.add("a", [BOB], TTL_S)
        await h.engine.presence.add("b", [ANN], TTL_S)
        for channel, client in (("a", "c1"), ("a", "c1"), ("a", "stranger"), ("nowhere", "c1")):
            await h.engine.presence.remove(channel, [client])
        assert await h.engine.presence.members("a") == {"c3": BOB}
        assert await h.engine.presence.members("b") == {"c1": ANN}

    run(scenario)


def test_entries_expire(run: Run) -> None:
    """An expired entry is neither in members nor in stats."""

    async def scenario(h: Harness) -> None:
        await h.engine.presence.add("a", [ANN], 60.0)
        await h.engine.presence.add("a", [BOB], 20.0)
        await h.advance(21.0)
        assert await h.engine.presence.members("a") == {"c1": ANN}
        assert await h.engine.presence.stats("a") == PresenceStats(1, 1)
        await h.advance(40.0)
        assert await h.engine.presence.members("a") == {}
        assert await h.engine.presence.stats("a") == PresenceStats(0, 0)

    run(scenario)


def test_refreshing_prolongs_an_entry(run: Run) -> None:
    """The time to live starts at the last add."""

    async def scenario(h: Harness) -> None:
        await h.engine.presence.add("a", [ANN], TTL_S)
        for _ in range(5):
            await h.advance(40.0)
            await h.engine.presence.add("a", [ANN], TTL_S)
            assert await h.engine.presence.members("a") == {"c1": ANN}
        await h.advance(59.0)
        assert await h.engine.presence.members("a") == {"c1": ANN}
        await h.advance(2.0)
        assert await h.engine.presence.members("a") == {}

    run(scenario)


def test_a_shorter_time_to_live_counts_from_now(run: Run) -> None:
    """The last add decides, also if the entry then expires earlier than before."""

    async def scenario(h: Harness) -> None:
        await h.engine.presence.add("a", [ANN], 60.0)
        await h.engine.presence.add("a", [ANN], 10.0)
        await h.advance(11.0)
        assert await h.engine.presence.members("a") == {}

    run(scenario)


def test_a_client_can_be_added_again_after_removal(run: Run) -> None:
    """Neither an earlier remove nor an earlier expiry shortens the life of the new entry."""

    async def scenario(h: Harness) -> None:
        await h.engine.presence.add("a", [ANN], 20.0)
        await h.engine.presence.remove("a", ["c1"])
        await h.engine.presence.add("a", [ANN], 60.0)
        await h.advance(30.0)
        assert await h.engine.presence.members("a") == {"c1": ANN}
        await h.advance(40.0)
        await h.engine.presence.add("a", [ANN], 60.0)
        await h.advance(50.0)
        assert await h.engine.presence.members("a") == {"c1": ANN}

    run(scenario)


def test_concurrent_adds_and_removes(run: Run) -> None:
    """Concurrent adds and removes of different clients do not affect each other."""

    async def scenario(h: Harness) -> None:
        presence = h.engine.presence
        await asyncio.gather(*(presence.add("a", [ClientInfo(f"u{n % 7}", f"c{n}")], TTL_S) for n in range(100)))
        assert await presence.stats("a") == PresenceStats(100, 7)
        await asyncio.gather(*(presence.remove("a", [f"c{n}"]) for n in range(0, 100, 2)))
        assert set(await presence.members("a")) == {f"c{n}" for n in range(1, 100, 2)}

    run(scenario)


def test_a_result_belongs_to_the_caller(run: Run) -> None:
    """Changing the returned members does not change the store."""

    async def scenario(h: Harness) -> None:
        await h.engine.presence.add("a", [ANN], TTL_S)
        (await h.engine.presence.members("a")).clear()
        assert await h.engine.presence.members("a") == {"c1": ANN}

    run(scenario)


def test_refresh_prolongs_entries_and_returns_missing_clients(run: Run) -> None:
    """Entries keep their info. A client whose entry has expired, was removed or never existed is returned."""

    async def scenario(h: Harness) -> None:
        presence = h.engine.presence
        await presence.add("a", [ANN, BOB], 60.0)
        await h.advance(50.0)
        assert list(await presence.refresh("a", ["c1"], 60.0)) == []
        await h.advance(20.0)
        assert await presence.members("a") == {"c1": ANN}
        assert sorted(await presence.refresh("a", ["c1", "c3", "unknown"], 60.0)) == ["c3", "unknown"]
        assert list(await presence.refresh("other", ["c1"], 60.0)) == ["c1"]
        assert list(await presence.refresh("a", [], 60.0)) == []
        await h.advance(50.0)
        assert await presence.members("a") == {"c1": ANN}
        assert await presence.members("other") == {}
        await h.advance(20.0)
        assert await presence.members("a") == {}

    run(scenario)


def test_refresh_may_shorten_the_time_to_live(run: Run) -> None:
    """The entry expires after the new time, as with `add`."""

    async def scenario(h: Harness) -> None:
        await h.engine.presence.add("a", [ANN], 60.0)
        await h.engine.presence.refresh("a", ["c1"], 10.0)
        await h.advance(11.0)
        assert await h.engine.presence.members("a") == {}

    run(scenario)


def test_one_call_adds_and_removes_several_clients(run: Run) -> None:
    """Clients that are present already are replaced, and clients that are absent already are ignored."""

    async def scenario(h: Harness) -> None:
        presence = h.engine.presence
        await presence.add("a", [ANN], TTL_S)
        await presence.add("a", [], TTL_S)
        changed = ClientInfo("ann", "c1", Raw(b"2"))
        await presence.add("a", [changed, BOB, ClientInfo("cat", "c4")], TTL_S)
        assert await presence.members("a") == {"c1": changed, "c3": BOB, "c4": ClientInfo("cat", "c4")}
        await presence.remove("a", ["c1", "unknown", "c4"])
        await presence.remove("a", [])
        assert await presence.members("a") == {"c3": BOB}

    run(scenario)
