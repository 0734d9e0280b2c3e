"""Fan-out to many who get something of their own: in slices, between which everything else may happen."""

from __future__ import annotations

from msgspec import Raw

from beaconfire.base.clock import ManualClock
from beaconfire.base.loop import SLICE_S
from beaconfire.delivery.channel import STRATEGY_BATCH_MAX
from beaconfire.delivery.hub import PENDING_ITEMS_MAX
from beaconfire.delivery.tags_filter import Predicate, Tags, TagsFilters
from beaconfire.model.events import BatchFannedOut, InternalError
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import Publication
from beaconfire.model.requests import FilterNode
from beaconfire.protocols.port import Frame
from tests.unit.delivery.test_strategies import KEEN, Reader, Stage, text
from tests.unit.kit import Lines, Listener


class Slow(ManualClock):
    """A clock for which a look at it takes a millisecond, so that work takes time."""

    def now_s(self) -> float:
        self.advance(0.001)
        return super().now_s()


class Asked:
    """A filter's predicate, and what it was asked for."""

    def __init__(self, predicate: Predicate, asked: list[Tags]) -> None:
        self._predicate = predicate
        self._asked = asked

    def __call__(self, tags: Tags) -> bool:
        self._asked.append(tags)
        return self._predicate(tags)


def publish(stage: Stage, *offsets: int) -> None:
    for offset in offsets:
        stage.publish(offset, text(offset), "keen")


def offsets(reader: Reader) -> list[int]:
    return [told.offset for told in reader.told()]


def gather(stage: Stage, count: int) -> list[Reader]:
    return [stage.join(StreamPosition(0, "e"), node=KEEN) for _ in range(count)]


def test_many_different_filters_are_asked_in_slices() -> None:
    """Each of them once, and no turn of the event loop takes longer than a slice and one subscriber."""
    stage = Stage()
    filters = TagsFilters(100, 100)
    asked: list[Tags] = []
    for number in range(300):
        tags_filter = filters.compile(FilterNode(key="kind", cmp="neq", val=str(number)))
        tags_filter._predicate = Asked(tags_filter._predicate, asked)
        strategy = stage.join(None, node=KEEN).subscription.strategy
        assert strategy is not None
        strategy.tags_filter = tags_filter
    stage.hub._now_s = Slow().now_s
    stage.publish(0, text(1))
    most = turns = 0
    while stage.scheduled:
        before = len(asked)
        stage.step()
        most = max(most, len(asked) - before)
        turns += 1
    assert len(asked) == 300
    assert most <= SLICE_S * 1000 + 1
    assert turns > 50
    [event] = stage.recorder.of(BatchFannedOut)
    assert event.subscribers == 300
    assert 0.3 < event.duration_s < 1.0, "the time of all slices"


def test_the_next_batch_waits_until_the_walk_is_over() -> None:
    """Everybody gets both in order, those who get what everybody gets as well."""
    stage = Stage(interrupted=True)
    plain, readers = stage.join(StreamPosition(0, "e")), gather(stage, 3)
    publish(stage, 1)
    stage.step()
    publish(stage, 2, 3)
    stage.step()
    stage.step()
    assert sum(offsets(reader) == [] for reader in readers) >= 1
    assert all(offsets(reader) in ([], [1]) for reader in (plain, *readers))
    stage.turn()
    assert all(offsets(reader) == [1, 2, 3] for reader in (plain, *readers))


def test_who_leaves_meanwhile_is_given_what_was_published_before() -> None:
    """By the walk or in leaving, and once; nothing comes after it has left."""
    stage = Stage(interrupted=True)
    readers = gather(stage, 4)
    publish(stage, 1)
    stage.step()
    publish(stage, 2)
    for reader in readers[:3]:
        stage.hub.remove(reader.subscription)
    publish(stage, 3)
    stage.turn()
    assert [offsets(reader) for reader in readers] == [[1, 2], [1, 2], [1, 2], [1, 2, 3]]


def test_who_joins_meanwhile_hears_nothing_from_before() -> None:
    """Neither of the walk's batch nor of what waits for its end; one who is catching up holds the right ones."""
    stage = Stage(interrupted=True)
    readers = gather(stage, 3)
    publish(stage, 1)
    stage.step()
    publish(stage, 2)
    live = stage.join(None, node=KEEN)
    publish(stage, 3)
    stage.turn()
    assert all(offsets(reader) == [1, 2, 3] for reader in readers)
    assert offsets(live) == [3]


def test_who_goes_live_during_the_walk_gets_the_batch_once() -> None:
    """From history or from the walk, but not from both; who left and came back is a newcomer."""
    stage = Stage(interrupted=True)
    readers = gather(stage, 3)
    stage.hub.remove(readers[0].subscription)
    waits = readers[0].listener.subscription("news", readers[0].subscription.strategy)
    stage.hub.add(waits)
    publish(stage, 1)
    stage.step()
    assert waits.go_live(StreamPosition(1, "e")) == []
    publish(stage, 2)
    stage.turn()
    assert offsets(Reader(readers[0].listener, waits)) == [2]
    assert readers[0].listener.gaps == []
    assert [offsets(reader) for reader in readers[1:]] == [[1, 2], [1, 2]]


def test_all_leave_and_others_come() -> None:
    """The walk ends where there is nobody left, and the next members have nothing to do with it."""
    stage = Stage(interrupted=True)
    readers = gather(stage, 3)
    publish(stage, 1)
    stage.step()
    publish(stage, 2)
    for reader in readers:
        stage.hub.remove(reader.subscription)
    late = [stage.join(StreamPosition(2, "e"), node=KEEN) for _ in range(2)]
    stage.step()
    publish(stage, 3)
    stage.turn()
    assert [offsets(reader) for reader in readers] == [[1, 2]] * 3
    assert [offsets(reader) for reader in late] == [[3]] * 2
    assert not stage.hub._walking


def test_several_channels_take_turns() -> None:
    """A long walk in one does not keep the others waiting, whether they have tailored subscribers or not."""
    stage = Stage(interrupted=True)
    gather(stage, 50)
    other = Listener("other", stage.flusher, stage.json)
    plain = Listener("plain", stage.flusher, stage.json)
    for listener, node in ((other, KEEN), (plain, None)):
        subscription = listener.subscription("elsewhere", stage.join(None, node=node).subscription.strategy)
        stage.hub.add(subscription)
        subscription.go_live(None)
    publish(stage, 1)
    for _ in range(4):
        stage.step()
    stage.hub.publish("elsewhere", Publication(Raw(b"1"), None, 0, {"kind": "keen"}), "")
    for _ in range(12):
        stage.step()
    assert stage.hub._walking, "the long walk is not over"
    assert len(other.messages()) == len(plain.messages()) == 1
    stage.turn()
    assert not stage.hub._walking


def test_a_long_batch_is_divided() -> None:
    """A filter is asked for at most so many items in a row; what is skipped is counted across the parts."""
    stage = Stage(interrupted=True)
    early, plain = gather(stage, 2), stage.join(StreamPosition(0, "e"))
    count = 2 * STRATEGY_BATCH_MAX + 5
    publish(stage, *range(1, count - 1))
    late = [stage.join(StreamPosition(count - 2, "e"), node=node) for node in (KEEN, None)]
    unpositioned = stage.join(None, node=KEEN)
    publish(stage, count - 1, count)
    stage.turn()
    assert all(offsets(reader) == list(range(1, count + 1)) for reader in (*early, plain))
    assert [offsets(reader) for reader in (*late, unpositioned)] == [[count - 1, count]] * 3
    sizes = [event.publications for event in stage.recorder.of(BatchFannedOut)]
    assert sizes == [STRATEGY_BATCH_MAX, STRATEGY_BATCH_MAX, 5]


def test_publishers_do_not_get_ahead_without_end() -> None:
    """If too much waits for a walk to end, it is finished in one piece."""
    stage = Stage(interrupted=True)
    readers = gather(stage, 40)
    publish(stage, 1)
    stage.step()
    publish(stage, *range(2, PENDING_ITEMS_MAX + 3))
    for _ in range(2):  # the flusher has its turns as well
        stage.step()
    assert stage.hub._channels["news"].walk is None
    stage.turn()
    assert all(offsets(reader) == list(range(1, PENDING_ITEMS_MAX + 3)) for reader in readers)


def test_a_bug_during_a_walk_does_not_silence_the_channel() -> None:
    """It is reported, and the next batch reaches everybody."""

    class Broken(Lines):
        def pack(self, payloads: object) -> Frame:
            packed = super().pack(payloads)  # type: ignore[arg-type]
            if self.packed == 1:
                raise ZeroDivisionError
            return packed

    stage = Stage(interrupted=True)
    stage.recorder.expects_errors = True
    stage.protobuf = Broken(stage.codec)
    readers = [stage.join(None, node=KEEN), stage.join(None, node=KEEN, binary=True), stage.join(None, node=KEEN)]
    for number in (1, 2):
        stage.publish(0, text(number), "keen")
        stage.turn()
    assert [event.where for event in stage.recorder.of(InternalError)] == ["fan-out"]
    assert all(reader.told()[-1].data == text(2) for reader in readers)


def test_a_bug_does_not_stop_what_waits_for_the_walk() -> None:
    """What was published meanwhile is fanned out as soon as the broken walk is over."""
    stage = Stage(interrupted=True)
    stage.recorder.expects_errors = True
    readers = gather(stage, 3)
    strategy = readers[1].subscription.strategy
    assert strategy is not None
    stage.publish(0, text(1), "keen")
    stage.step()
    stage.publish(0, text(2), "keen")
    strategy.codec = object()  # type: ignore[assignment]  # breaks whatever is told to this one
    stage.step()
    stage.step()
    strategy.codec = None
    stage.turn()
    assert [event.where for event in stage.recorder.of(InternalError)] == ["fan-out"]
    assert [[told.data for told in reader.told()] for reader in readers] == [
        [text(1), text(2)],
        [text(2)],
        [text(2)],
    ]
