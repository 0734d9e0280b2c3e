"""Who is in which channel here, and fan-out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from msgspec import Raw

from beaconfire.base.clock import ManualClock
from beaconfire.base.timers import Timers
from beaconfire.delivery.hub import DIRECT_SUBSCRIBERS_MAX, Hub
from beaconfire.delivery.outbox import Flusher
from beaconfire.delivery.patches import Patches
from beaconfire.delivery.subscription import Subscription, SubscriptionPhase
from beaconfire.model.events import BatchFannedOut, InternalError
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import ClientInfo, Publication
from beaconfire.model.pushes import JoinPush, LeavePush, PublicationPush
from beaconfire.protocols.centrifuge.json_codec import JsonCodec
from beaconfire.protocols.centrifuge.protobuf_codec import ProtobufCodec
from tests.unit.kit import Lines, Listener, Recorder, Wiretap


class CountingCodec(JsonCodec):
    """Counts encodings."""

    def __init__(self) -> None:
        self.encoded = 0

    def encode_push(self, push: Any) -> Any:
        self.encoded += 1
        return super().encode_push(push)


class Stage:
    """A hub whose subscribers may have sockets to send to directly, or not."""

    def __init__(self, direct: bool = False) -> None:
        self._direct = direct
        self.clock = ManualClock()
        self.scheduled: list[Callable[[], None]] = []
        self.recorder = Recorder()
        self.flusher = Flusher(self.scheduled.append, self.clock.now_s, Wiretap.send_all)
        self.hub = Hub(self.scheduled.append, Timers(self.clock), self.recorder, 10_000, self.flusher, Patches())
        self.codec = CountingCodec()
        self.wire = Lines(self.codec)
        self._clients = 0

    def listener(self) -> Listener:
        self._clients += 1
        listener = Listener(f"c{self._clients}", self.flusher, self.wire)
        if self._direct:
            listener.transport.direct = listener.transport
        return listener

    def subscriber(
        self, top: int | None = None, channel: str = "news", **options: bool
    ) -> tuple[Listener, Subscription]:
        """A live one, positioned at `top` unless that is None."""
        listener = self.listener()
        subscription = listener.subscription(channel, None, **options)
        self.hub.add(subscription)
        subscription.go_live(None if top is None else StreamPosition(top, "e"))
        return listener, subscription

    def publish(self, *offsets: int, channel: str = "news", epoch: str = "e", exclude: tuple[str, ...] = ()) -> None:
        """Publications whose data is their offset."""
        for offset in offsets:
            publication = Publication(Raw(b"%d" % offset), offset=offset)
            self.hub.publish(channel, publication, epoch if offset else "", exclude)

    def turn(self) -> None:
        while self.scheduled:
            self.scheduled.pop(0)()


@pytest.fixture(params=[False, True], ids=["written", "direct"])
def stage(request: pytest.FixtureRequest) -> Stage:
    return Stage(request.param)


# --- membership


def test_a_channel_is_there_while_it_has_subscribers(stage: Stage) -> None:
    """It comes with the first and goes with the last, and removing says when that was."""
    hub = stage.hub
    _, first = stage.subscriber()
    _, second = stage.subscriber()
    assert hub.has_subscribers("news")
    assert (hub.count("news"), list(hub.channels())) == (2, [("news", 2)])
    assert hub.remove(first) is False
    assert hub.subscribers("news") == [second]
    assert hub.remove(second) is True
    assert not hub.has_subscribers("news")
    assert (hub.count("news"), hub.subscribers("news"), list(hub.channels())) == (0, [], [])
    assert (hub.statistics().channels, hub.statistics().subscriptions) == (0, 0)


def test_removing_is_idempotent(stage: Stage) -> None:
    """A second time, or after another subscription of the same client took its place, nothing happens."""
    listener, subscription = stage.subscriber()
    assert stage.hub.remove(subscription) is True
    assert stage.hub.remove(subscription) is False
    again = listener.subscription()
    stage.hub.add(again)
    assert stage.hub.remove(subscription) is False
    assert stage.hub.subscribers("news") == [again]
    assert stage.hub.statistics().subscriptions == 1


def test_removed_subscriptions_have_ended(stage: Stage) -> None:
    """Nobody who still holds one can make it live again."""
    _, subscription = stage.subscriber()
    stage.hub.remove(subscription)
    assert subscription.phase is SubscriptionPhase.ENDED


def test_a_session_is_in_a_channel_once(stage: Stage) -> None:
    """A second subscription of the same client is our own bug."""
    listener, _ = stage.subscriber()
    with pytest.raises(AssertionError):
        stage.hub.add(listener.subscription())


# --- fan-out


def test_a_turn_is_one_batch(stage: Stage) -> None:
    """All of a channel's publications of a turn reach a subscriber in order, in one write."""
    listener, _ = stage.subscriber(top=0)
    stage.publish(1, 2, 3)
    assert listener.messages() == []
    stage.turn()
    assert listener.data() == [1, 2, 3]
    assert len(listener.transport.writes) == 1
    assert stage.recorder.of(BatchFannedOut) == [BatchFannedOut("", 3, 1, 0.0)]
    assert stage.hub.statistics().delivered_total == 3


def test_encoding_happens_once_per_codec(stage: Stage) -> None:
    """However many listen, positioned or not, and in however many different selections."""
    listeners = [stage.subscriber(top)[0] for top in (None, 0, 0, None)]
    late, _ = stage.subscriber(top=1)
    stage.publish(1, 2)
    stage.turn()
    assert [listener.data() for listener in listeners] == [[1, 2]] * 4
    assert late.data() == [2]
    assert stage.codec.encoded == 2
    assert stage.wire.packed == 2, "the whole batch, and the selection of the late one"


def test_every_wire_has_its_own_encoding(stage: Stage) -> None:
    """Two clients of different codecs each understand what they get."""
    json_listener, _ = stage.subscriber(top=0)
    protobuf_listener = Listener("p", stage.flusher, Lines(ProtobufCodec()))
    subscription = protobuf_listener.subscription()
    stage.hub.add(subscription)
    subscription.go_live(StreamPosition(0, "e"))
    stage.publish(1)
    stage.turn()
    assert json_listener.data() == [1]
    push = PublicationPush("news", Publication(Raw(b"1"), offset=1))
    assert b"".join(protobuf_listener.transport.writes) == ProtobufCodec().encode_push(push).data + b"\n"


def test_channels_do_not_mix(stage: Stage) -> None:
    """A publication reaches the subscribers of its channel and nobody else; one without any is dropped."""
    news, _ = stage.subscriber(channel="news")
    sport, _ = stage.subscriber(channel="sport")
    stage.publish(0, channel="sport")
    stage.publish(0, channel="nobody here")
    stage.turn()
    assert (news.data(), sport.data()) == ([], [0])


def test_whoever_comes_later_gets_nothing_earlier(stage: Stage) -> None:
    """What is pending when a subscription is added goes to the others only."""
    early, _ = stage.subscriber()
    stage.publish(0)
    late, _ = stage.subscriber()
    assert stage.hub.count("news") == 2
    stage.turn()
    assert (early.data(), late.data()) == ([0], [])


def test_whoever_leaves_gets_what_came_before(stage: Stage) -> None:
    """What is pending when a subscription is removed still goes out, and nothing after it."""
    listener, subscription = stage.subscriber(top=0)
    other, _ = stage.subscriber(top=0)
    stage.publish(1)
    stage.hub.remove(subscription)
    stage.publish(2)
    stage.turn()
    assert (listener.data(), other.data()) == ([1], [1, 2])


def test_a_batch_may_hold_offsets_a_subscriber_has(stage: Stage) -> None:
    """Duplicates are dropped, the rest is delivered."""
    listener, subscription = stage.subscriber(top=2)
    stage.publish(1, 2, 3, 4)
    stage.publish(4)
    stage.turn()
    assert listener.data() == [3, 4]
    assert subscription.position == StreamPosition(4, "e")


def test_publications_without_history_pass_between_others(stage: Stage) -> None:
    """They move no position, in a batch of their own or mixed with others."""
    listener, subscription = stage.subscriber(top=0)
    stage.publish(0)
    stage.turn()
    stage.publish(1, 0, 2)
    stage.turn()
    assert listener.data() == [0, 1, 0, 2]
    assert subscription.position == StreamPosition(2, "e")


@pytest.mark.parametrize("offsets", [(2,), (1, 3), (1, 2, 4)])
def test_a_hole_ends_the_positioned_and_nobody_else(stage: Stage, offsets: tuple[int, ...]) -> None:
    """They are told and get nothing of that batch; who does not watch a position gets everything."""
    positioned, subscription = stage.subscriber(top=0)
    carefree, _ = stage.subscriber()
    stage.publish(*offsets)
    stage.turn()
    assert len(positioned.gaps) == 1
    assert subscription.phase is SubscriptionPhase.ENDED
    assert positioned.messages() == []
    assert carefree.data() == list(offsets)
    stage.publish(offsets[-1] + 1)
    stage.turn()
    assert positioned.messages() == []
    assert len(positioned.gaps) == 1, "it is told once"


def test_a_foreign_epoch_ends_the_positioned(stage: Stage) -> None:
    """Also with the offset that is expected, alone in its batch or after others."""
    single_frame, _ = stage.subscriber(top=0)
    stage.publish(1, epoch="other")
    stage.turn()
    assert (len(single_frame.gaps), single_frame.messages()) == (1, [])
    mixed, _ = stage.subscriber(top=0)
    stage.publish(1)
    stage.publish(2, epoch="other")
    stage.turn()
    assert len(mixed.gaps) == 1


def test_who_is_excluded_hears_nothing_and_moves_on(stage: Stage) -> None:
    """Its position passes over the publication, so the next one is no hole."""
    sender, subscription = stage.subscriber(top=0)
    other, _ = stage.subscriber(top=0)
    stage.publish(1, exclude=(sender.client,))
    stage.turn()
    assert (sender.data(), other.data()) == ([], [1])
    assert subscription.position == StreamPosition(1, "e")
    stage.publish(2, exclude=(sender.client,))
    stage.publish(3)
    stage.turn()
    assert (sender.data(), other.data()) == ([3], [1, 2, 3])
    assert sender.gaps == []


def test_announcements_reach_those_who_hear_them(stage: Stage) -> None:
    """In their place between publications, and they move no position."""
    keen, subscription = stage.subscriber(top=0, receives_join_leave=True)
    plain, _ = stage.subscriber(top=0)
    info = ClientInfo("ann", "c9")
    stage.publish(1)
    stage.hub.announce(JoinPush("news", info))
    stage.publish(2)
    stage.hub.announce(LeavePush("news", info))
    stage.hub.announce(JoinPush("nobody here", info))
    stage.turn()
    assert [next(kind for kind in ("pub", "join", "leave") if kind in m["push"]) for m in keen.messages()] == [
        "pub",
        "join",
        "pub",
        "leave",
    ]
    assert plain.data() == [1, 2]
    assert subscription.position == StreamPosition(2, "e")


def test_who_catches_up_gets_nothing_yet(stage: Stage) -> None:
    """Publications are held, excluded ones for the position only, announcements not at all."""
    listener = stage.listener()
    subscription = listener.subscription(receives_join_leave=True)
    stage.hub.add(subscription)
    stage.publish(1, 2)
    stage.hub.announce(JoinPush("news", ClientInfo("ann", "c9")))
    stage.turn()
    stage.publish(3, exclude=(listener.client,))
    stage.publish(4)
    stage.turn()
    assert listener.messages() == []
    merged = subscription.go_live(StreamPosition(1, "e"))
    assert [publication.offset for publication in merged] == [2, 4]


def test_holding_is_bounded(stage: Stage) -> None:
    """Beyond the hub's limit the subscription cannot go live."""
    listener = stage.listener()
    subscription = listener.subscription()
    stage.hub.add(subscription)
    for offset in (1, 2, 3):
        stage.hub.publish("news", Publication(Raw(b"x" * 4000), offset=offset), "e")
    stage.turn()
    with pytest.raises(Exception, match="too many"):
        subscription.go_live(StreamPosition(0, "e"))


def test_an_undeliverable_payload_ends_only_those_who_cannot_have_it(stage: Stage) -> None:
    """JSON clients are told; a Protobuf client in the same channel gets its bytes."""
    first, _ = stage.subscriber(top=0)
    second, _ = stage.subscriber()
    binary = Listener("p", stage.flusher, Lines(ProtobufCodec()))
    subscription = binary.subscription()
    stage.hub.add(subscription)
    subscription.go_live(StreamPosition(0, "e"))
    stage.hub.publish("news", Publication(Raw(b"\xff\x00"), offset=1), "e")
    stage.turn()
    assert (first.undeliverable, second.undeliverable, binary.undeliverable) == (1, 1, 0)
    assert b"\xff\x00" in b"".join(binary.transport.writes)


def test_an_undeliverable_item_spares_those_who_do_not_get_it(stage: Stage) -> None:
    """Whoever is excluded from it need not be able to read it."""
    listener, _ = stage.subscriber(top=0)
    stage.hub.publish("news", Publication(Raw(b"\xff"), offset=1), "e", (listener.client,))
    stage.publish(2)
    stage.turn()
    assert (listener.undeliverable, listener.data()) == (0, [2])


def test_callbacks_may_change_the_table(stage: Stage) -> None:
    """They run after the walk: leaving, entering and publishing from there harms nobody."""
    victim, subscription = stage.subscriber(top=5)
    witness, _ = stage.subscriber(top=0)

    def leave_and_come_back(ended: Subscription) -> None:
        stage.hub.remove(ended)
        stage.publish(2)
        again = victim.subscription()
        stage.hub.add(again)
        again.go_live(StreamPosition(2, "e"))

    victim.react = leave_and_come_back
    stage.publish(1, epoch="e")
    subscription.epoch = "another"
    stage.turn()
    stage.publish(3)
    stage.turn()
    assert witness.data() == [1, 2, 3]
    assert victim.data() == [3]


def test_leaving_during_the_fan_out_that_leaving_caused(stage: Stage) -> None:
    """What was pending ends the subscription that is being removed: it is still removed, once."""
    listener, subscription = stage.subscriber(top=0)

    def leave(ended: Subscription) -> None:
        stage.hub.remove(ended)

    listener.react = leave
    stage.publish(7)
    stage.hub.remove(subscription)
    assert not stage.hub.has_subscribers("news")
    assert stage.hub.statistics().subscriptions == 0
    stage.turn()
    assert listener.messages() == []


def test_joining_survives_the_end_of_everybody_else(stage: Stage) -> None:
    """Whoever joins while the last other member is being lost is in the room all the same."""
    leaver = stage.listener()
    lost = leaver.subscription()
    stage.hub.add(lost)
    lost.go_live(StreamPosition(1, "e"))
    stage.publish(9)  # a hole, which ends it on the next turn
    newcomer = stage.listener()
    joined = newcomer.subscription()
    stage.hub.add(joined)
    joined.go_live(None)
    stage.turn()
    stage.hub.remove(lost)
    stage.publish(10)
    stage.turn()
    assert stage.hub.count("news") == 1
    assert [message["push"]["pub"]["offset"] for message in newcomer.messages()] == [10]


def test_what_is_pending_is_for_those_who_were_there(stage: Stage) -> None:
    """A newcomer hears nothing from before, the others everything, and joining fans nothing out."""
    early, late = stage.listener(), stage.listener()
    first, second = early.subscription(), late.subscription()
    stage.hub.add(first)
    first.go_live(None)
    stage.publish(1, 2)
    stage.hub.add(second)
    second.go_live(None)
    stage.publish(3)
    assert early.messages() == []
    stage.turn()
    assert [m["push"]["pub"]["offset"] for m in early.messages()] == [1, 2, 3]
    assert [m["push"]["pub"]["offset"] for m in late.messages()] == [3]


def test_a_bug_in_one_channel_does_not_silence_the_others(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a codec raises is reported, and every other channel is delivered; so is this one next time."""
    stage.recorder.expects_errors = True
    listener = stage.listener()
    subscriptions = [listener.subscription(channel) for channel in ("one", "two")]
    for subscription in subscriptions:
        stage.hub.add(subscription)
        subscription.go_live(None)
    with monkeypatch.context() as patch:
        patch.setattr(Hub, "_fan_out", _broken_once(Hub._fan_out))
        for channel in ("one", "two"):
            stage.hub.publish(channel, Publication(Raw(b"1")), "")
        stage.turn()
    assert [message["push"]["channel"] for message in listener.messages()] == ["two"]
    assert [event.where for event in stage.recorder.of(InternalError)] == ["fan-out"]


def _broken_once(fan_out: Callable[..., None]) -> Callable[..., None]:
    calls: list[str] = []

    def broken(self: Hub, channel: str, *more: object) -> None:
        calls.append(channel)
        if len(calls) == 1:
            raise RuntimeError("a codec's bug")
        fan_out(self, channel, *more)

    return broken


# --- the direct way


def test_a_channel_alone_is_sent_on_the_spot() -> None:
    """In the turn of the fan-out, without another one for the flusher; behind what waits already, nothing overtakes."""
    stage = Stage(direct=True)
    free, _ = stage.subscriber()
    waiting, _ = stage.subscriber()
    waiting.outbox.append(b"{}\n")
    stage.publish(1)
    stage.scheduled.pop()()  # the hub's turn, before the flusher's
    assert (free.data(), waiting.messages()) == ([1], [])
    stage.turn()
    assert (waiting.messages()[0], len(waiting.messages())) == ({}, 2)


@pytest.mark.parametrize(("channels", "subscribers"), [(2, 1), (1, DIRECT_SUBSCRIBERS_MAX + 1)])
def test_many_channels_and_large_ones_wait_for_the_flusher(channels: int, subscribers: int) -> None:
    """Several channels share one write per session, and a large one goes out in slices."""
    stage = Stage(direct=True)
    listeners = [stage.subscriber(channel=f"c{channel}")[0] for channel in range(channels) for _ in range(subscribers)]
    for channel in range(channels):
        stage.publish(1, channel=f"c{channel}")
    stage.scheduled.pop()()
    assert all(not listener.transport.writes for listener in listeners)
    stage.turn()
    assert all(listener.data() == [1] for listener in listeners)


def test_a_walk_that_breaks_has_served_those_it_passed() -> None:
    """They count as served, so they must be: a bug met later on the walk takes nothing from them."""
    stage = Stage(direct=True)
    stage.recorder.expects_errors = True
    first, _ = stage.subscriber(0)
    second, broken = stage.subscriber(0)
    broken.wire = None  # type: ignore[assignment]  # the bug
    stage.publish(1)
    stage.turn()
    assert first.data() == [1]
    assert second.data() == []
    assert [type(event) for event in stage.recorder.events] == [InternalError]
