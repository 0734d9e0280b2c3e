"""The link to one master: a connection for commands, one for announcements, and one for publishes that wait for
replicas or for the disk. They are made together and end together.

A link that is lost is made again until `stop`, with growing delays. A lost link may leave commands whose outcome is
not known. Those that can be repeated without harm wait for the next connection, and are repeated there before anything
else is sent, in their order. All others fail.

Every few seconds the link *probes* itself: it announces something and expects the announcement, because a server, or a
proxy in front of it, may answer commands and deliver nothing. The probe also reads the lineage of the server, which
tells whether the server was emptied.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any, Final, Protocol, TypeAlias

from beaconfire.base.backoff import Backoff
from beaconfire.base.errors import NOT_AVAILABLE, CommandError, EngineUnavailable, StorageFull
from beaconfire.base.loop import Runtime
from beaconfire.base.tasks import start_task
from beaconfire.base.timers import Timer
from beaconfire.engines.port import Durability, EngineState
from beaconfire.engines.redis.address import Address, Host
from beaconfire.engines.redis.checks import DiskFacts, check_version, find_advice, find_disk_facts
from beaconfire.engines.redis.confirmations import Confirmations
from beaconfire.engines.redis.connection import Command, Connection, Future, Nobody, Reply, ServerError, pack
from beaconfire.engines.redis.handshake import OPEN_TIMEOUT_S, Server, open_connection
from beaconfire.engines.redis.keys import Keys, slot_of
from beaconfire.engines.redis.scripts import ERA, SCRIPTS
from beaconfire.model.events import EngineConnected, EventSink

SILENCE_S: Final = 0.6
"""How long the server may leave a command without an answer. A server that is slower is treated as lost."""

REPEAT_WAIT_S: Final = 0.3
"""How long a command of unknown outcome waits for the next connection. Together with `SILENCE_S`, a caller gets an
error within a second."""

DELAY_MAX_S: Final = 0.5
"""The longest wait between two attempts to connect."""

PROBE_INTERVAL_S: Final = 3.0

NAMES_PER_COMMAND: Final = 512
"""How many announcements one command subscribes to."""

_NOT_MASTER: Final = frozenset({"READONLY", "LOADING", "MASTERDOWN", "NOSCRIPT", "UNBLOCKED", "CLUSTERDOWN"})
"""Error replies after which another connection, perhaps to another server, is needed. The command had no effect."""


Again: TypeAlias = "Callable[[Link], Command]"
"""Makes the command once more, for the new connections of this or another link. The outcome of the first try is not
known. None: the command must not be repeated then."""


class LinkOwner(Protocol):
    """What the link tells. The methods must not raise and do not suspend."""

    def names(self, link: Link) -> Sequence[bytes]:
        """What the link subscribes to before it is up."""

    def on_up(self, link: Link) -> None:
        """Commands and subscriptions work. Of the earlier subscriptions none is left but those of `names`."""

    def on_down(self, link: Link, reason: str) -> None:
        """Everything is void. Called only after `on_up`."""

    def on_announcement(self, name: bytes, data: bytes) -> None:
        """An announcement of a name that was subscribed."""

    def on_moved(self, link: Link, pending: Pending, error: ServerError) -> None:
        """The key of this command belongs to another server. The owner sends the command there, or finishes it."""

    def on_unsubscribed(self, link: Link, name: bytes) -> None:
        """The server has ended the subscription, because another server announces this name now."""


class Pending:
    """A command that waits for its reply."""

    __slots__ = ("again", "command", "future", "link", "moves")

    def __init__(self, link: Link, command: Command, again: Again | None) -> None:
        self.link = link
        self.command = command
        self.again = again
        self.moves = 0
        """How often another server was found to be responsible."""
        self.future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

    def on_reply(self, reply: Reply) -> None:
        if isinstance(reply, ServerError):
            self.link.on_error(self, reply)
        elif not self.future.done():
            self.future.set_result(reply)

    def on_lost(self, reason: str) -> None:
        self.link.on_unanswered(self, reason)

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class Ignored:
    """A waiter for a reply that nobody needs."""

    def on_reply(self, reply: Reply) -> None:
        pass

    def on_lost(self, reason: str) -> None:
        pass


class Batch(Future):
    """Waits for the replies to several commands, which need no repetition. The result is their list."""

    def __init__(self, link: Link, count: int) -> None:
        super().__init__()
        self._link = link
        self._count = count
        self._replies: list[Reply] = []

    def on_reply(self, reply: Reply) -> None:
        if self.done():
            return
        if isinstance(reply, ServerError):
            self.set_exception(self._link.explain(reply))
            return
        self._replies.append(reply)
        if len(self._replies) == self._count:
            self.set_result(self._replies)

    def on_lost(self, reason: str) -> None:
        if not self.done():
            self.set_exception(self._link.lost_error(reason))


class _Receiver:
    """One end of a connection of the link."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def on_push(self, push: Sequence[Any]) -> None:
        self._link.on_push(push)

    def on_lost(self, reason: str) -> None:
        self._link.on_connection_lost(self, reason)


class Link:
    """The connections to one master."""

    def __init__(
        self,
        address: Address,
        locate: Callable[[], Awaitable[Host]],
        keys: Keys,
        owner: LinkOwner,
        runtime: Runtime,
        events: EventSink,
        new_name: Callable[[], str],
        tag: Callable[[], str] = lambda: "era",
        *,
        sharded: bool = False,
        replicas: int = 1,
        confirm_timeout_s: float = 1.0,
    ) -> None:
        """`locate` finds the master; it raises EngineUnavailable. `new_name` makes random names. `tag` returns a hash
        tag that belongs to the master. With `sharded`, announcements are those of a cluster's shards. `replicas` is
        how many must have what is `replicated`."""
        self._address = address
        self._locate = locate
        self._keys = keys
        self._owner = owner
        self._runtime = runtime
        self._events = events
        self._new_name = new_name
        self._tag = tag
        self._replicas = replicas
        self._confirm_timeout_s = confirm_timeout_s
        self._confirmations: dict[Durability, Confirmations] = {}
        self._disk = DiskFacts()
        self._sharded = sharded
        self._backoff = Backoff(runtime.random)
        self.host: Host | None = None
        self.lineage = b""
        """Of the server, while the link is up."""
        self.is_up = False
        self._receiver: _Receiver | None = None
        """Of the current connections. Those of earlier ones are ignored."""
        self._commands: Connection | None = None
        self._announcements: Connection | None = None
        self._problem = "not connected"
        self._failures = 0
        self._timer: Timer | None = None
        self._attempt: asyncio.Task[None] | None = None
        self._is_stopped = True
        self._unknown: list[Pending] = []
        """Commands whose outcome is not known, in their order."""
        self._subscribing: deque[list[Any]] = deque()
        """For each subscribe command the number of confirmations that are missing, and its future."""
        self._unsubscribing: dict[bytes, deque[list[Any]]] = {}
        """The unsubscribe commands that the server has not confirmed, by name, each as in `_subscribing`."""
        self._era_command: Command = ()
        self._probe_name = b""
        self._last_probe = 0
        self._arrived_probe = 0
        """The numbers of the last probe, and of the last one that has arrived."""
        self._is_probe_late = False
        """A probe has not arrived within an interval."""
        self._round_trips: deque[tuple[int, asyncio.Future[None]]] = deque()
        """What waits for the arrival of a probe."""

    # Life

    async def start(self) -> None:
        """Connects. Raises EngineUnavailable if that fails; then nothing goes on."""
        self._is_stopped = False
        try:
            await self._connect()
        except BaseException:
            self._is_stopped = True
            raise

    def start_later(self) -> None:
        """Connects in the background, until it succeeds."""
        self._is_stopped = False
        self._start_attempt()

    def stop(self) -> None:
        """Ends everything. Commands that wait fail. Nothing is told any more. Idempotent."""
        self._is_stopped = True
        self.is_up = False
        self._problem = "stopped"
        if self._timer is not None:
            self._timer.cancel()
        if self._attempt is not None:
            self._attempt.cancel()
        self._close("stopped")
        self._fail_unknown()

    def state(self) -> EngineState:
        return EngineState(True) if self.is_up else EngineState(False, f"the link to {self._where} is down: {self._problem}")

    @property
    def _where(self) -> str:
        return str(self.host or self._address)

    # Commands

    def send(self, command: Command, again: Again | None = None) -> asyncio.Future[Reply]:
        """Sends a command; the future gets the reply.

        Raises EngineUnavailable while the link is down. The future raises the same if the link is lost, and
        StorageFull if the server is out of memory. With `again`, a lost link is tolerated for `REPEAT_WAIT_S`.
        """
        connection = self._commands
        if connection is None or not self.is_up:
            raise self.lost_error(self._problem)
        pending = Pending(self, command, again)
        connection.send(pack(command), pending)
        return pending.future

    def check_durability(self, durability: Durability) -> None:
        """Raises CommandError 108 if the server cannot offer the durability."""
        if durability == "disk" and self._disk.problem:
            raise CommandError(NOT_AVAILABLE, f"engine 'redis': durability 'disk': {self._disk.problem}")

    async def confirm(self, durability: Durability, lineage: bytes) -> None:
        """See `Confirmations.confirm`. The durability was checked."""
        if durability == "disk" and not self._disk.waits:
            return
        found = self._confirmations.get(durability)
        if found is None:
            found = self._confirmations[durability] = Confirmations(
                durability,
                self._replicas,
                self._confirm_timeout_s,
                self._keys.mark(self._tag()),
                self._open_one_more,
                lambda: self.lineage,
            )
        await found.confirm(lineage)

    async def _open_one_more(self) -> Connection:
        if not self.is_up or self.host is None:
            raise self.lost_error(self._problem)
        silence_s = self._confirm_timeout_s + SILENCE_S
        connection, _ = await open_connection(self.host, self._address, Nobody(), self._runtime, silence_s)
        return connection

    def tell(self, command: Command) -> None:
        """Sends a command whose reply does not matter. The command is dropped while the link is down."""
        if self._commands is not None and self.is_up:
            self._commands.send(pack(command), Ignored())

    def send_all(self, commands: Sequence[Command]) -> asyncio.Future[Reply]:
        """Sends commands; the future gets the list of their replies. Like `send` without `again`."""
        connection = self._commands
        if connection is None or not self.is_up:
            raise self.lost_error(self._problem)
        batch = Batch(self, len(commands))
        if not commands:
            batch.set_result([])
        for command in commands:
            connection.send(pack(command), batch)
        return batch

    def send_again(self, pending: Pending, asking: bool = False) -> None:
        """Sends a command of another link. `asking` tells the server that the key is on its way to it."""
        connection = self._commands
        if connection is None or not self.is_up:
            pending.fail(self.lost_error(self._problem))
            return
        pending.link = self
        if pending.again is not None:
            pending.command = pending.again(self)
        if asking:
            connection.send(pack(("ASKING",)), Ignored())
        connection.send(pack(pending.command), pending)

    def lost_error(self, reason: str) -> EngineUnavailable:
        return EngineUnavailable(f"engine 'redis': the link to {self._where} is down: {reason}")

    def explain(self, error: ServerError) -> Exception:
        """The error of a call whose command was refused."""
        match error.code:
            case "OOM":
                return StorageFull(f"{self._where} is out of memory: raise maxmemory, or keep less history")
            case "NOPERM":
                return EngineUnavailable(f"{self._where}: {error}: see the page about the engine redis")
            case "NOREPLICAS" | "MISCONF" | "BUSY" | "TRYAGAIN" | "MOVED" | "ASK" | "EXECABORT":
                return EngineUnavailable(f"{self._where}: {error}")
            case code if code in _NOT_MASTER:
                return self.lost_error(str(error))
            case _:
                return error

    def on_error(self, pending: Pending, error: ServerError) -> None:
        """The command was refused. It had no effect."""
        if error.code in _NOT_MASTER:
            self._lose(str(error))
            self.on_unanswered(pending, str(error))
        elif error.code in ("MOVED", "ASK"):
            self._owner.on_moved(self, pending, error)
        else:
            pending.fail(self.explain(error))

    def on_unanswered(self, pending: Pending, reason: str) -> None:
        """The connection was lost before the reply."""
        if pending.again is None or self._is_stopped or pending.future.done():
            pending.fail(self.lost_error(reason))
            return
        if not self._unknown:
            self._runtime.prompt_timers.after(REPEAT_WAIT_S, self._fail_unknown)
        self._unknown.append(pending)

    def _fail_unknown(self) -> None:
        unknown, self._unknown = self._unknown, []
        for pending in unknown:
            pending.fail(self.lost_error(f"{self._problem}. The publication may have been stored"))

    async def round_trip(self) -> None:
        """Announces something to this node, and returns when it has arrived: after all announcements that were made
        before. Raises EngineUnavailable if the link is lost."""
        commands = self._commands
        if commands is None or not self.is_up:
            raise self.lost_error(self._problem)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._round_trips.append((self._announce_probe(commands), future))
        await future

    # Subscriptions

    async def subscribe(self, names: Sequence[bytes]) -> None:
        """Returns when the server announces these names to this node. Raises EngineUnavailable if the link is lost."""
        connection = self._announcements
        if connection is None or not self.is_up:
            raise self.lost_error(self._problem)
        if names:
            await self._subscribe(connection, names)

    def subscribe_later(self, names: Sequence[bytes]) -> None:
        """Like `subscribe`. Nobody waits."""
        if self._announcements is not None and self.is_up and names:
            self._subscribe(self._announcements, names)

    def _subscribe(self, connection: Connection, names: Sequence[bytes]) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._subscribing.append([len(names), future])
        verb = "SSUBSCRIBE" if self._sharded else "SUBSCRIBE"
        for command in self._grouped(names):
            connection.write(pack((verb, *command)))
        return future

    async def unsubscribe(self, names: Sequence[bytes]) -> None:
        """Returns when the server announces these names to this node no more. Everything that it has announced before
        has arrived then. Raises EngineUnavailable if the link is lost."""
        if self._announcements is None or not self.is_up:
            raise self.lost_error(self._problem)
        if names:
            await self._unsubscribe(self._announcements, names)

    def unsubscribe_later(self, names: Sequence[bytes]) -> None:
        """Like `unsubscribe`. Nobody waits."""
        if self._announcements is not None and self.is_up and names:
            self._unsubscribe(self._announcements, names)

    def _unsubscribe(self, connection: Connection, names: Sequence[bytes]) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        unsubscribing = [len(names), future]
        for name in names:
            self._unsubscribing.setdefault(name, deque()).append(unsubscribing)
        verb = "SUNSUBSCRIBE" if self._sharded else "UNSUBSCRIBE"
        for command in self._grouped(names):
            connection.write(pack((verb, *command)))
        return future

    def _grouped(self, names: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
        """The names of one command. Those of a cluster have one slot."""
        groups: Iterable[Sequence[bytes]] = (names,)
        if self._sharded:
            slots: dict[int, list[bytes]] = {}
            for name in names:
                slots.setdefault(slot_of(name), []).append(name)
            groups = slots.values()
        for group in groups:
            for start in range(0, len(group), NAMES_PER_COMMAND):
                yield group[start : start + NAMES_PER_COMMAND]

    def on_push(self, push: Sequence[Any]) -> None:
        """Something that the server sends without a command."""
        kind = push[0]
        if kind in (b"message", b"smessage"):
            name, data = push[1], push[2]
            if name == self._probe_name:
                self._on_probe(int(data))
            else:
                self._owner.on_announcement(name, data)
        elif kind in (b"subscribe", b"ssubscribe"):
            if _confirm(self._subscribing[0]):
                self._subscribing.popleft()
        elif kind in (b"unsubscribe", b"sunsubscribe"):
            self._on_unsubscribed(push[1])

    def _on_unsubscribed(self, name: bytes) -> None:
        waiting = self._unsubscribing.get(name)
        if waiting is None:
            self._owner.on_unsubscribed(self, name)
            return
        _confirm(waiting.popleft())
        if not waiting:
            del self._unsubscribing[name]

    # Connecting

    async def _connect(self) -> None:
        receiver = self._receiver = _Receiver(self)
        try:
            self.host = await self._locate()
            self._commands, server = await open_connection(
                self.host, self._address, receiver, self._runtime, SILENCE_S
            )
            self._announcements, _ = await open_connection(
                self.host, self._address, receiver, self._runtime, SILENCE_S
            )
            if server.role != "master":
                raise EngineUnavailable(f"{self.host} is a {server.role or server.mode}, and not a master")
            check_version(server)
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                await self._prepare(self._commands, self._announcements)
                advice = await find_advice(self._commands)
                self._disk = await find_disk_facts(self._commands, server)
            if self._commands.is_closed or self._announcements.is_closed:
                raise EngineUnavailable("the connection was lost during the first commands")
        except (EngineUnavailable, ServerError, TimeoutError) as error:
            problem = error.detail if isinstance(error, CommandError) else f"{self._where}: {error or 'no answer'}"
            self._problem = problem
            self._close(problem)
            raise EngineUnavailable(problem) from error
        except BaseException:
            self._close("the attempt has ended")
            raise
        self._on_connected()
        self._events.emit(EngineConnected("redis", str(server), str(self.host), advice))

    async def _prepare(self, commands: Connection, announcements: Connection) -> None:
        """Loads the scripts, reads the lineage, and subscribes to the own probes."""
        await asyncio.gather(*(commands.call("SCRIPT", "LOAD", script.source) for script in SCRIPTS))
        info = await commands.call("INFO", "server")
        run = next(line for line in info.decode().splitlines() if line.startswith("run_id:")).removeprefix("run_id:")
        tag = self._tag()
        self._era_command = ("EVALSHA", ERA.sha, "1", self._keys.era(tag), run)
        self.lineage = await commands.call(*self._era_command, self._new_name())
        self._probe_name = self._keys.probe(tag, self._new_name())
        await self._subscribe(announcements, [self._probe_name, *self._owner.names(self)])

    def _on_connected(self) -> None:
        self.is_up = True
        self._failures = 0
        self._arrived_probe = self._last_probe
        self._timer = self._runtime.timers.after(PROBE_INTERVAL_S, self._probe)
        unknown, self._unknown = self._unknown, []
        for pending in unknown:
            if not pending.future.done():
                self.send_again(pending)
        self._owner.on_up(self)

    def _probe(self) -> None:
        """A probe that has not arrived two intervals later ends the connection."""
        commands = self._commands
        if commands is None or not self.is_up:
            return
        if self._is_probe_late:
            self._lose("the server answers, but its announcements do not arrive")
            return
        self._is_probe_late = self._arrived_probe != self._last_probe
        self._timer = self._runtime.timers.after(PROBE_INTERVAL_S, self._probe)
        era = Future()
        era.add_done_callback(self._on_era)
        commands.send(pack((*self._era_command, self._new_name())), era)
        self._announce_probe(commands)

    def _announce_probe(self, commands: Connection) -> int:
        self._last_probe += 1
        verb = "SPUBLISH" if self._sharded else "PUBLISH"
        commands.send(pack((verb, self._probe_name, self._last_probe)), Ignored())
        return self._last_probe

    def _on_probe(self, number: int) -> None:
        self._arrived_probe = number
        self._is_probe_late = False
        while self._round_trips and self._round_trips[0][0] <= number:
            _, future = self._round_trips.popleft()
            if not future.done():
                future.set_result(None)

    def _on_era(self, era: asyncio.Future[Reply]) -> None:
        if era.cancelled() or era.exception() is not None:
            return
        if self.is_up and era.result() != self.lineage:
            self._lose("the server has lost its data, or another server has taken its place")

    # The end of a connection, and the next one

    def on_connection_lost(self, receiver: _Receiver, reason: str) -> None:
        """One of the connections has ended."""
        if receiver is self._receiver:
            self._lose(reason)

    def _lose(self, reason: str) -> None:
        if not self.is_up:
            return  # the attempt notices by itself
        self.is_up = False
        self._problem = reason
        if self._timer is not None:
            self._timer.cancel()
        self._close(reason)
        self._owner.on_down(self, reason)
        self._connect_later()

    def _close(self, reason: str) -> None:
        self._receiver = None
        for connection in (self._commands, self._announcements):
            if connection is not None:
                connection.close(reason)
        self._commands = self._announcements = None
        self._is_probe_late = False
        for confirmations in self._confirmations.values():
            confirmations.close()
        unsubscribing = (each for commands in self._unsubscribing.values() for each in commands)
        waiting = [future for _, future in (*self._subscribing, *unsubscribing, *self._round_trips)]
        self._subscribing.clear()
        self._round_trips.clear()
        self._unsubscribing.clear()
        for future in waiting:
            if not future.done():
                future.set_exception(self.lost_error(reason))
                future.exception()  # marks it as seen: the caller may be gone

    def _connect_later(self) -> None:
        if self._is_stopped:
            return
        self._failures += 1
        delay_s = 0.0 if self._failures == 1 else min(self._backoff.delay_s(self._failures - 1), DELAY_MAX_S)
        self._timer = self._runtime.prompt_timers.after(delay_s, self._start_attempt)

    def _start_attempt(self) -> None:
        self._attempt = start_task(self._connect_again())

    async def _connect_again(self) -> None:
        try:
            await self._connect()
        except Exception as error:  # noqa: BLE001 - whatever it is, the link must come back
            if not isinstance(error, EngineUnavailable):
                self._problem = repr(error)
            self._connect_later()
            return
        self._attempt = None


def _confirm(command: list[Any]) -> bool:
    """One of the names of a command is confirmed. True if it was the last one."""
    command[0] -= 1
    if command[0]:
        return False
    if not command[1].done():
        command[1].set_result(None)
    return True
