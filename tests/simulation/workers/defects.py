"""Defects of the hub, of the link and of the node's side of the link, which the simulation must find."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from beaconfire.base.errors import EngineUnavailable
from beaconfire.channels.attachments import Attachments
from beaconfire.engines.hub import nodes as hub_nodes
from beaconfire.engines.hub.calls import CALLS, CallContext, Running
from beaconfire.engines.hub.channels import HubChannels
from beaconfire.engines.hub.connection import HubConnection
from beaconfire.engines.hub.nodes import HubNodes
from beaconfire.engines.hub.peer import Peer
from beaconfire.engines.port import PublishOutcome
from beaconfire.engines.remote.broker import RemoteBroker
from beaconfire.engines.remote.connection import Connection
from beaconfire.engines.remote.control import RemoteControlBus
from beaconfire.engines.remote.link import Link
from beaconfire.engines.wire.frames import FrameStream
from beaconfire.engines.wire.messages import (
    AddMembers,
    Announced,
    Message,
    Outcome,
    Publish,
    RefreshMembers,
    Survey,
)
from beaconfire.engines.wire.values import from_info
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import to_payload
from beaconfire.node.broker_listener import BrokerListener
from beaconfire.node.healing import Healing
from tests.simulation.disabled_checks import ignore_positions


def _lost_reply_counts_as_success(patch: pytest.MonkeyPatch) -> None:
    """A publish whose reply was lost with the link is acknowledged."""
    publish = RemoteBroker.publish

    async def succeed(self: RemoteBroker, channel: str, *arguments: Any) -> PublishOutcome:
        try:
            return await publish(self, channel, *arguments)
        except EngineUnavailable:
            return PublishOutcome(StreamPosition(0, ""))

    patch.setattr(RemoteBroker, "publish", succeed)


def _keys_are_lost(patch: pytest.MonkeyPatch) -> None:
    """The hub stores a publication again that is repeated with the same idempotency key."""

    def publish(context: CallContext, peer: Peer, request: Publish) -> Running:
        options = replace(request.options, idempotency_key="")
        info = None if request.info is None else from_info(request.info)
        return context.broker.publish(request.channel, to_payload(request.data), options, info, request.tags)

    _replace_call(patch, Publish, publish)


def _attach_does_not_count(patch: pytest.MonkeyPatch) -> None:
    """The worker is told that a channel is attached before the hub announces it there."""

    async def attach(self: HubChannels, peer: Peer, channels: Sequence[str]) -> None:
        def add() -> None:
            for channel in channels:
                if channel not in peer.attached and not peer.is_closed:
                    peer.attached.add(channel)
                    self._receivers[channel] = (*self._receivers.get(channel, ()), peer)

        await self._attachments.attach_all(channels)
        self._schedule(add)

    patch.setattr(HubChannels, "attach", attach)
    ignore_positions(patch)


def _dead_worker_stays_attached(patch: pytest.MonkeyPatch) -> None:
    """The channels of a lost connection are not released."""
    patch.setattr(HubChannels, "remove", lambda self, peer: None)


def _dead_worker_takes_the_channel_with_it(patch: pytest.MonkeyPatch) -> None:
    """The end of one worker ends the announcements to all workers."""

    def remove(self: HubChannels, peer: Peer) -> None:
        for channel in peer.attached:
            self._receivers.pop(channel, None)
            self._attachments.release(channel)
        peer.attached.clear()

    def release(self: HubChannels, peer: Peer, channel: str) -> None:
        left = tuple(each for each in self._receivers.pop(channel, ()) if each is not peer)
        if left:
            self._receivers[channel] = left
        else:
            self._attachments.release(channel)

    patch.setattr(HubChannels, "remove", remove)
    patch.setattr(HubChannels, "_release", release)
    ignore_positions(patch)


def _detach_of_one_worker_counts_for_all(patch: pytest.MonkeyPatch) -> None:
    """A channel ends for all workers when one of them detaches it."""

    def release(self: HubChannels, peer: Peer, channel: str) -> None:
        for each in self._receivers.pop(channel, ()):
            each.attached.discard(channel)
        self._attachments.release(channel)

    patch.setattr(HubChannels, "_release", release)
    ignore_positions(patch)


def _frame_that_is_cut_is_dropped(patch: pytest.MonkeyPatch) -> None:
    """The beginning of a frame is forgotten if the length is whole and the message is not."""
    hand_over = FrameStream._hand_over

    def drop(self: FrameStream[Any]) -> None:
        hand_over(self)
        if len(self._chunks) == 1 and 4 < len(self._chunks[0]) < self._needed_bytes:
            self._chunks = [self._chunks[0][:4]]
            self._chunks_bytes = 4

    patch.setattr(FrameStream, "_hand_over", drop)


def _rest_after_a_slice_is_dropped(patch: pytest.MonkeyPatch) -> None:
    """What was received in the same read as the last message of a slice is lost."""
    end_hold = FrameStream._end_hold

    def drop(self: FrameStream[Any]) -> None:
        self._chunks = []
        self._chunks_bytes = 0
        end_hold(self)

    patch.setattr(FrameStream, "_end_hold", drop)


def _lost_link_is_not_told(patch: pytest.MonkeyPatch) -> None:
    """The node does not learn that its attachments are void."""
    patch.setattr(BrokerListener, "on_link_down", lambda self, channels: None)
    ignore_positions(patch)


def _link_that_is_back_is_not_told(patch: pytest.MonkeyPatch) -> None:
    """The node does not learn that the link is up again."""
    patch.setattr(BrokerListener, "on_link_up", lambda self, channels: None)


def _channels_are_not_healed(patch: pytest.MonkeyPatch) -> None:
    """Nothing is read when the link is back."""
    patch.setattr(Healing, "heal_all", lambda self, channels: None)
    ignore_positions(patch)


def _attachments_survive_the_link(patch: pytest.MonkeyPatch) -> None:
    """Channels of a worker count as attached although the hub has forgotten them."""
    patch.setattr(Attachments, "link_down", lambda self, channels: None)
    ignore_positions(patch)


def _node_is_not_registered_again(patch: pytest.MonkeyPatch) -> None:
    """After a lost link the node gets no control messages."""
    greet = HubConnection._greet

    def forget(self: HubConnection, message: Any) -> None:
        greet(self, replace(message, node=""))

    patch.setattr(HubConnection, "_greet", forget)


def _lost_node_stays_registered(patch: pytest.MonkeyPatch) -> None:
    """A node whose connection was lost counts as live."""
    patch.setattr(HubNodes, "remove", lambda self, peer: None)


def _survey_waits_for_ever(patch: pytest.MonkeyPatch) -> None:
    """A survey has no time limit at the hub, and a worker does not answer."""
    survey = HubNodes._survey

    def ask(self: HubNodes, peer: Peer, request: Any) -> Any:
        return survey(self, peer, replace(request, timeout_s=1e9))

    handlers: dict[Any, Any] = {**hub_nodes._HANDLERS, Survey: ask}
    patch.setattr(hub_nodes, "_HANDLERS", handlers)
    patch.setattr(RemoteControlBus, "_on_survey", lambda self, message: None)


def _answers_of_surveys_are_lost(patch: pytest.MonkeyPatch) -> None:
    """A survey ends after the first answer."""

    def answered(self: HubNodes, number: int, survey: Any, peer: Peer) -> None:
        survey.waiting.clear()
        self._finish(number, survey)

    patch.setattr(HubNodes, "_answered", answered)


def _publication_of_the_wrong_channel(patch: pytest.MonkeyPatch) -> None:
    """An announcement is sent with the channel of the one before."""
    last = ["a"]
    on_announced = RemoteBroker._on_announced

    def swap(self: RemoteBroker, message: Announced) -> None:
        channel, last[0] = last[0], message.channel
        on_announced(self, replace(message, channel=channel))

    patch.setattr(RemoteBroker, "_on_announced", swap)


def _exclude_is_lost(patch: pytest.MonkeyPatch) -> None:
    """The announcement does not name the clients that must not get it."""
    on_announced = RemoteBroker._on_announced
    patch.setattr(RemoteBroker, "_on_announced", lambda self, message: on_announced(self, replace(message, exclude=())))


def _tags_are_lost(patch: pytest.MonkeyPatch) -> None:
    """The announcement has no tags."""
    on_announced = RemoteBroker._on_announced
    patch.setattr(RemoteBroker, "_on_announced", lambda self, message: on_announced(self, replace(message, tags=None)))


def _calls_are_not_failed_by_a_lost_link(patch: pytest.MonkeyPatch) -> None:
    """Calls wait although their link was lost, as if the hub could still answer."""
    on_lost = Connection.on_lost

    def forget(self: Connection, reason: str) -> None:
        self._waiting = {}
        on_lost(self, reason)

    patch.setattr(Connection, "on_lost", forget)
    patch.setattr("beaconfire.base.deadlines.Deadlines.start", _never_due)


class _NeverDue:
    def finish(self) -> bool:
        return False


def _never_due(self: Any, waits_s: float = 0.0) -> _NeverDue:
    return _NeverDue()


def _replies_are_mixed_up(patch: pytest.MonkeyPatch) -> None:
    """A reply goes to the oldest call of the same connection that waits for an outcome."""
    finish = Connection._finish

    def mix(self: Connection, reply: Any) -> None:
        if isinstance(reply, Outcome) and self._waiting:
            reply = replace(reply, id=min(self._waiting))
        finish(self, reply)

    patch.setattr(Connection, "_finish", mix)


def _link_gives_up(patch: pytest.MonkeyPatch) -> None:
    """The link tries to connect again only once."""
    connect_later = Link._connect_later

    def once(self: Link) -> None:
        if self._failures == 0:
            connect_later(self)

    patch.setattr(Link, "_connect_later", once)


def _full_hub_never_reads_again(patch: pytest.MonkeyPatch) -> None:
    """A connection with too many calls is held for ever."""
    patch.setattr(HubConnection, "_on_done", lambda self, task: self._running.discard(task))


def _presence_of_a_dead_worker_stays(patch: pytest.MonkeyPatch) -> None:
    """Presence entries never expire."""

    def add(context: CallContext, peer: Peer, request: AddMembers) -> Running:
        return context.presence.add(request.channel, [from_info(info) for info in request.members], 1e9)

    def refresh(context: CallContext, peer: Peer, request: RefreshMembers) -> Running:
        return context.presence.refresh(request.channel, request.clients, 1e9)

    _replace_call(patch, AddMembers, add)
    _replace_call(patch, RefreshMembers, refresh)


def _replace_call(patch: pytest.MonkeyPatch, kind: type[Message], start: Callable[..., Running]) -> None:
    calls = {**CALLS, kind: CALLS[kind]._replace(start=start)}
    for table in ("beaconfire.engines.hub.connection.CALLS", "tests.simulation.workers.defects.CALLS"):
        patch.setattr(table, calls)


DEFECTS: tuple[Callable[[pytest.MonkeyPatch], None], ...] = (
    _lost_reply_counts_as_success,
    _keys_are_lost,
    _attach_does_not_count,
    _dead_worker_stays_attached,
    _dead_worker_takes_the_channel_with_it,
    _detach_of_one_worker_counts_for_all,
    _frame_that_is_cut_is_dropped,
    _rest_after_a_slice_is_dropped,
    _lost_link_is_not_told,
    _link_that_is_back_is_not_told,
    _channels_are_not_healed,
    _attachments_survive_the_link,
    _node_is_not_registered_again,
    _lost_node_stays_registered,
    _survey_waits_for_ever,
    _answers_of_surveys_are_lost,
    _publication_of_the_wrong_channel,
    _exclude_is_lost,
    _tags_are_lost,
    _calls_are_not_failed_by_a_lost_link,
    _replies_are_mixed_up,
    _link_gives_up,
    _full_hub_never_reads_again,
    _presence_of_a_dead_worker_stays,
)
