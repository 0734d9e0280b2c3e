"""Periodic work for the channels of this node: refreshes presence, and compares positions with the streams."""

from __future__ import annotations

from collections.abc import Coroutine, Iterator, Sequence
from typing import Any, Final

from beaconfire.base.loop import Runtime
from beaconfire.base.tasks import BackgroundTasks
from beaconfire.channels.lanes import Lanes, in_batches
from beaconfire.channels.namespaces import Namespaces
from beaconfire.channels.periodic import PeriodicWork
from beaconfire.delivery.hub import Hub
from beaconfire.engines.port import Engine
from beaconfire.model.position import StreamPosition
from beaconfire.node.healing import Healing
from beaconfire.session.options import ClientOptions

PRESENCE_TTL_INTERVALS: Final = 2.2
"""Presence entries live this many refresh intervals, so that one refresh may fail without a client disappearing."""

POSITIONS_PER_CALL: Final = 512


class ChannelUpkeep:
    """Works once per channel and interval, however many subscribers the channel has.

    `presence` and `positions` work for the channels that were added to them, as long as these have subscribers.
    """

    def __init__(
        self,
        engine: Engine,
        hub: Hub,
        lanes: Lanes,
        healing: Healing,
        namespaces: Namespaces,
        options: ClientOptions,
        runtime: Runtime,
        background: BackgroundTasks,
    ) -> None:
        self._engine = engine
        self._hub = hub
        self._lanes = lanes
        self._healing = healing
        self._namespaces = namespaces
        self._background = background
        self._presence_ttl_s = presence_ttl_s(options)
        self._behind: dict[str, StreamPosition] = {}
        """The top of the stream at the last comparison, for channels that had not reached it."""
        timers, schedule, random = runtime.timers, runtime.schedule, runtime.random
        interval_s, delay_s = float(options.presence_update_interval), float(options.channel_position_check_delay)
        self.presence = PeriodicWork(self._refresh_presence, interval_s, timers, schedule, random, background)
        self.positions = PeriodicWork(self._compare_positions, delay_s, timers, schedule, random, background)

    def stop(self) -> None:
        """No work starts any more."""
        self.presence.stop()
        self.positions.stop()

    # Presence

    def _refresh_presence(self, channels: Sequence[str]) -> Iterator[Coroutine[Any, Any, None]]:
        for channel in channels:
            clients = [
                subscription.client
                for subscription in self._hub.subscribers(channel)
                if subscription.options.presence and subscription.replied
            ]
            if clients:
                self.presence.add(channel)
            for batch in in_batches(clients):
                yield self._refresh_entries(channel, batch)

    async def _refresh_entries(self, channel: str, clients: Sequence[str]) -> None:
        """Adds the entries again that were lost, for example because their store has restarted."""
        try:
            missing = await self._engine.presence.refresh(channel, clients, self._presence_ttl_s)
        except Exception as error:  # noqa: BLE001 - reported; an entry survives one failed refresh
            self._background.report(error)
            return
        for client in missing:
            subscription = self._hub.find(channel, client)
            if subscription is not None and subscription.options.presence and subscription.replied:
                self._lanes.replace(channel, subscription.info)

    # Positions

    def _compare_positions(self, channels: Sequence[str]) -> Iterator[Coroutine[Any, Any, None]]:
        for start in range(0, len(channels), POSITIONS_PER_CALL):
            yield self._compare(channels[start : start + POSITIONS_PER_CALL])

    async def _compare(self, channels: Sequence[str]) -> None:
        """Starts the healing of channels that are behind their stream.

        Recent publications may not have reached this node yet. So a channel is behind only if it has not reached the
        top that the comparison before saw. A new epoch needs no second comparison.
        """
        histories = {}
        for channel in channels:
            if self._hub.has_subscribers(channel):
                self.positions.add(channel)
                histories[channel] = self._namespaces.resolve(channel).history
            else:
                self._behind.pop(channel, None)
        if not histories:
            return
        try:
            tops = await self._engine.broker.positions(histories)
        except Exception as error:  # noqa: BLE001 - reported; the next comparison follows
            self._background.report(error)
            return
        for channel, top in tops.items():
            if self._is_behind(channel, top):
                self._healing.heal(channel)

    def _is_behind(self, channel: str, top: StreamPosition) -> bool:
        before = self._behind.pop(channel, None)
        announced = self._hub.announced(channel)
        if announced is None:
            return False
        if top.epoch != announced.epoch:
            return True
        if announced.offset >= top.offset:
            return False
        if before is not None and before.epoch == announced.epoch and announced.offset < before.offset:
            return True
        self._behind[channel] = top
        return False


def presence_ttl_s(options: ClientOptions) -> float:
    """How long a presence entry lives without a refresh."""
    return float(options.presence_update_interval) * PRESENCE_TTL_INTERVALS
