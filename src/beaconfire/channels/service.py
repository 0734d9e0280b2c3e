"""Publish, history and presence of channels through the engine, with the options of the channel's namespace.

Client commands, the server API and the node itself all publish and read here. There is no second path to the engine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Raw

from beaconfire.base.errors import BAD_REQUEST, NOT_AVAILABLE, UNRECOVERABLE_POSITION, CommandError
from beaconfire.channels.namespaces import Namespace
from beaconfire.channels.shared_reads import SharedReads
from beaconfire.engines.port import (
    NO_HISTORY,
    Broker,
    HistoryPage,
    PresenceStats,
    PresenceStore,
    PublishOptions,
    PublishOutcome,
)
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import ClientInfo


class ChannelService:
    """Every method takes the channel and its namespace, and raises what the engine raises in addition."""

    def __init__(self, broker: Broker, presence: PresenceStore, reads: SharedReads | None = None) -> None:
        """`reads` makes the reads of subscribers. None: each of them is a call of the broker, which costs little if the
        engine never suspends."""
        self._broker = broker
        self._presence = presence
        self._reads = reads
        self._read_for_subscriber = broker.history if reads is None else reads.history

    async def publish(
        self,
        channel: str,
        namespace: Namespace,
        data: Raw,
        info: ClientInfo | None = None,
        tags: Mapping[str, str] | None = None,
        *,
        skip_history: bool = False,
        producer: str = "",
        seq: int = 0,
        idempotency_key: str = "",
        version: int = 0,
        version_epoch: str = "",
        exclude: Sequence[str] = (),
        delta: bool = False,
    ) -> PublishOutcome:
        """Stores and announces the publication in one step. Returns its position.

        `exclude` lists client ids that do not receive the publication live. `delta` allows patches. Raises CommandError
        107 if only one of `producer` and `seq` is given.
        """
        if (producer or seq) and not (producer and seq > 0):
            raise CommandError(BAD_REQUEST, "producer and seq belong together: give a name and a number from 1 on")
        options = PublishOptions(
            history=NO_HISTORY if skip_history else namespace.history,
            producer=producer,
            seq=seq,
            idempotency_key=idempotency_key,
            version=version,
            version_epoch=version_epoch,
            exclude=tuple(exclude),
            delta=delta or namespace.options.delta_publish,
        )
        return await self._broker.publish(channel, data, options, info, tags)

    async def history(
        self,
        channel: str,
        namespace: Namespace,
        limit: int,
        since: StreamPosition | None = None,
        reverse: bool = False,
    ) -> HistoryPage:
        """Like `Broker.history`. Raises CommandError 108 if the namespace keeps no history."""
        check_history(channel, namespace)
        return await self._broker.history(channel, namespace.history, limit, since, reverse)

    async def read_for_subscriber(
        self,
        channel: str,
        namespace: Namespace,
        limit: int,
        since: StreamPosition | None = None,
        reverse: bool = False,
    ) -> HistoryPage:
        """Like `history`, for a subscription that is in the hub and whose channel is attached.

        Subscribers of a channel that ask at about the same time may share a read: see `SharedReads.history`, also for
        the arguments.
        """
        check_history(channel, namespace)
        return await self._read_for_subscriber(channel, namespace.history, limit, since, reverse)

    async def page(
        self, channel: str, namespace: Namespace, limit: int, since: StreamPosition | None, reverse: bool
    ) -> HistoryPage:
        """Like `history`, for a request that names a position of its own.

        Raises CommandError 107 for a reverse page before offset 0, and 112 if `since` is a position of another stream.
        Publications that have expired after `since` are no error.
        """
        if since is not None and reverse and since.offset == 0:
            raise CommandError(BAD_REQUEST, "since.offset must be above 0 with reverse: nothing is earlier")
        page = await self.history(channel, namespace, limit, since, reverse)
        # A page of an older epoch may continue after a failover, see `HistoryPage.continues`.
        if since is not None and not page.continues and since.epoch not in ("", page.position.epoch):
            raise CommandError(UNRECOVERABLE_POSITION, "since.epoch is not the stream's: read from the start")
        return page

    async def remove_history(self, channel: str, namespace: Namespace) -> None:
        """Removes the publications; the position stays. Raises CommandError 108 if the namespace keeps no history.

        The caller tells all nodes: they may keep pages of the channel for some seconds.
        """
        check_history(channel, namespace)
        await self._broker.remove_history(channel)

    async def presence(self, channel: str, namespace: Namespace) -> dict[str, ClientInfo]:
        """The present clients by client id. Raises CommandError 108 if presence is off."""
        check_presence(channel, namespace)
        return await self._presence.members(channel)

    async def presence_stats(self, channel: str, namespace: Namespace) -> PresenceStats:
        """Raises CommandError 108 if presence is off."""
        check_presence(channel, namespace)
        return await self._presence.stats(channel)


def check_history(channel: str, namespace: Namespace) -> None:
    """Raises CommandError 108 if the namespace keeps no history."""
    if not namespace.history.enabled:
        raise CommandError(NOT_AVAILABLE, f"history is off in {channel!r}: set history_size and history_ttl")


def check_presence(channel: str, namespace: Namespace) -> None:
    """Raises CommandError 108 if presence is off."""
    if not namespace.options.presence:
        raise CommandError(NOT_AVAILABLE, f"presence is off in {channel!r}: set presence")
