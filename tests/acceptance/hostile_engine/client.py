"""A client that follows the Centrifuge protocol, and checks every message against the delivery guarantees."""

from __future__ import annotations

import itertools
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from beaconfire.base.errors import DisconnectCode
from beaconfire.protocols.port import Frame
from beaconfire.session.session import Session
from tests.acceptance.hostile_engine.ledger import Ledger
from tests.simulation.broken_guarantee import BrokenGuarantee

TEMPORARY = 100
INSUFFICIENT_STATE = 2500


class Room:
    """What one client knows about one channel, over all its connections."""

    def __init__(self) -> None:
        self.phase = "left"  # or "subscribing", "subscribed", "leaving"
        self.offset: int | None = None
        """The position that the client recovers from. None: a fresh subscription."""
        self.epoch = ""
        self.members: dict[str, bool] = {}
        """Whether the last announcement of each client was its join. Empty at the start of a subscription."""


class ClientTransport:
    """Keeps the frames until the client reads them."""

    name = "hostile"
    secret = ""
    direct: Any = None
    writable = True
    buffered_bytes = 0

    def __init__(self, on_readable: Callable[[ClientTransport], None]) -> None:
        self.frames: list[bytes] = []
        self.code: int | None = None
        """The code with which the server has closed the connection."""
        self._on_readable = on_readable

    def write(self, frames: Sequence[Frame]) -> None:
        if not self.frames:
            self._on_readable(self)
        self.frames.extend(frames)  # type: ignore[arg-type]  # `LineWire` makes bytes

    def write_rest(self, data: bytes, sent: int) -> None:
        raise AssertionError("not direct")

    def ping(self) -> None:
        raise AssertionError("the Centrifuge protocol has its own pings")

    def close(self, code: DisconnectCode, reason: str) -> None:
        self.code = code.code
        self._on_readable(self)

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class CheckingClient:
    """A small SDK that remembers positions, recovers after a lost connection, and raises BrokenGuarantee

    - for a publication that is lost, doubled, out of order or not what was stored,
    - for `recovered: true` with a missing publication, and for `recovered: false`, because history has everything,
    - for a message of a channel before the subscribe reply or after the unsubscribe reply,
    - for an error other than the temporary one, or for one that is not marked as temporary.

    `outbox` has the commands that the client wants to send. Its owner sends them, so that the client's own work and
    that of the server can be measured separately.
    """

    def __init__(
        self,
        name: str,
        rooms: Sequence[str],
        ledger: Ledger,
        counts: Counter[str],
        rng: random.Random,
        after: Callable[[float, Callable[[], None]], object],
    ) -> None:
        """`after` calls a function after some seconds. `counts` are common to all clients."""
        self.name = name
        self.rooms = {room: Room() for room in rooms}
        self.session: Session | None = None
        self.transport: ClientTransport | None = None
        self.client_id = ""
        self.acknowledged: list[bytes] = []
        self.outbox: list[bytes] = []
        self.waiting: dict[int, tuple[str, str, bytes]] = {}
        """The commands without a reply: method, channel and data."""
        self.longest_wait_s = 0.0
        """The longest time between a command and its reply."""
        self._sent_s: dict[int, float] = {}
        self._ids = itertools.count(1)
        self._publications = itertools.count(1)
        self._ledger = ledger
        self._counts = counts
        self._rng = rng
        self._after = after

    # Actions

    def on_open(self, session: Session, transport: ClientTransport) -> None:
        self.session, self.transport = session, transport
        self._send("connect", "", {})

    def on_lost(self) -> None:
        """The connection is gone, with everything that was on its way."""
        self.session = self.transport = None
        self.waiting.clear()
        self._sent_s.clear()
        self.outbox.clear()
        for room in self.rooms.values():
            room.phase = "left"

    def join(self, channel: str) -> None:
        room = self.rooms[channel]
        if self.session is None or not self.client_id or room.phase != "left":
            return
        room.phase = "subscribing"
        params: dict[str, Any] = {"channel": channel}
        if room.offset is not None:
            params |= {"recover": True, "offset": room.offset, "epoch": room.epoch}
        self._send("subscribe", channel, params)

    def leave(self, channel: str, forgets: bool) -> None:
        """Leaves a channel, and comes back a little later. With `forgets` the new subscription is a fresh one."""
        room = self.rooms[channel]
        if room.phase != "subscribed":
            return
        room.phase = "leaving"
        if forgets:
            room.offset = None
        self._send("unsubscribe", channel, {"channel": channel})

    def publish(self, channel: str) -> None:
        if self.session is not None and self.client_id:
            data = self.next_data()
            self._send("publish", channel, {"channel": channel, "data": json.loads(data)}, data)

    def next_data(self) -> bytes:
        """The data of a new publication, which no other one has."""
        return b'"%s-%d"' % (self.name.encode(), next(self._publications))

    @property
    def is_settled(self) -> bool:
        """Connected, subscribed to all channels, with everything that was published and without an open command."""
        return (
            self.session is not None
            and not self.waiting
            and not self.outbox
            and all(
                room.phase == "subscribed" and room.offset == self._ledger.top(channel)
                for channel, room in self.rooms.items()
            )
        )

    def _send(self, method: str, channel: str, params: dict[str, Any], data: bytes = b"") -> None:
        number = next(self._ids)
        self.waiting[number] = (method, channel, data)
        self._sent_s[number] = time.monotonic()
        self.outbox.append(json.dumps({"id": number, method: params}).encode())

    # Messages

    def receive(self, message: dict[str, Any]) -> None:
        if not message:
            self.outbox.append(b"{}")  # a ping
            return
        if "push" in message:
            self._on_push(message["push"])
            return
        self.longest_wait_s = max(self.longest_wait_s, time.monotonic() - self._sent_s.pop(message["id"]))
        if "error" in message:
            self._on_error(*self.waiting.pop(message["id"]), message["error"])
        else:
            method, channel, data = self.waiting.pop(message["id"])
            match method:
                case "connect":
                    self.client_id = message["connect"]["client"]
                    for name in self.rooms:
                        self.join(name)
                case "subscribe":
                    self._on_subscribed(channel, message["subscribe"])
                case "unsubscribe":
                    self.rooms[channel].phase = "left"
                    self._come_back(channel)
                case "publish":
                    self._counts["published"] += 1
                    self.acknowledged.append(data)

    def _on_error(self, method: str, channel: str, data: bytes, error: dict[str, Any]) -> None:
        if error["code"] != TEMPORARY or error.get("temporary") is not True:
            raise BrokenGuarantee(f"{self.name}: {method} {channel} failed: {error}")
        self._counts[f"{method} refused"] += 1
        if method == "subscribe":
            self.rooms[channel].phase = "left"
            self._come_back(channel)

    def _come_back(self, channel: str) -> None:
        session = self.session
        self._after(0.1 + self._rng.random(), lambda: self.join(channel) if self.session is session else None)

    def _on_push(self, push: dict[str, Any]) -> None:
        channel = push["channel"]
        room = self.rooms[channel]
        if room.phase == "leaving":
            return  # sent before the server received the unsubscribe command
        if room.phase != "subscribed":
            raise BrokenGuarantee(f"{self.name}: {push} while {room.phase}")
        if "pub" in push:
            self._on_publication(channel, room, push["pub"])
        elif "join" in push:
            self._counts["joins received"] += 1
            room.members[push["join"]["info"]["client"]] = True
        elif "leave" in push:
            self._counts["leaves received"] += 1
            room.members[push["leave"]["info"]["client"]] = False
        elif push["unsubscribe"]["code"] == INSUFFICIENT_STATE:
            self._counts["gaps told"] += 1
            room.phase = "left"
            self._come_back(channel)
        else:
            raise BrokenGuarantee(f"{self.name}: {push}")

    def _on_subscribed(self, channel: str, result: dict[str, Any]) -> None:
        room = self.rooms[channel]
        room.phase = "subscribed"
        room.members.clear()
        self._counts["subscribed"] += 1
        offset, epoch = result.get("offset", 0), result["epoch"]
        if epoch != self._ledger.epochs.get(channel, epoch) or epoch != (room.epoch or epoch):
            raise BrokenGuarantee(f"{self.name}: {channel} has another epoch: {result}")
        room.epoch = epoch
        if room.offset is None:
            if offset > self._ledger.top(channel):
                raise BrokenGuarantee(f"{self.name}: offset {offset} of {channel} was never published")
            room.offset = offset
            return
        self._counts["recovered"] += 1
        if not result.get("recovered"):
            raise BrokenGuarantee(f"{self.name}: {channel} was not recovered from {room.offset}: {result}")
        for publication in result.get("publications", ()):
            self._on_publication(channel, room, publication)
            self._counts["publications recovered"] += 1
        if offset > room.offset:
            raise BrokenGuarantee(f"{self.name}: {channel} skips from {room.offset} to {offset}: {result}")

    def _on_publication(self, channel: str, room: Room, publication: dict[str, Any]) -> None:
        offset = publication["offset"]
        assert room.offset is not None, "subscribed"
        if offset != room.offset + 1:
            raise BrokenGuarantee(f"{self.name}: offset {offset} of {channel} after {room.offset}")
        if self._ledger.stored[channel][offset - 1] != b'"%s"' % publication["data"].encode():
            raise BrokenGuarantee(f"{self.name}: offset {offset} of {channel} is not what was stored: {publication}")
        room.offset = offset
        self._counts["received"] += 1
