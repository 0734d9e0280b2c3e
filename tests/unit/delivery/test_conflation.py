"""Subscriptions that want the latest: how often they are told, what, and what is said about the rest."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from beaconfire.base.clock import ManualClock
from beaconfire.base.timers import PromptTimers, Timer, Timers
from beaconfire.delivery.batch import Item
from beaconfire.delivery.conflation import DUE_AT_ONCE_MAX, Conflation
from beaconfire.delivery.hub import Hub
from beaconfire.delivery.outbox import Flusher
from beaconfire.delivery.patches import Patches
from beaconfire.delivery.strategy import DeliveryStrategy
from beaconfire.delivery.subscription import Subscription
from beaconfire.delivery.tags_filter import TagsFilters
from beaconfire.model.events import InternalError
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import ClientInfo, Publication
from beaconfire.model.pushes import JoinPush, PublicationPush
from beaconfire.model.requests import FilterNode
from beaconfire.protocols.centrifuge.json_codec import JsonCodec
from beaconfire.protocols.port import Frame, Payload
from tests.unit.kit import Lines, Listener, Recorder, Wiretap
from tests.unit.patching import apply

KEEN = TagsFilters(10, 10).compile(FilterNode(key="kind", cmp="eq", val="keen"))
START = StreamPosition(0, "e")


class Reader:
    """One who conflates, and what it is told."""

    def __init__(self, listener: Listener, subscription: Subscription) -> None:
        self.listener = listener
        self.subscription = subscription

    def pubs(self) -> list[dict[str, Any]]:
        return [message["push"]["pub"] for message in self.listener.messages() if "pub" in message["push"]]

    def told(self) -> list[tuple[int, int]]:
        """Offset of each publication, and how many it says were left out."""
        return [(pub.get("offset", 0), pub.get("conflated", 0)) for pub in self.pubs()]


class Stage:
    """A channel whose time moves when told."""

    def __init__(self) -> None:
        self.scheduled: list[Callable[[], None]] = []
        self.clock = ManualClock()
        self.timers = Timers(self.clock)
        self.flusher = Flusher(self.scheduled.append, self.clock.now_s, Wiretap.send_all)
        self.recorder = Recorder()
        self.hub = Hub(self.scheduled.append, self.timers, self.recorder, 100_000, self.flusher, Patches())
        self.codec = JsonCodec()
        self.wire = Lines(self.codec)
        self.offset = 0
        self._clients = 0

    def join(
        self,
        max_rate: float,
        *,
        filtered: bool = False,
        deltas: bool = False,
        top: StreamPosition | None = START,
        wire: Lines | None = None,
    ) -> Reader:
        self._clients += 1
        listener = Listener(f"c{self._clients}", self.flusher, wire or self.wire)
        strategy = DeliveryStrategy(KEEN if filtered else None, self.codec if deltas else None, Conflation(max_rate))
        subscription = listener.subscription("news", strategy, receives_join_leave=True)
        self.hub.add(subscription)
        subscription.go_live(top)
        return Reader(listener, subscription)

    def publish(self, *data: Any, kind: str = "keen", in_stream: bool = True, exclude: tuple[str, ...] = ()) -> None:
        """Publishes each in a batch of its own turn."""
        for datum in data:
            self.offset += in_stream
            raw = Raw(json.dumps(datum).encode())
            publication = Publication(raw, None, self.offset if in_stream else 0, {"kind": kind})
            self.hub.publish("news", publication, "e" if in_stream else "", exclude, True)
            self.turn()

    def turn(self) -> None:
        while self.scheduled:
            self.scheduled.pop(0)()

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.timers.run_due()
        self.turn()

    def block(self, reader: Reader) -> None:
        reader.listener.transport.writable = False

    def unblock(self, reader: Reader) -> None:
        """As a session does when its transport takes something again."""
        reader.listener.transport.writable = True
        reader.listener.outbox.flush()
        self.hub.deliver_held(reader.subscription)
        self.turn()


def test_the_first_comes_at_once_and_the_newest_in_its_time() -> None:
    """Ten updates in a tenth of a second are two, the second of which says that eight were left out."""
    stage = Stage()
    reader = stage.join(2.0)
    stage.publish(*range(10))
    assert reader.told() == [(1, 0)]
    stage.pass_time(0.49)
    assert reader.told() == [(1, 0)]
    stage.pass_time(0.01)
    assert reader.told() == [(1, 0), (10, 8)]
    assert reader.pubs()[-1]["data"] == 9
    assert stage.hub.statistics().conflated_total == 8
    assert stage.hub.statistics().delivered_total == 2


def test_a_quiet_channel_is_told_at_once() -> None:
    """Who is told less often than it may be is not delayed, and nothing is left out."""
    stage = Stage()
    reader = stage.join(2.0)
    for number in range(3):
        stage.publish(number)
        stage.pass_time(0.5)
    assert reader.told() == [(1, 0), (2, 0), (3, 0)]
    assert len(stage.timers) == 0


def test_the_newest_of_a_batch_is_told() -> None:
    """What was published in one turn counts as so many updates."""
    stage = Stage()
    reader = stage.join(1.0)
    for number in range(1, 4):
        stage.hub.publish("news", Publication(Raw(b"1"), None, number), "e")
    stage.turn()
    assert reader.told() == [(3, 2)]


def test_without_a_rate_everything_comes_until_the_connection_is_behind() -> None:
    """Then the latest comes as soon as it takes something again."""
    stage = Stage()
    reader = stage.join(0)
    stage.publish(1, 2, 3)
    assert reader.told() == [(1, 0), (2, 0), (3, 0)]
    stage.block(reader)
    stage.publish(4, 5, 6)
    assert reader.listener.outbox.queued_bytes == 0
    stage.unblock(reader)
    stage.publish(7)
    assert reader.told() == [(1, 0), (2, 0), (3, 0), (6, 2), (7, 0)]


def test_with_a_rate_the_connection_counts_too() -> None:
    """Neither its time alone nor the connection alone will do."""
    stage = Stage()
    reader = stage.join(1.0)
    stage.publish(1)
    stage.block(reader)
    stage.publish(2, 3)
    stage.pass_time(1.0)
    stage.publish(4)
    assert reader.told() == [(1, 0)]
    stage.unblock(reader)
    assert reader.told() == [(1, 0), (4, 2)]
    stage.block(reader)
    stage.publish(5)
    stage.unblock(reader)
    assert reader.told() == [(1, 0), (4, 2)]
    stage.pass_time(1.0)
    assert reader.told() == [(1, 0), (4, 2), (5, 0)]


def test_the_others_get_everything() -> None:
    """And at once."""
    stage = Stage()
    listener = Listener("other", stage.flusher, stage.wire)
    other = listener.subscription("news")
    stage.hub.add(other)
    other.go_live(START)
    stage.join(1.0)
    stage.publish(1, 2, 3)
    assert listener.data() == [1, 2, 3]


def test_who_was_told_the_same_shares_a_frame() -> None:
    """The newest is encoded once for all of them, and once more for one who joined in between."""
    stage = Stage()
    readers = [stage.join(1.0) for _ in range(5)]
    stage.publish(1, 2)
    late = stage.join(1.0, top=StreamPosition(2, "e"))
    late.subscription.strategy.conflation.sent(stage.clock.now_s())  # type: ignore[union-attr]
    stage.publish(3)
    packed = stage.wire.packed
    stage.pass_time(1.0)
    assert stage.wire.packed == packed + 2
    assert [reader.told() for reader in readers] == [[(1, 0), (3, 1)]] * 5
    assert late.told() == [(3, 0)]


def test_joins_and_leaves_are_not_updates() -> None:
    """They come at once, and take no publication's place."""
    stage = Stage()
    reader = stage.join(1.0)
    stage.publish(1, 2)
    stage.hub.announce(JoinPush("news", ClientInfo("ann", "c9")))
    stage.turn()
    assert [next(iter(message["push"].keys() - {"channel"})) for message in reader.listener.messages()] == [
        "pub",
        "join",
    ]
    stage.pass_time(1.0)
    assert reader.told() == [(1, 0), (2, 0)]


def test_what_a_filter_stops_was_not_left_out() -> None:
    """Only what was wanted counts, and only that is the latest."""
    stage = Stage()
    reader = stage.join(1.0, filtered=True)
    stage.publish(1)
    stage.publish(2, 3, kind="dull")
    stage.publish(4)
    stage.publish(5, kind="dull")
    stage.publish(6)
    stage.publish(7, kind="dull")
    stage.pass_time(1.0)
    assert reader.told() == [(1, 0), (6, 1)]


def test_what_excludes_it_was_not_left_out() -> None:
    """Its own publication, for example, that it asked not to hear."""
    stage = Stage()
    reader = stage.join(1.0)
    stage.publish(1)
    stage.publish(2, exclude=("c1",))
    stage.publish(3)
    stage.pass_time(1.0)
    assert reader.told() == [(1, 0), (3, 0)]


def test_patches_start_from_what_was_told() -> None:
    """A neighbour comes as a patch, and what comes after something left out is whole."""
    stage = Stage()
    reader = stage.join(1.0, deltas=True)
    texts = [{"text": "the same for a long while, and then: " * 3, "number": number} for number in range(5)]
    stage.publish(texts[0])
    stage.pass_time(1.0)
    stage.publish(texts[1], texts[2], texts[3])
    stage.pass_time(1.0)
    stage.publish(texts[4])
    stage.pass_time(1.0)
    assert reader.told() == [(1, 0), (2, 0), (4, 1), (5, 0)]
    assert [pub.get("delta", False) for pub in reader.pubs()] == [False, True, False, True]
    base, data = b"", []
    for pub in reader.pubs():
        base = apply(base, pub["data"].encode()) if "delta" in pub else pub["data"].encode()
        data.append(json.loads(base))
    assert data == [texts[0], texts[1], texts[3], texts[4]]
    assert stage.hub.statistics().patches_total == 2


def test_the_position_is_that_of_the_last_told() -> None:
    """So that one who comes back with it is given what it was owed; what has no place in the stream moves nothing."""
    stage = Stage()
    reader = stage.join(1.0)
    stage.publish(1)
    assert reader.subscription.position == (1, "e")
    stage.publish(2, in_stream=False)
    assert reader.subscription.position == (1, "e")
    stage.publish(3, 4)
    assert reader.subscription.position == (1, "e")
    assert reader.subscription.expected == 4
    stage.pass_time(1.0)
    assert reader.subscription.position == (3, "e")


def test_one_without_positions_conflates_too() -> None:
    """Channels without history are the most usual ones for this."""
    stage = Stage()
    reader = stage.join(1.0, top=None)
    stage.publish("a", "b", "c", in_stream=False)
    stage.pass_time(1.0)
    assert reader.told() == [(0, 0), (0, 1)]
    assert reader.subscription.position is None


def test_who_has_left_is_owed_nothing() -> None:
    """Nothing of the channel comes after, and nothing holds on to it until its time would have come."""
    stage = Stage()
    reader = stage.join(0.01)
    stage.publish(1, 2, 3)
    stage.hub.remove(reader.subscription)
    assert len(stage.hub._selective._schedule) == 0
    stage.pass_time(100.0)
    assert reader.told() == [(1, 0)]


def test_who_comes_and_goes_leaves_no_timer() -> None:
    """A client that subscribes, is owed something and leaves, again and again, leaves nothing behind that waits."""
    stage = Stage()
    most = 0
    for _ in range(1000):
        stage.clock.advance(0.001)  # nobody is due together with anybody else
        reader = stage.join(0.01)
        stage.publish(1, 2)
        stage.hub.remove(reader.subscription)
        most = max(most, len(stage.timers))
    assert len(stage.timers) == 0
    assert stage.hub._selective._schedule._waiting == {}
    assert most == 0, "nor for a moment"


def test_a_timer_stays_for_those_who_stay() -> None:
    """The first of two who are due together leaves, and the other is told in its time."""
    stage = Stage()
    leaver, reader = stage.join(1.0), stage.join(1.0)
    stage.publish(1, 2)
    stage.hub.remove(leaver.subscription)
    stage.pass_time(1.0)
    assert (leaver.told(), reader.told()) == ([(1, 0)], [(1, 0), (2, 0)])


def test_all_who_wait_for_the_next_turn_leave() -> None:
    """Then that turn finds nobody, and nothing is left."""
    stage = Stage()
    readers = [stage.join(1.0) for _ in range(DUE_AT_ONCE_MAX + 2)]
    stage.publish(1, 2)
    stage.clock.advance(1.0)
    stage.timers.run_due()
    for reader in readers[DUE_AT_ONCE_MAX:]:
        stage.hub.remove(reader.subscription)
    stage.turn()
    assert [reader.told() for reader in readers[DUE_AT_ONCE_MAX:]] == [[(1, 0)]] * 2
    assert stage.hub._selective._schedule._waiting == {}


def test_an_owed_publication_keeps_few_frames() -> None:
    """However many different counts of left out publications it was told with, and each count is right."""
    stage = Stage()
    wire, patches = stage.wire, Patches()
    item = Item(PublicationPush("news", Publication(Raw(b'"' + b"x" * 1000 + b'"'), None, 9)), 9, "e", ())
    for left_out in range(500):
        for repeated in (left_out, 0 if left_out < 5 else left_out):
            told = item.single_frame(wire, repeated, None, None, patches)
            assert json.loads(told.frame)["push"]["pub"].get("conflated", 0) == repeated
    kept = sum(len(single_frame.frame) for single_frame in (item._singles or {}).values())
    assert kept < 20 * 1100, "twenty of five hundred at most"
    packed = wire.packed
    item.single_frame(wire, 499, None, None, patches)
    assert wire.packed == packed, "the latest is shared"


def test_what_cannot_be_told_is_reported() -> None:
    """In its time, when nobody is publishing any more."""
    stage = Stage()
    reader = stage.join(1.0)
    stage.publish(1)
    stage.hub.publish("news", Publication(Raw(b"\xff"), None, 2), "e")
    stage.turn()
    assert reader.listener.undeliverable == 0
    stage.pass_time(1.0)
    assert reader.listener.undeliverable == 1


def test_a_bug_with_one_does_not_silence_the_others() -> None:
    """Who is due with it is told, now and in times to come; the bug is reported."""

    class Broken(Lines):
        def pack(self, payloads: Sequence[Payload]) -> Frame:
            if any(b'"data":2' in payload.data for payload in payloads):
                raise ZeroDivisionError
            return super().pack(payloads)

    stage = Stage()
    broken = stage.join(1.0, wire=Broken(stage.codec))
    reader = stage.join(1.0)
    stage.publish(1, 2)
    stage.recorder.expects_errors = True
    stage.pass_time(1.0)
    stage.publish(3)
    stage.pass_time(1.0)
    assert reader.told() == [(1, 0), (2, 0), (3, 0)]
    assert broken.told() == [(1, 0), (3, 0)]
    assert [event.where for event in stage.recorder.of(InternalError)] == ["conflation"]


def test_many_that_are_due_together_take_turns() -> None:
    """So that nobody else waits for all of them; who leaves between two turns is owed nothing."""
    stage = Stage()
    readers = [stage.join(1.0) for _ in range(DUE_AT_ONCE_MAX + 10)]
    stage.publish(1, 2)
    assert len(stage.timers) == 1, "all of them were told in the same turn"
    stage.clock.advance(1.0)
    stage.timers.run_due()
    assert sum(reader.listener.outbox.queued_bytes > 0 for reader in readers) == DUE_AT_ONCE_MAX
    stage.hub.remove(readers[-1].subscription)
    stage.turn()
    assert [reader.told() for reader in readers[:-1]] == [[(1, 0), (2, 0)]] * (DUE_AT_ONCE_MAX + 9)
    assert readers[-1].told() == [(1, 0)]
    stage.publish(3)
    assert len(stage.timers) == 1, "and again, although it took two"


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.sampled_from(["keen", "keen", "dull"])),
        st.tuples(st.just("time"), st.sampled_from([0.05, 0.3, 1.1])),
        st.tuples(st.sampled_from(["block", "unblock", "turn"]), st.none()),
    ),
    min_size=5,
    max_size=60,
)


@settings(max_examples=200)
@given(STEPS, st.sampled_from([0.0, 1.0, 4.0]), st.booleans(), st.booleans())
def test_whatever_happens_the_latest_is_told_in_the_end(
    steps: list[tuple[str, Any]], max_rate: float, filtered: bool, deltas: bool
) -> None:
    """And what is told adds up to what was published, in order, never more often than asked for."""
    stage = Stage()
    reader = stage.join(max_rate, filtered=filtered, deltas=deltas)
    wanted: list[int] = []
    seen, times = 0, []
    for step, value in [*steps, ("unblock", None), ("time", 1.1), ("time", 1.1)]:
        if step == "publish":
            stage.offset += 1
            publication = Publication(Raw(b'"%d"' % stage.offset), None, stage.offset, {"kind": value})
            stage.hub.publish("news", publication, "e", (), True)
            if value == "keen" or not filtered:
                wanted.append(stage.offset)
        elif step == "time":
            stage.pass_time(value)
        elif step == "block":
            stage.block(reader)
        elif step == "unblock":
            stage.unblock(reader)
        else:
            stage.turn()
        fresh = len(reader.told()) - seen
        seen += fresh
        times += [stage.clock.now_s()] * fresh
    told = reader.told()
    count = 0
    for offset, left_out in told:
        count += left_out + 1
        assert offset == wanted[count - 1], "what it says was left out is what lies between"
    assert count == len(wanted)
    if max_rate:
        gaps = [later - earlier for earlier, later in pairwise(times)]
        assert all(gap >= 1 / max_rate - 1e-9 for gap in gaps)


# --- the timers that keep the time


class Loop:
    """What is to be called back, and when."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.calls: list[Timer] = []

    def later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        call = Timer(self.clock.now_s() + delay_s, callback)
        self.calls.append(call)
        return call

    @property
    def pending(self) -> list[Timer]:
        return [call for call in self.calls if call.callback is not None]

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        due = [call for call in self.pending if call.when_s <= self.clock.now_s()]
        self.calls = [call for call in self.pending if call not in due]
        for call in due:
            if call.callback is not None:
                call.callback()


def test_one_wake_up_is_for_the_first() -> None:
    """A later timer asks for none of its own, an earlier one does, and each rings in its time."""
    loop = Loop()
    timers = PromptTimers(loop.clock, loop.later)
    rung: list[str] = []
    timers.after(2.0, lambda: rung.append("second"))
    timers.after(3.0, lambda: rung.append("third"))
    timers.after(1.0, lambda: rung.append("first"))
    assert len(loop.pending) == 1
    for expected in (["first"], ["first", "second"], ["first", "second", "third"]):
        loop.advance(1.0)
        assert rung == expected
    assert loop.pending == []


def test_wake_ups_do_not_add_up() -> None:
    """However many timers of different lengths come and go, the event loop keeps one call for all of them."""
    loop = Loop()
    timers = PromptTimers(loop.clock, loop.later)

    def repeat(seconds: float) -> None:
        timers.after(seconds, lambda: repeat(seconds))

    repeat(1.0)
    repeat(0.25)
    for _ in range(40):
        loop.advance(0.25)
        assert len(loop.pending) == 1


def test_a_loop_that_wakes_too_early_is_asked_again() -> None:
    """Event loops round, and nothing rings before its time."""
    loop = Loop()
    timers = PromptTimers(loop.clock, loop.later)
    rung: list[str] = []
    timers.after(1.0, lambda: rung.append("now"))
    [call] = loop.pending
    loop.calls.clear()
    loop.advance(0.999)
    assert call.callback is not None
    call.callback()
    assert rung == []
    loop.advance(0.001)
    assert rung == ["now"]


def test_a_timer_that_breaks_does_not_stop_the_others() -> None:
    """The bug is the event loop's to report."""
    loop = Loop()
    timers = PromptTimers(loop.clock, loop.later)
    rung: list[str] = []
    timers.after(1.0, lambda: 1 // 0)  # type: ignore[arg-type]
    timers.after(2.0, lambda: rung.append("the other"))
    with pytest.raises(ZeroDivisionError):
        loop.advance(1.0)
    loop.advance(1.0)
    assert rung == ["the other"]
