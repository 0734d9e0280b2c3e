"""Fan-out to subscribers who get something of their own, beside those who do not."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from beaconfire.base.clock import ManualClock
from beaconfire.base.timers import Timers
from beaconfire.delivery.hub import Hub
from beaconfire.delivery.outbox import Flusher
from beaconfire.delivery.patches import Patches
from beaconfire.delivery.strategy import DeliveryStrategy
from beaconfire.delivery.subscription import Subscription, SubscriptionPhase
from beaconfire.delivery.tags_filter import Tags, TagsFilters
from beaconfire.model.events import BatchFannedOut
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import ClientInfo, Publication
from beaconfire.model.pushes import JoinPush
from beaconfire.model.requests import FilterNode
from beaconfire.protocols.centrifuge import schema_pb2
from beaconfire.protocols.centrifuge.json_codec import JsonCodec
from beaconfire.protocols.centrifuge.protobuf_codec import ProtobufCodec
from beaconfire.protocols.port import DeltaCodec
from tests.unit.kit import Lines, Listener, Recorder, Wiretap
from tests.unit.patching import apply, chained_text

FILTERS = TagsFilters(10, 10)
KEEN = FilterNode(key="kind", cmp="eq", val="keen")


def text(number: int) -> bytes:
    return json.dumps(chained_text(number)).encode()


class CountingCodec(JsonCodec):
    """Counts encodings."""

    def __init__(self) -> None:
        self.encoded = 0

    def encode_push(self, push: Any) -> Any:
        self.encoded += 1
        return super().encode_push(push)


class Told(NamedTuple):
    """A publication as a client read it."""

    data: bytes
    offset: int
    patched: bool


class Reader:
    """One subscriber, and what it makes of what it is sent."""

    def __init__(self, listener: Listener, subscription: Subscription) -> None:
        self.listener = listener
        self.subscription = subscription

    def told(self) -> list[Told]:
        """Every publication, put together from patches where it came as one."""
        strategy = self.subscription.strategy
        deltas = strategy is not None and strategy.codec is not None
        base, told = b"", []
        for data, offset, patched in self._sent(deltas):
            base = apply(base, data) if patched else data
            told.append(Told(base, offset, patched))
        return told

    def _sent(self, deltas: bool) -> list[tuple[bytes, int, bool]]:
        if isinstance(self.listener.wire.codec, ProtobufCodec):
            return [(pub.data, pub.offset, pub.delta) for pub in self._protobuf()]
        pubs = [message["push"]["pub"] for message in self.listener.messages() if "pub" in message["push"]]
        return [
            (pub["data"].encode() if deltas else json.dumps(pub["data"]).encode(), pub.get("offset", 0), "delta" in pub)
            for pub in pubs
        ]

    def _protobuf(self) -> list[Any]:
        """Each message stands after its length, which is below 16384 here, and a line break follows it."""
        data, pubs = b"".join(self.listener.transport.writes), []
        while data:
            first, second, *_ = data
            start = 1 if first < 128 else 2
            stop = start + (first if first < 128 else first - 128 + second * 128)
            push = schema_pb2.Reply.FromString(data[start:stop]).push
            if push.HasField("pub"):
                pubs.append(push.pub)
            data = data[stop + 1 :]
        return pubs


class Stage:
    """A hub whose subscribers get what they ask for."""

    def __init__(self, interrupted: bool = False) -> None:
        """`interrupted`: the walk to those who get something of their own reaches one of them in each turn."""
        self.scheduled: list[Callable[[], None]] = []
        self.recorder = Recorder()
        self.timers = Timers(ManualClock())
        self.flusher = Flusher(self.scheduled.append, self.timers.clock.now_s, Wiretap.send_all)
        self.hub = Hub(self.scheduled.append, self.timers, self.recorder, 100_000, self.flusher, Patches())
        if interrupted:
            self.hub.slice_s = -1.0
        self.codec = CountingCodec()
        self.json, self.protobuf = Lines(self.codec), Lines(ProtobufCodec())
        self._clients = 0

    def join(
        self, top: StreamPosition | None, deltas: bool = False, node: FilterNode | None = None, binary: bool = False
    ) -> Reader:
        """A live one, in a position unless that is None."""
        self._clients += 1
        wire = self.protobuf if binary else self.json
        listener = Listener(f"c{self._clients}", self.flusher, wire)
        tags_filter = FILTERS.compile(node) if node is not None else None
        codec = wire.codec
        assert isinstance(codec, DeltaCodec)
        strategy = DeliveryStrategy(tags_filter, codec if deltas else None) if deltas or node is not None else None
        subscription = listener.subscription("news", strategy, receives_join_leave=True)
        self.hub.add(subscription)
        subscription.go_live(top)
        return Reader(listener, subscription)

    def publish(
        self,
        offset: int,
        data: bytes,
        kind: str = "",
        epoch: str = "e",
        exclude: Sequence[str] = (),
        delta: bool = True,
    ) -> None:
        publication = Publication(Raw(data), None, offset, {"kind": kind})
        self.hub.publish("news", publication, epoch if offset else "", exclude, delta)

    def step(self) -> None:
        """One turn of the event loop."""
        if self.scheduled:
            self.scheduled.pop(0)()

    def turn(self) -> None:
        while self.scheduled:
            self.step()


PUBLISH = st.tuples(
    st.just("publish"),
    st.sampled_from(["stream", "stream", "stream", "aside", "epoch"]),
    st.sampled_from(["keen", "keen", "dull"]),
    st.sampled_from([(), (), (), ("c1", "c3"), ("c2",)]),
    st.sampled_from([True, True, True, False]),
)
JOIN = st.tuples(st.just("join"), st.booleans(), st.sampled_from([True, True, False]), st.booleans(), st.booleans())
OTHER = st.one_of(
    st.tuples(st.sampled_from(["turn", "step", "step", "announce"]), st.none(), st.none(), st.none(), st.none()),
    st.tuples(st.just("leave"), st.integers(0, 5), st.none(), st.none(), st.none()),
)


@settings(max_examples=200)
@given(
    st.lists(JOIN, min_size=2, max_size=4),
    st.lists(st.one_of(PUBLISH, PUBLISH, PUBLISH, JOIN, OTHER, OTHER), min_size=5, max_size=40),
    st.booleans(),
)
def test_everybody_reads_what_was_published(
    joins: list[tuple[Any, ...]], others: list[tuple[Any, ...]], interrupted: bool
) -> None:
    """Whatever they ask for, in both codecs, with positions or without: as much as they should, in order, unchanged."""
    operations = joins + others
    stage = Stage(interrupted)
    offset, epoch, number = 0, 1, 0
    readers: list[tuple[Reader, list[tuple[bytes, int]]]] = []
    for operation, first, second, third, fourth in operations:
        if operation == "publish":
            number += 1
            if first == "epoch":
                epoch, offset = epoch + 1, 0
                for reader, _ in readers:  # the positioned would be told of a gap; here they leave before
                    if reader.subscription.expected > 0:
                        stage.hub.remove(reader.subscription)
            offset += first != "aside"
            stage.publish(0 if first == "aside" else offset, text(number), second, f"e{epoch}", third, fourth)
            for reader, expected in readers:
                live = reader.subscription.phase is SubscriptionPhase.LIVE
                strategy = reader.subscription.strategy
                filtered = strategy is not None and strategy.tags_filter is not None
                if live and reader.listener.client not in third and (second == "keen" or not filtered):
                    expected.append((text(number), 0 if first == "aside" else offset))
        elif operation == "join":
            top = StreamPosition(offset, f"e{epoch}") if first else None
            readers.append((stage.join(top, second, KEEN if third else None, fourth), []))
        elif operation == "turn":
            stage.turn()
        elif operation == "step":
            stage.step()
        elif operation == "announce":
            stage.hub.announce(JoinPush("news", ClientInfo("ann", "c9")))
        elif first < len(readers):
            stage.hub.remove(readers[first][0].subscription)
    stage.turn()
    for reader, expected in readers:
        assert reader.listener.gaps == []
        assert [(told.data, told.offset) for told in reader.told()] == expected


def test_a_patch_is_encoded_once_per_wire() -> None:
    """However many share its base, and the others share what they always share."""
    stage = Stage()
    top = StreamPosition(0, "e")
    plain = [stage.join(top) for _ in range(3)]
    patched = [stage.join(top, deltas=True) for _ in range(3)]
    for offset in (1, 2):
        stage.publish(offset, text(offset))
        stage.turn()
    late = stage.join(StreamPosition(2, "e"), deltas=True)
    stage.publish(3, text(3))
    stage.turn()
    assert stage.codec.encoded == 3 + 3 + 1, "whole, as patches (the first as a string), and whole for the late one"
    assert all([told.data for told in reader.told()] == [text(1), text(2), text(3)] for reader in plain + patched)
    assert [told.patched for told in patched[0].told()] == [False, True, True]
    assert [told.patched for told in late.told()] == [False]
    assert stage.hub.statistics().patches_total == 6


def test_equal_filters_are_asked_once() -> None:
    """For each publication, however many have them and in whatever codec."""
    stage = Stage()
    asked: list[object] = []

    def ask(tags: Tags) -> bool:
        asked.append(tags)
        return passes(tags)

    readers = [stage.join(None, node=KEEN, binary=binary) for binary in (False, False, True)]
    strategy = readers[0].subscription.strategy
    assert strategy is not None
    assert strategy.tags_filter is not None
    passes = strategy.tags_filter._predicate
    strategy.tags_filter._predicate = ask
    try:
        stage.publish(0, text(1), "keen")
        stage.publish(0, text(2), "dull")
        stage.turn()
    finally:
        strategy.tags_filter._predicate = passes
    assert len(asked) == 2
    assert all([told.data for told in reader.told()] == [text(1)] for reader in readers)
    assert stage.hub.statistics().filtered_total == 3


def test_they_are_members_like_all_others() -> None:
    """Counted, found, listed and removed; and the channel goes with the last of them."""
    stage = Stage()
    plain, filtered = stage.join(None), stage.join(None, node=KEEN)
    hub = stage.hub
    assert (hub.count("news"), list(hub.channels())) == (2, [("news", 2)])
    assert hub.subscribers("news") == [plain.subscription, filtered.subscription]
    assert hub.find("news", "c2") is filtered.subscription
    stage.publish(0, text(1))
    stage.turn()
    assert [event.subscribers for event in stage.recorder.of(BatchFannedOut)] == [2]
    assert hub.remove(filtered.subscription) is False
    assert hub.remove(plain.subscription) is True
    assert hub.find("news", "c2") is None


def test_the_latest_publication_is_kept_for_patches_only() -> None:
    """A channel in which nobody gets any holds on to nothing."""
    stage = Stage()
    stage.join(None)
    patched = stage.join(None, deltas=True)
    stage.publish(0, text(1))
    local = stage.hub._channels["news"]
    kept = [local.latest is not None]
    stage.hub.remove(patched.subscription)
    kept.append(local.latest is not None)
    stage.publish(0, text(2))
    kept.append(local.latest is not None)
    assert kept == [True, False, False]
