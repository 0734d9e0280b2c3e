"""A small world in which everything that may interleave does so at random, from one seed.

The node, its sessions, hub, attachments and commands are the real ones. Around them stand a broker across a slow
network, clients that follow the protocol and keep book (some ask for patches, for what passes a filter, for the latest
only, or for several of these),
and a scheduler that picks the next thing to happen: a step of
a pending broker call, the delivery of an announcement, a turn of the fan-out, a client's wish, a cut, a tick of the
clock. What clients note must add up: see `Client`.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import Raw

from beaconfire.base.clock import ManualClock
from beaconfire.base.errors import DisconnectCode
from beaconfire.base.loop import Runtime
from beaconfire.base.timers import Timers
from beaconfire.base.units import Seconds, Size
from beaconfire.channels.access import Access
from beaconfire.channels.namespaces import Namespace, Namespaces
from beaconfire.channels.options import ChannelNameOptions, ChannelOptions
from beaconfire.delivery.outbox import Writable
from beaconfire.engines.memory import memory_engine
from beaconfire.engines.port import (
    BrokerEvents,
    Engine,
    HistoryOptions,
    HistoryPage,
    PublishOptions,
    PublishOutcome,
)
from beaconfire.model.events import InternalError, LimitHit, NoEvents
from beaconfire.model.grants import SubscriptionClaims
from beaconfire.model.identity import Identity
from beaconfire.model.node import NodeIdentity
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import ClientInfo, Publication
from beaconfire.node.node import Node, NodeOptions
from beaconfire.policy.configured import ConfiguredPolicy
from beaconfire.policy.tokens import TokenInvalid
from beaconfire.protocols.centrifuge.json_codec import JsonCodec
from beaconfire.protocols.port import Frame, Payload
from beaconfire.session.options import ClientOptions
from beaconfire.session.session import Session
from beaconfire.transports.traits import SessionTraits
from tests.unit.patching import apply, chained_text

CHANNELS = ("a", "b")
HISTORY_SIZE = 6


class SlowBroker:
    """A broker across a network: every call takes effect at one moment and returns at a later one.

    Announcements to the node queue up in order and are delivered when the scheduler likes; a lost link drops them.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._events: BrokerEvents | None = None
        self.attached: set[str] = set()
        self.streams: dict[str, list[Publication]] = {}
        self.epochs: dict[str, str] = {}
        self.tops: dict[str, int] = {}
        self.announcements: deque[Callable[[BrokerEvents], None]] = deque()
        self.steps: list[asyncio.Future[None]] = []
        self.published: dict[tuple[str, str, int], Publication] = {}
        """All there ever was, by channel, epoch and offset."""
        self._epoch_numbers = itertools.count()

    async def _travel(self) -> None:
        """Until the scheduler lets this call take its next step. Some calls are quick."""
        if self._rng.random() < 0.25:
            return
        step: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.steps.append(step)
        await step

    def let_one_step(self) -> None:
        step = self.steps.pop(self._rng.randrange(len(self.steps)))
        step.set_result(None)

    def deliver_one(self) -> None:
        announcement = self.announcements.popleft()
        assert self._events is not None
        announcement(self._events)

    def lose_link(self) -> None:
        """What is on its way to the node is lost, and the node learns of it."""
        self.announcements.clear()
        assert self._events is not None
        self._events.on_link_lost(None)

    def lose_stream(self, channel: str) -> None:
        """The broker forgets a channel: a new epoch from zero."""
        self.streams.pop(channel, None)
        self.tops.pop(channel, None)
        self.epochs.pop(channel, None)

    def position(self, channel: str) -> StreamPosition:
        if channel not in self.epochs:
            self.epochs[channel] = f"epoch{next(self._epoch_numbers)}"
        return StreamPosition(self.tops.get(channel, 0), self.epochs[channel])

    # The port

    async def start(self, events: BrokerEvents) -> None:
        self._events = events

    async def stop(self) -> None:
        self._events = None

    async def attach(self, channel: str) -> None:
        await self._travel()
        self.attached.add(channel)
        await self._travel()

    async def detach(self, channel: str) -> None:
        await self._travel()
        self.attached.discard(channel)
        await self._travel()

    async def publish(
        self,
        channel: str,
        data: Raw,
        options: PublishOptions,
        info: ClientInfo | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> PublishOutcome:
        await self._travel()
        top, epoch = self.position(channel)
        publication = Publication(data, info, top + 1, dict(tags or {}))
        self.published[channel, epoch, top + 1] = publication
        self.tops[channel] = top + 1
        stream = self.streams.setdefault(channel, [])
        stream.append(publication)
        del stream[: max(0, len(stream) - options.history.size)]
        if channel in self.attached:
            self.announcements.append(
                lambda events: events.on_publication(channel, publication, epoch, options.exclude, options.delta)
            )
        await self._travel()
        return PublishOutcome(StreamPosition(top + 1, epoch))

    async def publish_join(self, channel: str, info: ClientInfo) -> None:
        await self._travel()
        if channel in self.attached:
            self.announcements.append(lambda events: events.on_join(channel, info))

    async def publish_leave(self, channel: str, info: ClientInfo) -> None:
        await self._travel()
        if channel in self.attached:
            self.announcements.append(lambda events: events.on_leave(channel, info))

    async def history(
        self,
        channel: str,
        options: HistoryOptions,
        limit: int,
        since: StreamPosition | None = None,
        reverse: bool = False,
    ) -> HistoryPage:
        await self._travel()
        position = self.position(channel)
        kept = [p for p in self.streams.get(channel, []) if since is None or p.offset > since.offset]
        page = HistoryPage(kept[:limit] if limit >= 0 else kept, position)
        await self._travel()
        return page

    async def remove_history(self, channel: str) -> None:
        self.streams.pop(channel, None)


class PlainLines:
    """A wire without frames around its messages."""

    def __init__(self) -> None:
        self.codec = JsonCodec()

    def pack(self, payloads: Sequence[Payload]) -> Frame:
        return b"".join(payload.data + b"\n" for payload in payloads)


class Pipe:
    """A transport that hands everything to the client, in order, when the scheduler lets it.

    Often it has a socket to send to directly, which may take only the beginning of a frame.
    """

    name = "pipe"
    secret = ""
    buffered_bytes = 0

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._begun = b""
        self.writable = True
        self.inbox: deque[dict[str, Any]] = deque()
        self.closed_with: int | None = None

    @property
    def direct(self) -> Any:
        return self if self.writable and self._rng.random() < 0.7 else None

    def write(self, data: Frame) -> None:
        *lines, self._begun = (self._begun + data).split(b"\n")
        try:
            self.inbox.extend(json.loads(line) for line in lines)
        except ValueError:
            raise Violation(f"frames are torn: {lines}") from None

    def write_rest(self, data: Frame, sent: int) -> None:
        self.write(data[sent:])

    @staticmethod
    def send_all(pipes: Sequence[Writable], frames: Sequence[Frame]) -> list[int]:
        taken = []
        for pipe, frame in zip(pipes, frames, strict=True):
            assert isinstance(pipe, Pipe)
            taken.append(len(frame) if pipe._rng.random() < 0.8 else pipe._rng.randrange(len(frame)))
            pipe.write(frame[: taken[-1]])
        return taken

    def ping(self) -> None:
        raise AssertionError("the native protocol has pings of its own")

    def close(self, code: DisconnectCode, reason: str) -> None:
        self.closed_with = code.code

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class Violation(AssertionError):
    """What a client noted does not add up."""


FILTER = {"op": "not", "nodes": [{"key": "kind", "cmp": "eq", "val": "dull"}]}
"""What clients ask for that ask for a filter, and what it means."""


def _passes(publication: Publication) -> bool:
    return (publication.tags or {}).get("kind") != "dull"


class Book:
    """What one client knows of one channel, over all its connections."""

    def __init__(self, deltas: bool, filtered: bool, max_rate: float | None) -> None:
        """`max_rate` in publications a second is None for who wants all of them."""
        self.deltas = deltas
        self.filtered = filtered
        self.max_rate = max_rate
        self.base: bytes | None = None
        """The last publication of this subscription, from which a patch starts."""
        self.position: StreamPosition | None = None
        self.state = "unsubscribed"  # or "subscribing", "subscribed"
        self.unsubscribing = 0
        self.recovered_from: StreamPosition | None = None


class Client:
    """An SDK in miniature. It remembers positions, recovers after cuts, and raises Violation on any lie:

    a publication that is not the next one (loss, duplicate, disorder) or not what was published, a wrong count of what
    was left out, anything of a channel before its subscribe reply, `recovered: true` with a hole, `recovered: false`
    although everything was there.
    """

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        rng = world.rng
        self.books = {
            channel: Book(rng.random() < 0.5, rng.random() < 0.5, rng.choice((None,) * 6 + (0.0, 0.5, 20.0)))
            for channel in CHANNELS
        }
        self.session: Session | None = None
        self.pipe = Pipe(world.rng)
        self._ids = itertools.count(1)
        self._waiting: dict[int, tuple[str, str]] = {}
        self.received = 0
        self.recovered = 0
        self.unrecovered = 0
        self.patched = 0
        self.filtered = 0
        self.conflated = 0

    def connect(self) -> None:
        self.pipe = Pipe(self.world.rng)
        self.session = self.world.new_session(self.pipe, self.name)
        self._waiting.clear()
        self.send("connect", "", {"token": self.name})

    def cut(self) -> None:
        """The network fails: nothing on its way arrives."""
        assert self.session is not None
        self.session.on_closed()
        self.pipe = Pipe(self.world.rng)
        self._forget_connection()

    def toggle(self) -> None:
        """The network takes nothing for a while, or something again."""
        assert self.session is not None
        self.pipe.writable = not self.pipe.writable
        if self.pipe.writable:
            self.session.on_writable()

    def _forget_connection(self) -> None:
        self.session = None
        for book in self.books.values():
            book.state = "unsubscribed"
            book.unsubscribing = 0

    def send(self, method: str, channel: str, params: dict[str, Any]) -> None:
        assert self.session is not None
        number = next(self._ids)
        self._waiting[number] = (method, channel)
        self.session.on_data(json.dumps({"id": number, method: params}).encode(), False)

    def subscribe(self, channel: str) -> None:
        book = self.books[channel]
        params: dict[str, Any] = {"channel": channel}
        book.recovered_from = book.position
        if book.position is not None:
            params |= {"recover": True, "offset": book.position.offset, "epoch": book.position.epoch}
        if book.deltas:
            params["delta"] = "fossil"
        if book.filtered:
            params["tf"] = FILTER
        if book.max_rate is not None:
            params["conflate"] = {"max_rate": book.max_rate}
        book.state = "subscribing"
        self.send("subscribe", channel, params)

    def unsubscribe(self, channel: str) -> None:
        self.books[channel].state = "unsubscribed"
        self.books[channel].unsubscribing += 1
        self.send("unsubscribe", channel, {"channel": channel})

    def read(self, count: int) -> None:
        """Takes messages that have arrived."""
        for _ in range(min(count, len(self.pipe.inbox))):
            self._take(self.pipe.inbox.popleft())
        if self.pipe.closed_with is not None and not self.pipe.inbox and self.session is not None:
            self.session.on_closed()
            self._forget_connection()

    def _take(self, message: dict[str, Any]) -> None:
        if "push" in message:
            self._take_push(message["push"])
        elif message:
            method, channel = self._waiting.pop(message["id"])
            if "error" in message:
                raise Violation(f"{self.name}: {method} {channel} failed: {message}")
            if method == "subscribe":
                self._take_subscribed(channel, message["subscribe"])
            elif method == "unsubscribe":
                self.books[channel].unsubscribing -= 1

    def _take_push(self, push: dict[str, Any]) -> None:
        channel = push["channel"]
        book = self.books[channel]
        if book.unsubscribing:
            return  # on its way when we left
        if "pub" in push:
            if book.state != "subscribed":
                raise Violation(f"{self.name}: publication in {channel} while {book.state}: {push}")
            self._advance(channel, push["pub"])
        elif "unsubscribe" in push:
            assert push["unsubscribe"]["code"] == 2500, push
            book.state = "unsubscribed"

    def _take_subscribed(self, channel: str, result: dict[str, Any]) -> None:
        book = self.books[channel]
        if book.unsubscribing:
            return
        book.state = "subscribed"
        book.base = None
        if bool(result.get("delta")) is not book.deltas:
            raise Violation(f"{self.name}: deltas of {channel} are not as asked for: {result}")
        epoch, offset = result["epoch"], result.get("offset", 0)
        since = book.recovered_from
        publications = result.get("publications", [])
        if since is None:
            book.position = StreamPosition(offset, epoch)
        elif result.get("recovered"):
            self.recovered += 1
            if epoch != since.epoch:
                raise Violation(f"{self.name}: recovered {channel} from another epoch")
            book.position = since
            for publication in publications:
                self._advance(channel, publication)
            if not publications:
                self._pass_over(channel, offset + 1, 0)
                book.position = StreamPosition(offset, epoch)
        else:
            self.unrecovered += 1
            if publications:
                raise Violation(f"{self.name}: publications without recovered")
            if epoch == since.epoch and offset - since.offset <= HISTORY_SIZE and offset >= since.offset:
                raise Violation(f"{self.name}: {channel} was not recovered although history had it: {result}")
            book.position = StreamPosition(offset, epoch)

    def _advance(self, channel: str, publication: dict[str, Any]) -> None:
        book = self.books[channel]
        assert book.position is not None
        self.received += 1
        offset, epoch = publication["offset"], book.position.epoch
        if offset <= book.position.offset:
            raise Violation(f"{self.name}: offset {offset} after {book.position}")
        self._pass_over(channel, offset, publication.get("conflated", 0))
        book.position = StreamPosition(offset, epoch)
        published = self.world.broker.published.get((channel, epoch, offset))
        if published is None:
            raise Violation(f"{self.name}: offset {offset} of {channel} was never published in {epoch}: {publication}")
        if self._read_data(book, publication) != bytes(published.data):
            raise Violation(f"{self.name}: offset {offset} of {channel} is not what was published: {publication}")
        if book.filtered and not _passes(published):
            raise Violation(f"{self.name}: the filter passed {published}")

    def _pass_over(self, channel: str, offset: int, left_out: int) -> None:
        """What lies between the position and this offset must have been filtered out, or left out and counted."""
        book = self.books[channel]
        assert book.position is not None
        if self.lacks(channel, offset - 1) != left_out or (left_out and book.max_rate is None):
            raise Violation(f"{self.name}: offset {offset} after {book.position} with {left_out} left out")
        self.conflated += left_out
        self.filtered += offset - 1 - book.position.offset - left_out

    def lacks(self, channel: str, top: int) -> int:
        """How many publications from the position to this offset, whether there or not, this client asked for."""
        book = self.books[channel]
        assert book.position is not None
        published, epoch = self.world.broker.published, book.position.epoch
        between = [published.get((channel, epoch, missing)) for missing in range(book.position.offset + 1, top + 1)]
        return sum(publication is None or not book.filtered or _passes(publication) for publication in between)

    def _read_data(self, book: Book, publication: dict[str, Any]) -> bytes:
        """The text that was published, put together if it came as a patch."""
        if not book.deltas:
            return json.dumps(publication["data"]).encode()
        text: bytes = publication["data"].encode()
        if publication.get("delta"):
            self.patched += 1
            if book.base is None:
                raise Violation(f"{self.name}: a patch, but nothing it could start from: {publication}")
            try:
                text = apply(book.base, text)
            except AssertionError as error:
                raise Violation(f"{self.name}: a patch that does not fit: {error}") from None
        book.base = text
        return text


class NamesAreTokens:
    """A verifier for which a token is the name of a user."""

    async def verify_connection(self, token: str) -> Identity:
        return Identity(user=token)

    async def verify_subscription(self, token: str) -> SubscriptionClaims:
        raise TokenInvalid("nobody has subscription tokens here")


class Alarm(NoEvents):
    """Keeps internal errors: they are violations too. Counts recoveries that are made in pieces."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.in_pieces = 0

    def emit(self, event: object) -> None:
        if isinstance(event, InternalError):
            self.errors.append(event.error)
        elif isinstance(event, LimitHit) and event.limit == "client.reply_max_size":
            self.in_pieces += 1


class World:
    """Node, broker and clients, and the seeded choice of what happens next."""

    def __init__(self, seed: int, clients: int = 3) -> None:
        self.rng = random.Random(seed)
        self.clock = ManualClock()
        self.timers = Timers(self.clock)
        self.broker = SlowBroker(self.rng)
        memory = memory_engine(self.clock)
        options = ChannelOptions(
            history_size=HISTORY_SIZE,
            history_ttl=Seconds(1000),
            force_recovery=True,
            allow_subscribe_for_client=True,
            allow_publish_for_client=True,
            join_leave=True,
            allow_tags_filter=True,
            allowed_delta_types=["fossil"],
        )
        client_options = ClientOptions(
            ping_interval=Seconds(0),
            presence_update_interval=Seconds(3),
            channel_position_check_delay=Seconds(6),
            stale_close_delay=Seconds(100000),
            # In half of the worlds a reply has room for one publication, and history has up to six.
            reply_max_size=self.rng.choice((Size(1), Size(512 * 1024))),
        )
        channels = Namespaces(options, {}, ChannelNameOptions(), 1000.0)
        access = Access(channels, False)
        verifier = NamesAreTokens()
        self.turns: deque[Callable[[], None]] = deque()
        self.alarm = Alarm()
        self.namespaces = channels
        self.node = Node(
            NodeOptions(NodeIdentity("node", "node", "test"), client_options, detach_delay_s=1.0),
            Engine("slow", self.broker, memory.presence, memory.control),
            channels,
            access,
            ConfiguredPolicy(verifier, verifier, channels, access, client_options),
            Runtime(self.turns.append, self.timers, self.timers, self.rng.random),
            self.alarm,
            Pipe.send_all,
        )
        # In every other world the walk to those who get something of their own is interrupted after each of them.
        self.node.hub.slice_s = self.rng.choice((-1.0, self.node.hub.slice_s))
        self.interrupted = 0
        """Turns after which such a walk was not over."""
        self.namespace: Namespace = channels.resolve("a")
        self._wire = PlainLines()
        self._numbers = itertools.count()
        self.clients = [Client(self, f"client{index}") for index in range(clients)]
        self.published = 0

    def new_session(self, pipe: Pipe, name: str) -> Session:
        number = next(self._numbers)
        sessions = self.node.sessions(SessionTraits(), lambda: f"{name}-{number}")
        return sessions.open_session(pipe, self._wire)

    async def run(self, steps: int) -> None:
        await self.node.start()
        for client in self.clients:
            client.connect()
        for _ in range(steps):
            self._step()
            for _ in range(self.rng.randrange(3)):
                await asyncio.sleep(0)
        await self._settle()
        for client in self.clients:
            self._check_complete(client)

    def _step(self) -> None:
        choices: list[tuple[int, Callable[[], None]]] = [(4, self._publish), (5, self._client_acts), (1, self._time)]
        if self.broker.steps:
            choices.append((12, self.broker.let_one_step))
        if self.broker.announcements:
            choices.append((5, self.broker.deliver_one))
        if self.turns:
            choices.append((12 if self.node.hub._walking else 5, self._turn))
        if self.rng.random() < 0.02:
            choices.append((4, self.broker.lose_link))
        if self.rng.random() < 0.01:
            choices.append((4, lambda: self.broker.lose_stream(self.rng.choice(CHANNELS))))
        weights = [weight for weight, _ in choices]
        self.rng.choices(choices, weights)[0][1]()

    def _turn(self) -> None:
        self.turns.popleft()()
        self.interrupted += bool(self.node.hub._walking)

    def _time(self) -> None:
        self.clock.advance(self.rng.choice((0.3, 1.1, 4.0)))
        self.timers.run_due()

    def _publish(self) -> None:
        self.published += 1
        channel = self.rng.choice(CHANNELS)
        data = Raw(json.dumps(chained_text(self.published)).encode())
        tags = {"kind": self.rng.choice(("dull", "keen", "odd"))}
        self.node.background.start(self._publish_one(channel, data, tags, self.rng.random() < 0.8))

    async def _publish_one(self, channel: str, data: Raw, tags: dict[str, str], delta: bool) -> None:
        await self.node.channels.publish(channel, self.namespace, data, tags=tags, delta=delta)

    def _client_acts(self) -> None:
        client = self.rng.choice(self.clients)
        if client.session is None:
            client.connect()
            return
        action = self.rng.random()
        channel = self.rng.choice(CHANNELS)
        if action < 0.45:
            client.read(self.rng.randrange(1, 6))
        elif action < 0.53:
            client.cut()
        elif action < 0.58:
            client.toggle()
        elif client.books[channel].state == "unsubscribed" and not client.books[channel].unsubscribing:
            client.subscribe(channel)
        elif client.books[channel].state == "subscribed" and action < 0.75:
            client.unsubscribe(channel)

    async def _settle(self) -> None:
        """Everything under way arrives; clients that fell out come back."""
        for _ in range(200):
            for _ in range(3):
                await asyncio.sleep(0)
            while self.broker.steps:
                self.broker.let_one_step()
                await asyncio.sleep(0)
            while self.broker.announcements:
                self.broker.deliver_one()
            while self.turns:
                self._turn()
            if self.alarm.errors:
                raise Violation(self.alarm.errors[0])
            busy = False
            for client in self.clients:
                if client.session is not None and not client.pipe.writable:
                    client.toggle()
                client.read(1000)
                if client.session is None:
                    client.connect()
                    busy = True
                for channel, book in client.books.items():
                    if book.state == "unsubscribed" and not book.unsubscribing:
                        client.subscribe(channel)
                    busy = busy or book.state != "subscribed"
            if not busy and self._all_complete():
                return
            # Position checks come with time, and even a silent loss must come out in two of them.
            self.clock.advance(3.5)
            self.timers.run_due()
        books = {
            client.name: {
                channel: (book.state, book.unsubscribing, book.position) for channel, book in client.books.items()
            }
            for client in self.clients
        }
        tops = {channel: self.broker.position(channel) for channel in CHANNELS}
        raise Violation(f"the world does not come to rest: {books}, broker: {tops}")

    def _all_complete(self) -> bool:
        return all(self._is_complete(client, channel) for client in self.clients for channel in client.books)

    def _is_complete(self, client: Client, channel: str) -> bool:
        position, top = client.books[channel].position, self.broker.position(channel)
        if position is None or position.epoch != top.epoch:
            return False
        return position.offset <= top.offset and not client.lacks(channel, top.offset)

    def _check_complete(self, client: Client) -> None:
        for channel, book in client.books.items():
            if not self._is_complete(client, channel):
                raise Violation(f"{client.name} ended at {book.position} in {channel}: {self.broker.position(channel)}")
