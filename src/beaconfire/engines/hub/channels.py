"""Which worker gets the announcements of which channel.

The inner engine makes each announcement once. It is encoded once, and the same bytes go to every worker that has
attached the channel. The inner engine is attached to a channel as long as at least one worker is, and some time longer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from beaconfire.base.backoff import Backoff
from beaconfire.base.errors import EngineUnavailable
from beaconfire.base.loop import Runtime
from beaconfire.base.tasks import BackgroundTasks
from beaconfire.channels.attachments import Attachments
from beaconfire.engines.hub.peer import Peer
from beaconfire.engines.port import Broker
from beaconfire.engines.wire.messages import Announced, Joined, Left, LinkDown, LinkUp, Message, encode
from beaconfire.engines.wire.values import data_of, to_info
from beaconfire.model.publication import ClientInfo, Publication

DETACH_DELAY_S: Final = 10.0
"""How long the inner engine stays attached to a channel that no worker needs: longer than it takes a worker to
reconnect, which then attaches all its channels again."""

ATTACH_TIMEOUT_S: Final = 10.0
"""How long a request waits for the inner engine. The worker has a shorter deadline of its own."""

CHANNELS_PER_TURN: Final = 1000
"""How many channels of a connection that has ended are released in one turn of the event loop."""


class HubChannels:
    """Implements `BrokerEvents` for the inner engine."""

    def __init__(
        self,
        broker: Broker,
        runtime: Runtime,
        background: BackgroundTasks,
        peers: Callable[[], Sequence[Peer]],
    ) -> None:
        """`peers` returns all connected workers."""
        self._receivers: dict[str, tuple[Peer, ...]] = {}
        self._peers = peers
        self._schedule = runtime.schedule
        self._losses = 0
        """How often the inner engine has lost its link."""
        self._attachments = Attachments(
            broker,
            runtime.timers,
            background,
            Backoff(runtime.random),
            DETACH_DELAY_S,
            ATTACH_TIMEOUT_S,
            self._receivers.__contains__,
        )

    def __len__(self) -> int:
        """The number of channels that at least one worker has attached."""
        return len(self._receivers)

    def close(self) -> None:
        """Attaches and detaches nothing any more."""
        self._attachments.close()

    # For the workers

    async def attach(self, peer: Peer, channels: Sequence[str]) -> None:
        """Returns when later announcements in these channels go to the worker. Raises what the inner engine raises:
        then the worker attaches again or detaches."""
        if peer.is_closed:
            return
        for channel in channels:
            if channel not in peer.attached:
                peer.attached.add(channel)
                self._receivers[channel] = (*self._receivers.get(channel, ()), peer)
        losses = self._losses
        failure = await self._attachments.attach_all(channels)
        if failure is not None:
            raise failure
        if losses != self._losses:
            raise EngineUnavailable("attach: the engine of the hub has lost its link; attach again")

    async def detach(self, peer: Peer, channels: Sequence[str]) -> None:
        """Ends the announcements in these channels to the worker. Never suspends."""
        for channel in channels:
            if channel in peer.attached:
                peer.attached.remove(channel)
                self._release(peer, channel)

    def remove(self, peer: Peer) -> None:
        """The connection of the worker has ended. Its channels are released in slices."""
        for _ in range(min(CHANNELS_PER_TURN, len(peer.attached))):
            self._release(peer, peer.attached.pop())
        if peer.attached:
            self._schedule(lambda: self.remove(peer))

    def _release(self, peer: Peer, channel: str) -> None:
        receivers = tuple(each for each in self._receivers[channel] if each is not peer)
        if receivers:
            self._receivers[channel] = receivers
        else:
            del self._receivers[channel]
            self._attachments.release(channel)

    # engines.port.BrokerEvents of the inner engine

    def on_publication(
        self,
        channel: str,
        publication: Publication,
        epoch: str,
        previous: int,
        exclude: Sequence[str],
        delta: bool = False,
    ) -> None:
        receivers = self._receivers.get(channel)
        if receivers is None:
            return
        info = publication.info
        announcement = Announced(
            channel,
            data_of(publication.data),
            None if info is None else to_info(info),
            publication.offset,
            publication.tags,
            publication.epoch,
            epoch,
            previous,
            exclude,
            delta,
        )
        frame = encode(announcement)
        for peer in receivers:
            peer.write(frame)

    def on_join(self, channel: str, info: ClientInfo) -> None:
        self._announce(channel, Joined(channel, to_info(info)))

    def on_leave(self, channel: str, info: ClientInfo) -> None:
        self._announce(channel, Left(channel, to_info(info)))

    def on_link_down(self, channels: Sequence[str] | None) -> None:
        """Also voids the attachments of the workers, which attach again after `on_link_up`."""
        self._losses += 1
        self._attachments.link_down(channels)
        for channel in list(self._receivers) if channels is None else channels:
            for peer in self._receivers.pop(channel, ()):
                peer.attached.discard(channel)
        self._tell_all(LinkDown(None if channels is None else list(channels)))

    def on_link_up(self, channels: Sequence[str] | None) -> None:
        self._attachments.link_up(channels)
        self._tell_all(LinkUp(None if channels is None else list(channels)))

    def _announce(self, channel: str, announcement: Message) -> None:
        receivers = self._receivers.get(channel)
        if receivers is not None:
            frame = encode(announcement)
            for peer in receivers:
                peer.write(frame)

    def _tell_all(self, message: Message) -> None:
        frame = encode(message)
        for peer in self._peers():
            peer.write(frame)
