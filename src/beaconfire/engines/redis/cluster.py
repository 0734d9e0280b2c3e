"""The masters of a Redis cluster: each has a part of the slots, and announces the names in them.

The map of slots is read from any node: at the start, when a server says that a key has moved, when a link is lost, and
every `REFRESH_INTERVAL_S`. Where a slot has moved to another master, the subscriptions in the slot are void: the node
makes them again, and looks for what it has missed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from beaconfire.base.errors import EngineUnavailable
from beaconfire.base.loop import Runtime
from beaconfire.base.tasks import start_task
from beaconfire.base.timers import Timer
from beaconfire.engines.port import EngineState
from beaconfire.engines.redis.address import Address, Host
from beaconfire.engines.redis.connection import Command, Nobody, ServerError
from beaconfire.engines.redis.handshake import Unsuitable, open_connection
from beaconfire.engines.redis.keys import SLOTS, slot_of
from beaconfire.engines.redis.link import SILENCE_S, Link
from beaconfire.engines.redis.pending import Pending
from beaconfire.engines.redis.servers import MakeLink, ServersOwner

REFRESH_INTERVAL_S: Final = 30.0

REFRESH_DELAY_S: Final = 0.25
"""The time between two readings of the map while something is wrong."""

MOVES_MAX: Final = 5
"""How often one command follows a key that moves."""

TAGS_TRIED: Final = 200_000
"""How many hash tags are tried to find one in the slots of a master."""

SlotMap = dict[Host, list[tuple[int, int]]]
"""The first and the last slot of each range, by master."""


class Cluster:
    """Implements `Servers` and `LinkOwner`."""

    sharded = True

    def __init__(self, address: Address, runtime: Runtime, make_link: MakeLink) -> None:
        self._address = address
        self._runtime = runtime
        self._new_link = make_link
        self._owner: ServersOwner | None = None
        self._is_started = False
        self._by_host: dict[Host, Link] = {}
        self._by_slot: list[Link | None] = [None] * SLOTS
        self._handlers: Mapping[bytes, Callable[[bytes], None]] = {}
        self._on_up: Callable[[], None] | None = None
        self._refresh: asyncio.Task[None] | None = None
        self._timer: Timer | None = None
        self._moved: list[tuple[Pending, ServerError]] = []
        """Commands that wait for a new map."""

    # Life

    async def start(self, owner: ServersOwner) -> None:
        """See `Servers.start`."""
        try:
            ranges = await self._read_map()
            for host in ranges:
                self._by_host[host] = self._make_link(host)
            self._set_slots(ranges)
            await asyncio.gather(*(link.start() for link in self._by_host.values()))
        except BaseException:
            await self.stop()
            raise
        self._owner, self._is_started = owner, True
        self._refresh_later(REFRESH_INTERVAL_S)

    async def stop(self) -> None:
        """See `Servers.stop`."""
        self._owner, self._is_started = None, False
        if self._timer is not None:
            self._timer.cancel()
        if self._refresh is not None:
            self._refresh.cancel()
            self._refresh = None
        for link in self._by_host.values():
            link.stop()
        self._by_host.clear()
        self._by_slot = [None] * SLOTS
        for pending, error in self._take_moved():
            pending.fail(EngineUnavailable(f"stopped: {error}"))

    def _make_link(self, host: Host) -> Link:
        async def locate() -> Host:
            return host

        link = self._new_link(self, locate, lambda: self._tag(link))
        return link

    def _tag(self, link: Link) -> str:
        """The first hash tag of this kind that belongs to the master: the same one on every node."""
        for number in range(TAGS_TRIED):
            tag = f"era{number}"
            if self._by_slot[slot_of(tag.encode())] is link:
                return tag
        raise EngineUnavailable("the master has no slots")

    # Servers

    def links(self) -> Sequence[Link]:
        return list(self._by_host.values())

    def link(self, key: bytes) -> Link:
        """See `Servers.link`."""
        link = self._by_slot[slot_of(key)]
        if link is None:
            raise EngineUnavailable("engine 'redis': no master of the cluster has the slot of this channel")
        return link

    async def subscribe(self, names: Sequence[bytes]) -> None:
        """See `Servers.subscribe`."""
        await asyncio.gather(*(link.subscribe(group) for link, group in self._grouped(names).items()))

    async def unsubscribe(self, names: Sequence[bytes]) -> None:
        """See `Servers.unsubscribe`."""
        await asyncio.gather(*(link.unsubscribe(group) for link, group in self._grouped(names).items()))

    def _grouped(self, names: Sequence[bytes]) -> dict[Link, list[bytes]]:
        groups: dict[Link, list[bytes]] = {}
        for name in names:
            groups.setdefault(self.link(name), []).append(name)
        return groups

    async def listen(self, handlers: Mapping[bytes, Callable[[bytes], None]], on_up: Callable[[], None]) -> None:
        """See `Servers.listen`."""
        self._handlers, self._on_up = dict(handlers), on_up
        await self.subscribe(list(handlers))

    def end_listening(self) -> None:
        """See `Servers.end_listening`."""
        for name in self._handlers:
            if (link := self._by_slot[slot_of(name)]) is not None:
                link.unsubscribe_later([name])
        self._handlers, self._on_up = {}, None

    def state(self) -> EngineState:
        """See `Engine.state`. The engine is down while one of the masters is."""
        for link in self._by_host.values():
            if not link.is_up:
                return link.state()
        if None in self._by_slot:
            return EngineState(False, "some slots of the cluster have no master")
        return EngineState(True)

    # LinkOwner

    def names(self, link: Link) -> Sequence[bytes]:
        return [name for name in self._handlers if self._by_slot[slot_of(name)] is link]

    def on_up(self, link: Link) -> None:
        """The subscriptions in the slots of the link can be made again."""
        self._tell_up(lambda name: self._by_slot[slot_of(name)] is link)

    def _tell_up(self, is_lost: Callable[[bytes], bool]) -> None:
        if self._on_up is not None and any(is_lost(name) for name in self._handlers):
            self._on_up()
        if self._owner is not None:
            self._owner.on_link_up(is_lost)

    def on_down(self, link: Link, reason: str) -> None:
        if self._owner is not None:
            self._owner.on_link_down(lambda name: self._by_slot[slot_of(name)] is link)
        self._refresh_now()

    def on_announcement(self, name: bytes, data: bytes) -> None:
        handle = self._handlers.get(name)
        if handle is not None:
            handle(data)
        elif self._owner is not None:
            self._owner.on_announcement(name, data)

    def on_unsubscribed(self, link: Link, name: bytes) -> None:
        self._refresh_now()

    def on_moved(self, link: Link, pending: Pending, error: ServerError) -> None:
        """The text of the error is `MOVED slot host:port`, or ASK in place of MOVED while the slot is on its way."""
        pending.moves += 1
        if pending.moves > MOVES_MAX:
            pending.fail(EngineUnavailable(f"{error}: the key has moved {MOVES_MAX} times"))
            return
        if error.code == "ASK":
            name, _, port = str(error).rpartition(" ")[2].rpartition(":")
            target = self._by_host.get(Host(name, int(port)))
            if target is not None:
                target.send_again(pending, asking=True)
                return
        self._moved.append((pending, error))
        self._refresh_now()

    def _take_moved(self) -> list[tuple[Pending, ServerError]]:
        moved, self._moved = self._moved, []
        return moved

    # The map

    def _refresh_later(self, delay_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._runtime.prompt_timers.after(delay_s, self._refresh_now)

    def _refresh_now(self) -> None:
        if self._is_started and self._refresh is None:
            self._refresh = start_task(self._run_refresh())

    async def _run_refresh(self) -> None:
        try:
            self._apply(await self._read_map())
        except Exception as error:  # noqa: BLE001 - the map is read again; the state of the links shows the trouble
            for pending, moved in self._take_moved():
                pending.fail(EngineUnavailable(f"{moved}, and the map of slots cannot be read: {error}"))
        finally:
            self._refresh = None
        for pending, _ in self._take_moved():
            try:
                self.link(_key_of(pending.command)).send_again(pending)
            except EngineUnavailable as error:
                pending.fail(error)
        if self._is_started:
            self._refresh_later(REFRESH_INTERVAL_S if self.state().up else REFRESH_DELAY_S)

    def _apply(self, ranges: SlotMap) -> None:
        """Uses a new map: links to new masters, and void subscriptions where a slot has another master."""
        for host in ranges.keys() - self._by_host.keys():
            self._by_host[host] = self._make_link(host)
            new = self._by_host[host]
            new.start_later()
        before = self._by_slot
        self._set_slots(ranges)
        now = self._by_slot
        gone = [self._by_host.pop(host) for host in self._by_host.keys() - ranges.keys()]

        def has_moved(name: bytes) -> bool:
            slot = slot_of(name)
            return before[slot] is not now[slot]

        if before != now and self._owner is not None:
            self._owner.on_link_down(has_moved)
        for link in gone:
            link.stop()
        if before != now:
            for name in filter(has_moved, self._handlers):
                if (owner := now[slot_of(name)]) is not None:
                    owner.subscribe_later([name])
            self._tell_up(lambda name: has_moved(name) and (owner := now[slot_of(name)]) is not None and owner.is_up)

    def _set_slots(self, ranges: SlotMap) -> None:
        by_slot: list[Link | None] = [None] * SLOTS
        for host, parts in ranges.items():
            for first, last in parts:
                by_slot[first : last + 1] = [self._by_host[host]] * (last + 1 - first)
        self._by_slot = by_slot

    async def _read_map(self) -> SlotMap:
        """Asks the known masters, then the nodes of the address. Raises EngineUnavailable, with all problems."""
        problems = []
        for host in dict.fromkeys((*self._by_host, *self._address.hosts)):
            try:
                return await self._ask(host)
            except EngineUnavailable as error:
                problems.append(error.detail)
        raise EngineUnavailable("no node of the cluster answers: " + "; ".join(problems))

    async def _ask(self, host: Host) -> SlotMap:
        connection, server = await open_connection(host, self._address, Nobody(), self._runtime, SILENCE_S)
        try:
            if server.mode != "cluster":
                raise Unsuitable(f"{host} belongs to no cluster: use redis:// in redis.url")
            if server.version < (7,):
                raise Unsuitable(f"{host}: a cluster needs version 7.0 or later, this is {server}")
            reply = await connection.call("CLUSTER", "SLOTS")
        except ServerError as error:
            raise EngineUnavailable(f"{host}: {error}") from error
        finally:
            connection.close("answered")
        ranges: SlotMap = {}
        for first, last, master, *_ in reply:
            name = master[0].decode() if master[0] else host.name
            ranges.setdefault(Host(name, master[1]), []).append((first, last))
        return ranges


def _key_of(command: Command) -> bytes:
    """The first key of a command. Scripts have the number of keys before it."""
    key = command[3 if command[0] == "EVALSHA" else 1]
    assert isinstance(key, bytes), "keys are made by `Keys`"
    return key
