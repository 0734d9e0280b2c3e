"""The link to one master: a connection for commands and one for announcements. They are made and end together.

A link that is lost is made again until `stop`, with growing delays. A lost link may leave commands whose outcome is
not known. Those that can be repeated without harm wait for the next connection, and are repeated there before anything
else is sent, in their order. All others fail.

Every few seconds the link probes itself: a server, or a proxy in front of it, may answer commands and announce nothing.
The probe also reads the lineage of the server, which tells whether the server was emptied.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol

from beaconfire.base.backoff import Backoff
from beaconfire.base.errors import NOT_AVAILABLE, CommandError, EngineUnavailable
from beaconfire.base.loop import Runtime
from beaconfire.base.tasks import start_task
from beaconfire.base.timers import Timer
from beaconfire.engines.port import Durability, EngineState
from beaconfire.engines.redis.address import Address, Host
from beaconfire.engines.redis.checks import DiskFacts, check_version, find_advice, find_disk_facts
from beaconfire.engines.redis.confirmations import Confirmations
from beaconfire.engines.redis.connection import Callbacks, Command, Connection, Nobody, Reply, ServerError, pack
from beaconfire.engines.redis.handshake import OPEN_TIMEOUT_S, Unsuitable, open_connection
from beaconfire.engines.redis.keys import Keys
from beaconfire.engines.redis.pending import Again, Batch, Ignored, Pending
from beaconfire.engines.redis.probes import Probes
from beaconfire.engines.redis.refusals import MOVED, NOT_MASTER, explain
from beaconfire.engines.redis.scripts import ERA, SCRIPTS
from beaconfire.engines.redis.subscriptions import Subscriptions
from beaconfire.model.events import EngineConnected, EventSink, report_error

SILENCE_S: Final = 0.6
"""How long the server may leave a command without an answer. A server that is slower is treated as lost."""

REPEAT_WAIT_S: Final = 0.9
"""How long a command of unknown outcome waits for the next connection. After a silence of the server, the wait is
shorter by this silence, so that a caller gets an error within a second."""

DELAY_MAX_S: Final = 0.5
"""The longest wait between two attempts to connect."""


class LinkOwner(Protocol):
    """What the link tells. The methods must not raise and do not suspend."""

    def names(self, link: Link) -> Sequence[bytes]:
        """What the link subscribes to before it is up."""

    def on_up(self, link: Link) -> None:
        """Commands and subscriptions work. Of the earlier subscriptions none is left but those of `names`."""

    def on_down(self, link: Link, reason: str) -> None:
        """Everything is void. Called only after `on_up`."""

    def on_announcement(self, name: bytes, data: bytes) -> None:
        """An announcement of a name that was subscribed. Raises ValueError if the data is none."""

    def on_moved(self, link: Link, pending: Pending, error: ServerError) -> None:
        """The key of this command belongs to another server. The owner sends the command there, or finishes it."""

    def on_unsubscribed(self, link: Link, name: bytes) -> None:
        """The server has ended the subscription, because another server announces this name now."""


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
        self._receiver: Callbacks | None = None
        """Of the current connections. Those of earlier ones are ignored."""
        self._commands: Connection | None = None
        self._announcements: Connection | None = None
        self._subscriptions: Subscriptions | None = None
        self._problem = "not connected"
        self._failures = 0
        self._timer: Timer | None = None
        self._attempt: asyncio.Task[None] | None = None
        self._is_stopped = True
        self._was_silent = False
        """The last connection was lost because the server did not answer."""
        self._unknown: list[Pending] = []
        """Commands whose outcome is not known, in their order."""
        self._unknown_timer: Timer | None = None
        self._probes: Probes | None = None

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
        return (
            EngineState(True)
            if self.is_up
            else EngineState(False, f"the link to {self._where} is down: {self._problem}")
        )

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
        return explain(error, self._where)

    # pending.Sender

    def on_error(self, pending: Pending, error: ServerError) -> None:
        if error.code in NOT_MASTER:
            if self.is_up:
                self._lose(str(error))
            self.on_unanswered(pending, str(error))
        elif error.code in MOVED:
            self._owner.on_moved(self, pending, error)
        else:
            pending.fail(self.explain(error))

    def on_unanswered(self, pending: Pending, reason: str) -> None:
        if pending.again is None or self._is_stopped or pending.future.done():
            pending.fail(self.lost_error(reason))
            return
        if not self._unknown:
            wait_s = REPEAT_WAIT_S - (SILENCE_S if self._was_silent else 0.0)
            self._unknown_timer = self._runtime.prompt_timers.after(wait_s, self._fail_unknown)
        self._unknown.append(pending)

    def _fail_unknown(self) -> None:
        for pending in self._take_unknown():
            pending.fail(self.lost_error(f"{self._problem}. The publication may have been stored"))

    async def round_trip(self) -> None:
        """Announces something to this node, and returns when it has arrived: after all announcements that were made
        before. Raises EngineUnavailable if the link is lost."""
        if self._probes is None or not self.is_up:
            raise self.lost_error(self._problem)
        await self._probes.round_trip()

    def _take_unknown(self) -> list[Pending]:
        if self._unknown_timer is not None:
            self._unknown_timer.cancel()
        unknown, self._unknown = self._unknown, []
        return unknown

    # Subscriptions

    async def subscribe(self, names: Sequence[bytes]) -> None:
        """Returns when the server announces these names to this node. Raises EngineUnavailable if the link is lost."""
        subscriptions = self._working_subscriptions()
        if names:
            await subscriptions.subscribe(names)

    def subscribe_later(self, names: Sequence[bytes]) -> None:
        """Like `subscribe`. Nobody waits."""
        if self._subscriptions is not None and self.is_up and names:
            self._subscriptions.subscribe(names)

    async def unsubscribe(self, names: Sequence[bytes]) -> None:
        """Returns when the server announces these names to this node no more. Everything that it has announced before
        has arrived then. Raises EngineUnavailable if the link is lost."""
        subscriptions = self._working_subscriptions()
        if names:
            await subscriptions.unsubscribe(names)

    def unsubscribe_later(self, names: Sequence[bytes]) -> None:
        """Like `unsubscribe`. Nobody waits."""
        if self._subscriptions is not None and self.is_up and names:
            self._subscriptions.unsubscribe(names)

    def _working_subscriptions(self) -> Subscriptions:
        if self._subscriptions is None or not self.is_up:
            raise self.lost_error(self._problem)
        return self._subscriptions

    def on_push(self, push: Sequence[Any]) -> None:
        """Something that the server sends without a command."""
        kind = push[0]
        if kind in (b"message", b"smessage"):
            name, data = push[1], push[2]
            if self._probes is not None and name == self._probes.name:
                self._probes.on_arrival(data)
            else:
                self._tell(name, data)
        elif self._subscriptions is None:
            return  # the link was lost in this turn
        elif kind in (b"subscribe", b"ssubscribe"):
            self._subscriptions.on_subscribed()
        elif kind in (b"unsubscribe", b"sunsubscribe") and not self._subscriptions.on_unsubscribed(push[1]):
            self._owner.on_unsubscribed(self, push[1])

    def _tell(self, name: bytes, data: bytes) -> None:
        """Anybody may publish at the server, so the data may be no announcement."""
        try:
            self._owner.on_announcement(name, data)
        except ValueError as error:
            report_error(self._events, f"redis announcement {name!r}", error)

    # Connecting

    async def _connect(self) -> None:
        receiver = self._receiver = Callbacks(self.on_push, self.on_connection_lost)
        try:
            self.host = await self._locate()
            commands, server = await open_connection(self.host, self._address, receiver, self._runtime, SILENCE_S)
            self._commands = commands
            announcements, _ = await open_connection(self.host, self._address, receiver, self._runtime, SILENCE_S)
            self._announcements = announcements
            if server.role != "master":
                raise EngineUnavailable(f"{self.host} is a {server.role or server.mode}, and not a master")
            self._subscriptions = Subscriptions(announcements, self._sharded)
            check_version(server)
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                await self._prepare(commands, self._subscriptions)
                advice = await find_advice(commands)
                self._disk = await find_disk_facts(commands, server)
            if commands.is_closed or announcements.is_closed:
                raise EngineUnavailable("the connection was lost during the first commands")
        except Unsuitable as error:
            self._problem = error.detail
            self._close(error.detail)
            raise
        except (EngineUnavailable, ServerError, TimeoutError) as error:
            problem = error.detail if isinstance(error, CommandError) else f"{self._where}: {str(error) or 'no answer'}"
            self._problem = problem
            self._close(problem)
            raise EngineUnavailable(problem) from error
        except BaseException:
            self._close("the attempt has ended")
            raise
        self._on_connected()
        self._events.emit(EngineConnected("redis", str(server), str(self.host), advice))

    async def _prepare(self, commands: Connection, subscriptions: Subscriptions) -> None:
        """Loads the scripts, reads the lineage, and subscribes to the own probes."""
        await asyncio.gather(*(commands.call("SCRIPT", "LOAD", script.source) for script in SCRIPTS))
        info = await commands.call("INFO", "server")
        run = next(line for line in info.decode().splitlines() if line.startswith("run_id:")).removeprefix("run_id:")
        tag = self._tag()

        def read_lineage() -> Command:
            return ("EVALSHA", ERA.sha, "1", self._keys.era(tag), run, self._new_name())

        self.lineage = await commands.call(*read_lineage())
        name, verb = self._keys.probe(tag, self._new_name()), "SPUBLISH" if self._sharded else "PUBLISH"
        await subscriptions.subscribe([name, *self._owner.names(self)])
        self._probes = Probes(commands, name, verb, read_lineage, self.lineage, self._runtime.timers, self._lose)

    def _on_connected(self) -> None:
        self.is_up = True
        self._failures = 0
        for pending in self._take_unknown():
            if not pending.future.done():
                self.send_again(pending)
        self._owner.on_up(self)

    # The end of a connection, and the next one

    def on_connection_lost(self, receiver: Callbacks, reason: str) -> None:
        """One of the connections has ended."""
        if receiver is not self._receiver:
            return
        if self.is_up:
            self._lose(reason)
        else:
            self._close(reason)  # the attempt gets errors

    def _lose(self, reason: str) -> None:
        self.is_up = False
        self._problem = reason
        self._was_silent = self._commands is not None and self._commands.was_silent
        self._close(reason)
        self._owner.on_down(self, reason)
        self._connect_later()

    def _close(self, reason: str) -> None:
        self._receiver = None
        for connection in (self._commands, self._announcements):
            if connection is not None:
                connection.close(reason)
        self._commands = self._announcements = None
        if self._subscriptions is not None:
            self._subscriptions.close(self.lost_error(reason))
            self._subscriptions = None
        if self._probes is not None:
            self._probes.close(self.lost_error(reason))
            self._probes = None
        for confirmations in self._confirmations.values():
            confirmations.close()

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
