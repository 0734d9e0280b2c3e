"""A hub with its flusher and clock, and subscribers without sessions."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from msgspec import Raw

from beaconfire.base.clock import ManualClock
from beaconfire.base.timers import Timers
from beaconfire.channels.namespaces import Namespace
from beaconfire.channels.options import ChannelOptions
from beaconfire.delivery.conflated import Conflated
from beaconfire.delivery.filtered import Filtered
from beaconfire.delivery.hub import Hub
from beaconfire.delivery.outbox import Flusher, Outbox
from beaconfire.delivery.patched import Patched
from beaconfire.delivery.patches import Patches
from beaconfire.delivery.plain import PLAIN
from beaconfire.delivery.strategy import DeliveryStrategy
from beaconfire.delivery.subscription import Subscription, SubscriptionOptions
from beaconfire.delivery.tags_filter import TagsFilters
from beaconfire.model.grants import SubscriptionGrant
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import ClientInfo, Publication
from beaconfire.model.requests import FilterNode
from beaconfire.protocols.centrifuge import schema_pb2
from beaconfire.protocols.centrifuge.json_codec import JsonCodec
from beaconfire.protocols.centrifuge.protobuf_codec import ProtobufCodec
from beaconfire.protocols.port import DeltaCodec, Wire
from tests.fakes.events import EventRecorder
from tests.fakes.transport import LineWire, RecordingTransport
from tests.unit.patching import apply, chained_text

FILTERS = TagsFilters(10, 10)
WANTED = FilterNode(key="kind", cmp="eq", val="wanted")
"""A filter that passes publications of the kind `wanted`."""
START = StreamPosition(0, "e")
"""The position of a stream without publications."""


def text(number: int) -> bytes:
    """The JSON of one of a series of texts, for data that patches are made of."""
    return json.dumps(chained_text(number)).encode()


class CountingCodec(JsonCodec):
    """Counts the pushes that it encodes."""

    def __init__(self) -> None:
        self.encoded = 0

    def encode_push(self, push: Any) -> Any:
        self.encoded += 1
        return super().encode_push(push)


class FakeSubscriber:
    """Implements `delivery.subscription.Subscriber` without a session. `flusher` writes its outbox."""

    def __init__(self, client: str, flusher: Flusher, wire: Wire) -> None:
        self.client = client
        self.wire = wire
        self.transport = RecordingTransport()
        self.outbox = Outbox(self.transport, flusher, 10_000, lambda: None)
        self.gaps: list[str] = []
        self.react: Callable[[Subscription], None] = lambda subscription: None
        """Called after a gap, as a session that unsubscribes or subscribes again."""
        self.undeliverable = 0

    def on_gap(self, subscription: Subscription, reason: str) -> None:
        self.gaps.append(reason)
        self.react(subscription)

    def on_undeliverable(self, subscription: Subscription) -> None:
        self.undeliverable += 1

    def subscription(self, channel: str = "news", strategy: DeliveryStrategy = PLAIN, **options: bool) -> Subscription:
        """A new subscription of this subscriber, in the phase CATCHING_UP and not in a hub."""
        return Subscription(
            channel,
            Namespace("", ChannelOptions(), 1.0),
            self,
            SubscriptionOptions(**options),
            SubscriptionGrant(),
            ClientInfo("", self.client),
            strategy,
        )

    def messages(self) -> list[Any]:
        """Every message that was written, decoded."""
        return self.transport.messages()

    def data(self) -> list[Any]:
        """The data of every publication that was written. Nothing else may have been written."""
        return [message["push"]["pub"]["data"] for message in self.messages()]


class ReceivedPublication(NamedTuple):
    """A publication as the client has decoded it."""

    data: bytes
    offset: int
    patched: bool


class Reader:
    """A subscriber with one subscription, and the publications that its client decodes."""

    def __init__(self, subscriber: FakeSubscriber, subscription: Subscription) -> None:
        self.subscriber = subscriber
        self.subscription = subscription

    def publications(self) -> list[dict[str, Any]]:
        """The publications that were written, for a client with JSON."""
        return [message["push"]["pub"] for message in self.subscriber.messages() if "pub" in message["push"]]

    def offsets(self) -> list[int]:
        return [received.offset for received in self.received()]

    def offsets_and_left_out(self) -> list[tuple[int, int]]:
        """For each publication its offset, and the number of publications that were left out before it."""
        return [(pub.get("offset", 0), pub.get("conflated", 0)) for pub in self.publications()]

    def received(self) -> list[ReceivedPublication]:
        """Every publication. Patches are applied to the publication before."""
        deltas = self.subscription.strategy.has_patches
        base, received = b"", []
        for data, offset, patched in self._written(deltas):
            base = apply(base, data) if patched else data
            received.append(ReceivedPublication(base, offset, patched))
        return received

    def _written(self, deltas: bool) -> list[tuple[bytes, int, bool]]:
        if isinstance(self.subscriber.wire.codec, ProtobufCodec):
            return [(pub.data, pub.offset, pub.delta) for pub in self._protobuf_publications()]
        return [
            (pub["data"].encode() if deltas else json.dumps(pub["data"]).encode(), pub.get("offset", 0), "delta" in pub)
            for pub in self.publications()
        ]

    def _protobuf_publications(self) -> list[Any]:
        """Each message has its length before it, which is below 16384 here, and a line break after it."""
        data, pubs = b"".join(self.subscriber.transport.writes), []
        while data:
            first, second, *_ = data
            start = 1 if first < 128 else 2
            stop = start + (first if first < 128 else first - 128 + second * 128)
            push = schema_pb2.Reply.FromString(data[start:stop]).push
            if push.HasField("pub"):
                pubs.append(push.pub)
            data = data[stop + 1 :]
        return pubs


class HubHarness:
    """A hub whose clock, timers and event loop the test controls."""

    def __init__(self, codec: JsonCodec | None = None, hold_limit_bytes: int = 100_000) -> None:
        self.scheduled: list[Callable[[], None]] = []
        self.clock = ManualClock()
        self.timers = Timers(self.clock)
        self.recorder = EventRecorder()
        self.flusher = Flusher(self.scheduled.append, self.clock.now_s, RecordingTransport.send_all)
        self.hub = Hub(self.scheduled.append, self.timers, self.recorder, hold_limit_bytes, self.flusher, Patches())
        self.codec = codec or JsonCodec()
        self.wire = LineWire(self.codec)
        self._clients = 0

    def new_subscriber(self, wire: LineWire | None = None) -> FakeSubscriber:
        self._clients += 1
        return FakeSubscriber(f"c{self._clients}", self.flusher, wire or self.wire)

    def strategy(
        self, deltas: DeltaCodec | None = None, max_rate: float | None = None, node: FilterNode | None = None
    ) -> DeliveryStrategy:
        """Patches for this codec, conflation with this rate, and a filter, each unless it is None."""
        context = self.hub.context
        strategy: DeliveryStrategy = PLAIN if deltas is None else Patched(deltas, context)
        if max_rate is not None:
            strategy = Conflated(strategy, max_rate, context)
        return strategy if node is None else Filtered(strategy, FILTERS.compile(node), context)

    def interrupt_walks(self) -> None:
        """From now on a walk reaches one subscription in each turn."""
        self.hub.fan_out.slice_s = -1.0
        self.hub.fan_out.chunk = 1

    def publish_one(
        self,
        publication: Publication,
        epoch: str = "",
        exclude: Sequence[str] = (),
        delta: bool = False,
        *,
        previous: int | None = None,
        channel: str = "news",
    ) -> None:
        """Gives the hub a publication. Its predecessor has the offset before it unless `previous` says otherwise."""
        before = publication.offset - 1 if previous is None else previous
        self.hub.publish(channel, publication, epoch, exclude, delta, before)

    def run_turn(self) -> None:
        """One turn of the event loop: the first scheduled callback, if there is one."""
        if self.scheduled:
            self.scheduled.pop(0)()

    def run_scheduled(self) -> None:
        """Turns of the event loop until no callback is scheduled."""
        while self.scheduled:
            self.run_turn()

    def advance_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.timers.run_due()
        self.run_scheduled()


class StrategyHarness(HubHarness):
    """A hub with subscriptions that have filters and patches, or no strategy."""

    def __init__(self, interrupted: bool = False) -> None:
        """With `interrupted`, a walk reaches one subscription in each turn."""
        self.counting_codec = CountingCodec()
        super().__init__(self.counting_codec)
        if interrupted:
            self.interrupt_walks()
        self.protobuf = LineWire(ProtobufCodec())

    def subscribe(
        self, top: StreamPosition | None, deltas: bool = False, node: FilterNode | None = None, binary: bool = False
    ) -> Reader:
        """A live subscription, with the position `top` unless that is None."""
        wire = self.protobuf if binary else self.wire
        subscriber = self.new_subscriber(wire)
        codec = wire.codec
        assert isinstance(codec, DeltaCodec)
        strategy = self.strategy(codec if deltas else None, node=node)
        subscription = subscriber.subscription("news", strategy, receives_join_leave=True)
        self.hub.add(subscription)
        subscription.go_live(top)
        return Reader(subscriber, subscription)

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
        self.publish_one(publication, epoch if offset else "", exclude, delta)


class PlainHarness(HubHarness):
    """A hub with subscriptions without a strategy. With `direct`, frames are sent to the subscribers' sockets."""

    def __init__(self, direct: bool = False) -> None:
        self.counting_codec = CountingCodec()
        super().__init__(self.counting_codec, hold_limit_bytes=10_000)
        self._direct = direct

    def new_subscriber(self, wire: LineWire | None = None) -> FakeSubscriber:
        subscriber = super().new_subscriber(wire)
        if self._direct:
            subscriber.transport.direct = subscriber.transport
        return subscriber

    def subscribe(
        self, top: int | None = None, channel: str = "news", receives_join_leave: bool = False
    ) -> tuple[FakeSubscriber, Subscription]:
        """A live subscription, with the position `top` unless that is None."""
        subscriber = self.new_subscriber()
        subscription = subscriber.subscription(
            channel, positioned=top is not None, receives_join_leave=receives_join_leave
        )
        self.hub.add(subscription)
        subscription.go_live(None if top is None else StreamPosition(top, "e"))
        return subscriber, subscription

    def publish(self, *offsets: int, channel: str = "news", epoch: str = "e", exclude: tuple[str, ...] = ()) -> None:
        """Publishes with these offsets. The data of each publication is its offset."""
        for offset in offsets:
            publication = Publication(Raw(b"%d" % offset), offset=offset)
            self.publish_one(publication, epoch if offset else "", exclude, channel=channel)


class ConflationHarness(HubHarness):
    """A hub with one channel and conflated subscriptions."""

    def __init__(self) -> None:
        super().__init__()
        self.offset = 0

    def subscribe(
        self,
        max_rate: float,
        *,
        filtered: bool = False,
        deltas: bool = False,
        top: StreamPosition | None = START,
        wire: LineWire | None = None,
    ) -> Reader:
        """A live conflated subscription."""
        subscriber = self.new_subscriber(wire)
        strategy = self.strategy(self.codec if deltas else None, max_rate, WANTED if filtered else None)
        subscription = subscriber.subscription("news", strategy, receives_join_leave=True)
        self.hub.add(subscription)
        subscription.go_live(top)
        return Reader(subscriber, subscription)

    def publish(self, *data: Any, kind: str = "wanted", in_stream: bool = True, exclude: tuple[str, ...] = ()) -> None:
        """Publishes each in its own turn, so in its own batch."""
        for datum in data:
            self.offset += in_stream
            raw = Raw(json.dumps(datum).encode())
            publication = Publication(raw, None, self.offset if in_stream else 0, {"kind": kind})
            self.publish_one(publication, "e" if in_stream else "", exclude, True)
            self.run_scheduled()

    def block(self, reader: Reader) -> None:
        """The reader's connection takes no more data."""
        reader.subscriber.transport.writable = False

    def unblock(self, reader: Reader) -> None:
        """The reader's connection takes data again. Does what a session does then."""
        reader.subscriber.transport.writable = True
        reader.subscriber.outbox.flush()
        self.hub.resume(reader.subscription)
        self.run_scheduled()
