"""The broker: streams, announcements and attachments in Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from msgspec import Raw
from msgspec.structs import replace

from beaconfire.base.errors import NOT_AVAILABLE, CommandError, EngineUnavailable, OutOfSequence
from beaconfire.engines.port import (
    IDEMPOTENCY_TTL_S,
    PRODUCERS_MAX,
    RECEIPTS_MAX,
    BrokerEvents,
    HistoryOptions,
    HistoryPage,
    MemberChange,
    PublishOptions,
    PublishOutcome,
)
from beaconfire.engines.redis.announcements import (
    NONCE_BYTES,
    UNSTORED,
    encode_body,
    encode_changes,
    tell,
    to_publication,
)
from beaconfire.engines.redis.connection import Command, Reply
from beaconfire.engines.redis.handshake import Unsuitable
from beaconfire.engines.redis.keys import ChannelKeys, Keys
from beaconfire.engines.redis.link import Link
from beaconfire.engines.redis.pending import Sender
from beaconfire.engines.redis.scripts import HISTORY, PUBLISH, PUBLISH_KEYED, REMOVE_HISTORY
from beaconfire.engines.redis.servers import Servers
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import ClientInfo, Publication

_OFFSET_MAX: Final = 2**53
"""No stream gets so far. Clients may send larger offsets, which Lua could not compare."""

START_PATIENCE_S: Final = 10.0
"""How long the start waits for a server that does not answer."""

START_PAUSE_S: Final = 0.25

_KEY_TTL_MS: Final = int(IDEMPOTENCY_TTL_S * 1000)


class RedisBroker:
    """Implements `Broker`."""

    def __init__(
        self, servers: Servers, keys: Keys, new_nonce: Callable[[], bytes], now_s: Callable[[], float]
    ) -> None:
        """`new_nonce` returns `NONCE_BYTES` letters and digits that no other call returns, on any node. `now_s` is a
        monotonic clock."""
        self._now_s = now_s
        self._servers = servers
        self._keys = keys
        self._new_nonce = new_nonce
        self._events: BrokerEvents | None = None
        self._attached: dict[bytes, str] = {}
        """The attached channels by the name of their announcements."""
        self._detaching: set[bytes] = set()
        """Names that were detached, and not attached again."""
        self._lost: list[str] = []
        """Channels that were attached at a master whose link is down, if there are several masters."""
        self._publish_verb: Final = "SPUBLISH" if servers.sharded else "PUBLISH"

    async def start(self, events: BrokerEvents) -> None:
        """See `Broker.start`. Raises EngineUnavailable, with the remedy, if the server cannot be used.

        A server that does not answer may be about to start, so it gets some time."""
        if self._events is not None:
            raise RuntimeError("the redis engine is already started")
        self._events = events
        end_s = self._now_s() + START_PATIENCE_S
        try:
            while True:
                try:
                    await self._servers.start(self)
                except Unsuitable:
                    raise
                except EngineUnavailable:
                    if self._now_s() >= end_s:
                        raise
                    await asyncio.sleep(START_PAUSE_S)
                else:
                    return
        except BaseException:
            self._events = None
            raise

    async def stop(self) -> None:
        """See `Broker.stop`."""
        self._events = None
        self._attached.clear()
        await self._servers.stop()

    async def ping(self) -> None:
        """See `Broker.ping`. Every master must also announce."""
        for link in self._servers.links():
            await link.round_trip()

    async def attach(self, channels: Sequence[str]) -> None:
        """See `Broker.attach`."""
        assert not isinstance(channels, str), "a str is a sequence of channels with one letter"
        named = {self._keys.announcement(channel): channel for channel in channels}
        self._attached.update(named)
        self._detaching.difference_update(named)
        try:
            await self._servers.subscribe(list(named))
        except EngineUnavailable:
            for name in named:
                self._attached.pop(name, None)
            raise

    async def detach(self, channels: Sequence[str]) -> None:
        """See `Broker.detach`."""
        assert not isinstance(channels, str), "a str is a sequence of channels with one letter"
        names = [self._keys.announcement(channel) for channel in channels]
        self._detaching.update(names)
        await self._servers.unsubscribe(names)
        for name in names:
            if name in self._detaching:
                self._detaching.remove(name)
                self._attached.pop(name, None)

    async def publish(
        self,
        channel: str,
        data: Raw,
        options: PublishOptions,
        info: ClientInfo | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> PublishOutcome:
        """See `Broker.publish`. If the link is lost before the answer, a publish with history is repeated on the next
        connection and never stored twice; one without history and without a key is not repeated."""
        history = options.history
        body = encode_body(data, options, info, tags)
        if not history.enabled:
            if options.producer:
                raise CommandError(NOT_AVAILABLE, "producer: numbers need history in this channel")
            return await self._publish_unstored(channel, body, options)
        keys = self._keys.channel(channel)
        link = self._servers.link(keys.meta)
        link.check_durability(history.durability)
        body = self._new_nonce() + body
        reply = await link.send(
            self._publish_command(link, channel, keys, body, options, "0"),
            lambda link: self._publish_command(link, channel, keys, body, options, "1"),
        )
        outcome = self._outcome(reply, options)
        if history.durability == "memory":
            return outcome
        await link.confirm(history.durability, link.lineage)
        return replace(outcome, durability=history.durability)

    def _publish_command(
        self, link: Sender, channel: str, keys: ChannelKeys, body: bytes, options: PublishOptions, repeated: str
    ) -> Command:
        history = options.history
        head: Command
        if options.idempotency_key or options.producer:
            receipt = self._keys.receipt(channel, options.idempotency_key)
            head = ("EVALSHA", PUBLISH.sha, "4", keys.meta, keys.stream, receipt, self._keys.producers(channel))
        else:
            head = ("EVALSHA", PUBLISH.sha, "2", keys.meta, keys.stream)
        return (
            *head,
            keys.announcement,
            self._publish_verb,
            body,
            link.lineage,
            history.size,
            _ms(history.ttl_s),
            _ms(history.meta_ttl_s),
            repeated,
            options.version,
            options.version_epoch,
            options.producer,
            options.seq,
            "1" if options.idempotency_key else "0",
            _KEY_TTL_MS,
            PRODUCERS_MAX,
            RECEIPTS_MAX,
        )

    def _outcome(self, reply: Reply, options: PublishOptions) -> PublishOutcome:
        offset, epoch, outcome = reply
        if not outcome:
            return PublishOutcome(StreamPosition(int(offset), epoch.decode()))
        if outcome == b"sequence":
            raise OutOfSequence(options.producer, options.seq, int(offset))
        if outcome == b"unknown":
            raise EngineUnavailable(
                "publish: the link was lost before the answer, and the publication may have been stored and removed "
                "again. With an idempotency key this would be known"
            )
        return PublishOutcome(StreamPosition(int(offset), epoch.decode()), outcome.decode())

    async def _publish_unstored(self, channel: str, body: bytes, options: PublishOptions) -> PublishOutcome:
        name, announcement = self._keys.announcement(channel), UNSTORED + body
        link = self._servers.link(name)
        if not options.idempotency_key:
            await link.send((self._publish_verb, name, announcement))
            return PublishOutcome(StreamPosition(0, ""))
        receipt = self._keys.receipt(channel, options.idempotency_key)
        nonce, verb = self._new_nonce(), self._publish_verb
        command: Command = ("EVALSHA", PUBLISH_KEYED.sha, "1", receipt, name, verb, announcement, nonce, _KEY_TTL_MS)
        suppressed = await link.send(command, lambda link: command)
        return PublishOutcome(StreamPosition(0, ""), suppressed.decode())

    async def announce(self, channel: str, changes: Sequence[MemberChange]) -> None:
        """See `Broker.announce`."""
        if changes:
            name = self._keys.announcement(channel)
            await self._servers.link(name).send((self._publish_verb, name, encode_changes(changes)))

    # History

    async def history(
        self,
        channel: str,
        options: HistoryOptions,
        limit: int,
        since: StreamPosition | None = None,
        reverse: bool = False,
    ) -> HistoryPage:
        """See `Broker.history`."""
        keys = self._keys.channel(channel)
        link = self._servers.link(keys.meta)
        epoch_bytes, top, continues, entries = await link.send(
            self._history_command(keys, link, options, limit, since, reverse),
            lambda link: self._history_command(keys, link, options, limit, since, reverse),
        )
        epoch = epoch_bytes.decode()
        publications = [_publication(entry, epoch) for entry in entries]
        return HistoryPage(publications, StreamPosition(int(top), epoch), bool(continues))

    async def positions(self, channels: Mapping[str, HistoryOptions]) -> dict[str, StreamPosition]:
        """See `Broker.positions`."""
        found: dict[str, StreamPosition] = {}
        groups: dict[Link, list[tuple[str, Command]]] = {}
        for channel, options in channels.items():
            keys = self._keys.channel(channel)
            link = self._servers.link(keys.meta)
            command = self._history_command(keys, link, options, 0, None, False)
            groups.setdefault(link, []).append((channel, command))
        for link, group in groups.items():
            replies = await link.send_all([command for _, command in group])
            for (channel, _), (epoch, top, _, _) in zip(group, replies, strict=True):
                found[channel] = StreamPosition(int(top), epoch.decode())
        return found

    def _history_command(
        self,
        keys: ChannelKeys,
        link: Sender,
        options: HistoryOptions,
        limit: int,
        since: StreamPosition | None,
        reverse: bool,
    ) -> Command:
        return (
            "EVALSHA",
            HISTORY.sha,
            "2",
            keys.meta,
            keys.stream,
            self._new_nonce(),
            link.lineage,
            _ms(options.ttl_s),
            _ms(options.meta_ttl_s),
            max(limit, -1),
            "" if since is None else min(since.offset, _OFFSET_MAX),
            "" if since is None else since.epoch,
            "1" if reverse else "0",
        )

    async def remove_history(self, channel: str) -> None:
        """See `Broker.remove_history`."""
        keys = self._keys.channel(channel)
        command: Command = ("EVALSHA", REMOVE_HISTORY.sha, "2", keys.meta, keys.stream)
        await self._servers.link(keys.meta).send(command, lambda link: command)

    # servers.ServersOwner

    def on_announcement(self, name: bytes, data: bytes) -> None:
        """An announcement, perhaps of a channel that was detached meanwhile."""
        channel = self._attached.get(name)
        if channel is not None and self._events is not None:
            tell(self._events, channel, data)

    def on_link_down(self, is_lost: Callable[[bytes], bool] | None) -> None:
        """The names for which `is_lost` is true are not subscribed any more; None: all names."""
        lost = list(self._attached) if is_lost is None else [name for name in self._attached if is_lost(name)]
        channels = [self._attached.pop(name) for name in lost]
        if is_lost is not None:
            self._lost += channels
        if self._events is not None:
            self._events.on_link_down(None if is_lost is None else channels)

    def on_link_up(self, is_lost: Callable[[bytes], bool] | None) -> None:
        """The names for which `is_lost` is true can be subscribed again; None: all names."""
        if self._events is None:
            return
        if is_lost is None:
            self._lost.clear()
            self._events.on_link_up(None)
            return
        channels = [channel for channel in self._lost if is_lost(self._keys.announcement(channel))]
        self._lost = [channel for channel in self._lost if channel not in set(channels)]
        self._events.on_link_up(channels)


def _ms(seconds: float) -> int:
    return int(seconds * 1000)


def _publication(entry: tuple[bytes, list[bytes]], epoch: str) -> Publication:
    name, fields = entry
    offset = int(name[: name.index(b"-")])
    return to_publication(memoryview(fields[1])[NONCE_BYTES:], offset, epoch)
