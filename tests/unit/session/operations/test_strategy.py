"""Filters, deltas (sections 11, 12 of the protocol reference) and conflation: who may have them, what comes then."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from msgspec import Raw

from beaconfire.base.units import Seconds
from beaconfire.channels.options import ChannelOptions
from beaconfire.delivery.tags_filter import DEPTH_MAX
from beaconfire.model.events import RecoveryFinished
from beaconfire.model.identity import Identity
from beaconfire.protocols.fossil import create
from tests.unit.kit import Client, World, settle
from tests.unit.patching import apply
from tests.unit.patching import chained_text as text

KEEN = {"key": "kind", "cmp": "eq", "val": "keen"}
FOSSIL = {"delta": "fossil"}


def with_strategy(**options: Any) -> ChannelOptions:
    """A namespace in which everything may be asked for and recovered."""
    return ChannelOptions(
        **{
            "allow_subscribe_for_client": True,
            "allow_publish_for_client": True,
            "allow_history_for_client": True,
            "history_size": 10,
            "history_ttl": Seconds(300),
            "force_recovery": True,
            "allow_tags_filter": True,
            "allowed_delta_types": ["fossil"],
            "delta_publish": True,
            **options,
        }
    )


def pushed(client: Client) -> list[dict[str, Any]]:
    return [push["pub"] for push in client.take_pushes()]


def publish(world: World, *kinds: str) -> None:
    for kind in kinds:
        world.publish("news", kind, tags={"kind": kind})


class Reader:
    """Puts publications together, as an SDK does for a subscription of its own."""

    def __init__(self) -> None:
        self.base = b""
        self.patched: list[bool] = []

    def read(self, publications: list[dict[str, Any]]) -> list[Any]:
        """The data of each. It must all have come as JSON strings."""
        data = []
        for publication in publications:
            told = publication["data"].encode()
            self.patched.append(publication.get("delta", False))
            self.base = apply(self.base, told) if self.patched[-1] else told
            data.append(json.loads(self.base))
        return data


# --- filters


def test_only_what_passes_comes() -> None:
    """Others get everything, and so does history."""
    world = World(with_strategy())
    filtered, other = world.connect("ann"), world.connect("bob", "news")
    filtered.ask("subscribe", channel="news", tf=KEEN)
    publish(world, "keen", "dull", "keen")
    assert [publication["offset"] for publication in pushed(filtered)] == [1, 3]
    assert [publication["offset"] for publication in pushed(other)] == [1, 2, 3]
    assert len(filtered.ask("history", channel="news", limit=10)["publications"]) == 3
    assert world.node.statistics().filtered_total == 1


def test_without_positions_too() -> None:
    """A filter needs no history."""
    world = World(with_strategy(history_size=0, history_ttl=Seconds(0), force_recovery=False))
    client = world.connect("ann")
    client.ask("subscribe", channel="news", tf={"op": "not", "nodes": [KEEN]})
    publish(world, "keen", "dull")
    world.publish("news", "untagged")
    assert [publication["data"] for publication in pushed(client)] == ["dull", "untagged"]


def test_what_does_not_pass_moves_the_position() -> None:
    """It is no gap, neither at once nor for the check of positions, and the client stays subscribed."""
    world = World(with_strategy())
    client = world.connect("ann")
    client.ask("subscribe", channel="news", tf=KEEN)
    publish(world, "dull", "dull")
    assert pushed(client) == []
    [subscription] = world.node.hub.subscribers("news")
    assert subscription.position == (2, "epoch1")
    publish(world, "keen")
    assert [publication["offset"] for publication in pushed(client)] == [3]


RECOVERED: list[tuple[str, list[str], list[int], int]] = [
    ("some pass", ["keen", "dull", "keen", "dull"], [1, 3], 0),
    ("none passes, and the client need not ask for them again", ["dull", "dull"], [], 2),
    ("nothing was missed", [], [], 0),
]


@pytest.mark.parametrize(("what", "kinds", "offsets", "offset"), RECOVERED, ids=[row[0] for row in RECOVERED])
def test_recovery_is_filtered(what: str, kinds: list[str], offsets: list[int], offset: int) -> None:
    """Whatever was missed is recovered, what passes of it is sent."""
    world = World(with_strategy())
    publish(world, *kinds)
    client = world.connect("ann")
    result = client.ask("subscribe", channel="news", tf=KEEN, recover=True, offset=0, epoch="")
    assert result["recovered"] is True
    assert [publication["offset"] for publication in result.get("publications", [])] == offsets
    assert result.get("offset", 0) == offset
    [event] = world.recorder.of(RecoveryFinished)
    assert (event.recovered, event.publications) == (True, len(offsets))


def test_a_filter_does_not_hide_what_is_lost() -> None:
    """Whether everything is there is asked before filtering."""
    world = World(with_strategy(history_size=2))
    publish(world, "keen", "dull", "dull", "dull")
    client = world.connect("ann")
    result = client.ask("subscribe", channel="news", tf=KEEN, recover=True, offset=1, epoch="epoch1")
    assert "recovered" not in result
    assert result["offset"] == 4


@pytest.mark.parametrize(("latest", "given"), [("keen", ["keen"]), ("dull", [])])
def test_caches_are_filtered(latest: str, given: list[str]) -> None:
    """The latest publication is recovered, and sent if it passes."""
    world = World(with_strategy(force_recovery_mode="cache"))
    publish(world, "keen", latest)
    client = world.connect("ann")
    result = client.ask("subscribe", channel="news", tf=KEEN, recover=True, offset=0, epoch="")
    assert result["recovered"] is True
    assert [publication["data"] for publication in result.get("publications", [])] == given


@pytest.mark.parametrize("wrong", [{}, {"key": "k", "cmp": "like"}, {"op": "and"}])
def test_a_filter_that_is_none_is_error_107(wrong: dict[str, Any]) -> None:
    """The client is not subscribed."""
    world = World(with_strategy(), debug_reasons=True)
    client = world.connect("ann")
    reply = client.reply("subscribe", channel="news", tf=wrong)
    assert reply["error"]["code"] == 107
    assert "tf" in reply["error"]["message"]
    assert not world.node.hub.has_subscribers("news")


def test_large_filters_hit_limits() -> None:
    """Each is counted under its name."""
    world = World(with_strategy(), tags_filter_max_nodes=20, tags_filter_max_values=3)
    client = world.connect("ann")
    deep: dict[str, Any] = KEEN
    for _ in range(DEPTH_MAX):
        deep = {"op": "not", "nodes": [deep]}
    for wrong in ({"op": "or", "nodes": [KEEN] * 20}, {"key": "k", "cmp": "in", "vals": list("abcd")}, deep):
        assert client.outcome("subscribe", channel="news", tf=wrong) == 107
    limits = ["client.tags_filter_max_nodes", "client.tags_filter_max_values", "tags_filter_depth_max"]
    assert world.recorder.limits() == limits


# --- deltas


def test_after_the_first_come_patches() -> None:
    """The result says so, and everything is a JSON string; others in the channel get what they always get."""
    world = World(with_strategy())
    client, other = world.connect("ann"), world.connect("bob", "news")
    assert client.ask("subscribe", channel="news", **FOSSIL)["delta"] is True
    reader = Reader()
    for number in range(4):
        world.publish("news", text(number))
        assert reader.read(pushed(client)) == [text(number)]
    assert reader.patched == [False, True, True, True]
    assert [publication["data"] for publication in pushed(other)] == [text(number) for number in range(4)]
    assert world.node.statistics().patches_total == 3


def test_a_batch_is_a_chain() -> None:
    """What was published in one turn starts from one another."""
    world = World(with_strategy())
    client = world.connect("ann")
    client.ask("subscribe", channel="news", **FOSSIL)
    reader = Reader()
    world.publish("news", *map(text, range(5)))
    assert reader.read(pushed(client)) == [text(number) for number in range(5)]
    assert reader.patched == [False, True, True, True, True]


@pytest.mark.parametrize(
    ("allowed", "asked", "granted"),
    [(["fossil"], "fossil", True), (["fossil"], "", False), ([], "fossil", False)],
)
def test_who_gets_deltas(allowed: list[str], asked: str, granted: bool) -> None:
    """Who asks where it is allowed; who asks elsewhere silently gets whole publications, and not as strings."""
    world = World(with_strategy(allowed_delta_types=allowed, delta_publish=False))
    client = world.connect("ann")
    assert client.ask("subscribe", channel="news", delta=asked).get("delta", False) is granted
    world.publish("news", text(1), delta=True)
    [publication] = pushed(client)
    assert publication["data"] == (json.dumps(text(1)) if granted else text(1))


@pytest.mark.parametrize(("option", "asked"), [(True, False), (False, True), (False, False)])
def test_the_publisher_decides(option: bool, asked: bool) -> None:
    """The namespace for all, or a backend for one."""
    world = World(with_strategy(delta_publish=option))
    client = world.connect("ann")
    client.ask("subscribe", channel="news", **FOSSIL)
    reader = Reader()
    for number in range(3):
        world.publish("news", text(number), delta=asked and number == 2)
    assert reader.read(pushed(client)) == [text(number) for number in range(3)]
    assert reader.patched == [False, option, option or asked]


def test_recovery_goes_on_with_patches() -> None:
    """The first recovered publication is whole, the others and the first live one start from the one before."""
    world = World(with_strategy())
    world.publish("news", *map(text, range(4)))
    client = world.connect("ann")
    result = client.ask("subscribe", channel="news", recover=True, offset=1, epoch="epoch1", **FOSSIL)
    reader = Reader()
    assert reader.read(result["publications"]) == [text(1), text(2), text(3)]
    assert result["offset"] == 1
    world.publish("news", text(4), text(5))
    assert reader.read(pushed(client)) == [text(4), text(5)]
    assert reader.patched == [False, True, True, True, True]


def test_after_recovering_nothing_the_first_is_whole() -> None:
    """The client has something, but it need not be what the server thinks."""
    world = World(with_strategy())
    other = world.connect("bob")
    other.ask("subscribe", channel="news", **FOSSIL)
    world.publish("news", text(0))
    client = world.connect("ann")
    assert client.ask("subscribe", channel="news", recover=True, offset=1, epoch="epoch1", **FOSSIL)["recovered"]
    world.publish("news", text(1), text(2))
    reader = Reader()
    assert reader.read(pushed(client)) == [text(1), text(2)]
    assert reader.patched == [False, True]


def test_a_filter_breaks_the_chain() -> None:
    """After what did not pass the next one is whole; neighbours are patches, live and recovered."""
    world = World(with_strategy())
    kinds = ["keen", "keen", "dull", "keen", "keen"]
    live = world.connect("ann")
    live.ask("subscribe", channel="news", tf=KEEN, **FOSSIL)
    for number, kind in enumerate(kinds):
        world.publish("news", text(number), tags={"kind": kind})
    late = world.connect("bob")
    result = late.ask("subscribe", channel="news", tf=KEEN, recover=True, offset=0, epoch="epoch1", **FOSSIL)
    for publications in (pushed(live), result["publications"]):
        reader = Reader()
        assert reader.read(publications) == [text(0), text(1), text(3), text(4)]
        assert reader.patched == [False, True, False, True]


def test_without_history_patches_start_from_what_came_last() -> None:
    """For who was excluded from that one, the next one is whole."""
    world = World(with_strategy(history_size=0, history_ttl=Seconds(0), force_recovery=False))
    one, two = world.connect("ann"), world.connect("bob")
    for client in (one, two):
        client.ask("subscribe", channel="news", **FOSSIL)
    world.publish("news", text(0))
    world.publish("news", text(1), exclude=(two.id,))
    world.publish("news", text(2))
    readers = Reader(), Reader()
    assert readers[0].read(pushed(one)) == [text(0), text(1), text(2)]
    assert readers[1].read(pushed(two)) == [text(0), text(2)]
    assert (readers[0].patched, readers[1].patched) == ([False, True, True], [False, False])


def test_publications_outside_of_history_are_part_of_the_chain() -> None:
    """The client keeps whatever it was given last."""
    world = World(with_strategy())
    client = world.connect("ann")
    client.ask("subscribe", channel="news", **FOSSIL)
    for number in range(4):
        world.publish("news", text(number), skip_history=number == 2)
    reader = Reader()
    assert reader.read(pushed(client)) == [text(number) for number in range(4)]
    assert reader.patched == [False, True, True, True]


def test_history_is_never_patched() -> None:
    """It comes as it was published, for everybody."""
    world = World(with_strategy())
    client = world.connect("ann")
    client.ask("subscribe", channel="news", **FOSSIL)
    world.publish("news", text(0), text(1))
    page = client.ask("history", channel="news", limit=10)
    assert [publication["data"] for publication in page["publications"]] == [text(0), text(1)]


def test_a_patch_that_cuts_a_character_is_not_sent() -> None:
    """JSON is text, so such a publication comes whole."""
    world = World(with_strategy())
    client = world.connect("ann")
    client.ask("subscribe", channel="news", **FOSSIL)
    # The same first of two bytes, so a copy ends in the middle of the character.
    pair = ["0123456789abcde" + character + "x" * 60 for character in "éè"]
    texts = [json.dumps(value, ensure_ascii=False).encode() for value in pair]
    assert create(*texts) is not None
    for datum in texts:
        world.publish("news", Raw(datum))
    reader = Reader()
    assert reader.read(pushed(client)) == pair
    assert reader.patched == [False, False]


def test_an_empty_payload_is_null_for_who_gets_deltas() -> None:
    """JSON clients read what they get as JSON, and nothing is none."""
    world = World(with_strategy())
    client = world.connect("ann")
    client.ask("subscribe", channel="news", **FOSSIL)
    world.publish("news", Raw(b""))
    assert pushed(client)[0]["data"] == "null"


def test_a_payload_that_is_no_json_ends_json_sessions() -> None:
    """Live, and in what is recovered: with 3506, as without deltas."""
    world = World(with_strategy())
    client = world.connect("ann")
    client.ask("subscribe", channel="news", **FOSSIL)
    world.publish("news", Raw(b"\xff"))
    world.turn()
    assert client.ended == 3506
    other = world.connect("bob")
    assert other.outcome("subscribe", channel="news", recover=True, offset=0, epoch="epoch1", **FOSSIL) == 3506
    assert not world.node.hub.has_subscribers("news")


def test_the_server_gives_nobody_what_it_did_not_ask_for() -> None:
    """Subscriptions that the server makes are whole and unfiltered."""
    world = World(with_strategy(), user_personal_channel=True)
    client = world.connect("ann")
    world.publish("#ann", text(0), text(1), tags={"kind": "dull"})
    assert [publication["data"] for publication in pushed(client)] == [text(0), text(1)]


# --- conflation


def told(publications: list[dict[str, Any]]) -> list[tuple[Any, int]]:
    return [(publication["data"], publication.get("conflated", 0)) for publication in publications]


def test_the_latest_in_its_time() -> None:
    """Nobody has to allow it: it costs less than everything."""
    world = World(with_strategy(allow_tags_filter=False, allowed_delta_types=[]))
    client, other = world.connect("ann"), world.connect("bob", "news")
    client.ask("subscribe", channel="news", conflate={"max_rate": 2})
    world.publish("news", *range(5))
    assert told(pushed(client)) == [(4, 4)]
    world.publish("news", 5, 6)
    assert pushed(client) == []
    world.pass_time(0.5)
    assert told(pushed(client)) == [(6, 1)]
    assert told(pushed(other)) == [(number, 0) for number in range(7)]
    assert world.node.statistics().conflated_total == 5


def test_what_was_missed_is_recovered_as_its_latest() -> None:
    """One publication that says how many there were, if all of them were still there; then the rate counts."""
    world = World(with_strategy())
    world.publish("news", *range(5))
    client = world.connect("ann")
    position = {"recover": True, "offset": 1, "epoch": "epoch1"}
    result = client.ask("subscribe", channel="news", conflate={"max_rate": 1}, **position)
    assert result["recovered"] is True
    assert told(result["publications"]) == [(4, 3)]
    world.publish("news", 5)
    assert pushed(client) == []
    world.pass_time(1.0)
    assert told(pushed(client)) == [(5, 0)]


def test_conflation_does_not_hide_what_is_lost() -> None:
    """The latest is always there; whether the others are is asked first."""
    world = World(with_strategy(history_size=2))
    world.publish("news", *range(5))
    client = world.connect("ann")
    result = client.ask("subscribe", channel="news", conflate={}, recover=True, offset=1, epoch="epoch1")
    assert "recovered" not in result


def test_what_came_while_catching_up_is_told_as_its_latest() -> None:
    """After the reply, and in its time if the reply had something."""

    async def scenario(since: dict[str, Any], expected: list[tuple[Any, int]]) -> None:
        world = World(with_strategy(presence=True))
        world.publish("news", "missed")
        client = world.connect("ann")
        world.stops.hold("presence_add")
        number = client.send("subscribe", channel="news", conflate={"max_rate": 1}, **since)
        await settle()
        world.publish("news", 1, 2, 3)
        world.turn()
        world.stops.release("presence_add")
        await settle()
        reply, *pushes = client.take()
        assert reply["id"] == number
        assert told([message["push"]["pub"] for message in pushes]) == expected
        world.pass_time(1.0)
        assert told([message["push"]["pub"] for message in pushes] + pushed(client)) == [(3, 2)]

    asyncio.run(scenario({}, [(3, 2)]))
    asyncio.run(scenario({"recover": True, "offset": 0, "epoch": "epoch1"}, []))


def test_a_connection_that_takes_nothing_is_owed_the_latest() -> None:
    """And told when it takes something again."""
    world = World(with_strategy())
    client = world.connect("ann")
    client.ask("subscribe", channel="news", conflate={})
    client.transport.writable = False
    world.publish("news", *range(5))
    world.turn()
    assert client.session.waiting_bytes == 0
    client.transport.writable = True
    client.session.on_writable()
    assert told(pushed(client)) == [(4, 4)]


def test_one_that_is_owed_what_it_cannot_get_ends() -> None:
    """With 3506, as at once; its other channels are owed nothing any more."""
    world = World(with_strategy())
    client = world.connect("ann")
    for channel in ("news", "more"):
        client.ask("subscribe", channel=channel, conflate={})
    client.transport.writable = False
    world.publish("news", Raw(b"\xff"))
    world.publish("more", 1)
    world.turn()
    client.transport.writable = True
    client.session.on_writable()
    world.turn()
    assert client.ended == 3506


@pytest.mark.parametrize("rate", [-1, 0.001, 1001])
def test_a_rate_out_of_its_range_is_error_107(rate: float) -> None:
    """The client is not subscribed, and hears which numbers are good."""
    world = World(with_strategy(), debug_reasons=True)
    reply = world.connect("ann").reply("subscribe", channel="news", conflate={"max_rate": rate})
    assert reply["error"]["code"] == 107
    assert "conflate.max_rate: expected 0, or 0.01 to 1000" in reply["error"]["message"]
    assert not world.node.hub.has_subscribers("news")


# --- channels of the connect request


def test_channels_asked_for_in_connect_may_be_tailored() -> None:
    """For clients that only listen, which have no other request."""
    world = World(with_strategy(), debug_reasons=True)
    world.tokens.connections.known["ann"] = Identity(user="ann")
    client = world.open_session()
    wishes = {"news": {"tf": KEEN}, "rates": {"conflate": {"max_rate": 1}}}
    client.ask("connect", token="ann", subs=wishes)
    publish(world, "dull", "keen")
    world.publish("rates", 1, 2)
    assert told(pushed(client)) == [("keen", 0), (2, 1)]


def test_where_filters_are_not_allowed_connect_fails() -> None:
    """With the same error as subscribe."""
    world = World(with_strategy(allow_tags_filter=False))
    world.tokens.connections.known["ann"] = Identity(user="ann")
    client = world.open_session()
    assert client.outcome("connect", token="ann", subs={"news": {"tf": KEEN}}) == 107
    assert not world.node.hub.has_subscribers("news")


def test_positions_do_not_pass_over_what_is_owed() -> None:
    """What a stream names to come back with leads to the latest, not past it."""
    world = World(with_strategy())
    client = world.connect("ann")
    client.ask("subscribe", channel="news", conflate={"max_rate": 1})
    world.publish("news", 1)
    world.turn()
    world.publish("news", 2, 3)
    world.turn()
    assert client.session.positions() == {"news": (1, "epoch1")}
    world.pass_time(1.0)
    assert client.session.positions() == {"news": (3, "epoch1")}
