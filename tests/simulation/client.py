"""Clients that follow the Centrifuge protocol and check every message against the delivery guarantees."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from beaconfire.session.session import Session
from tests.simulation.broken_guarantee import BrokenGuarantee
from tests.simulation.broker import CHANNELS, StreamStore
from tests.simulation.subscriber import Counts, Excuses, SubscribedChannel
from tests.simulation.transport import PartialWriteTransport
from tests.unit.patching import chained_text

DISCONNECTED_BY_CONTROL: Final = 4000
"""The code of disconnects that the simulation sends as control messages."""

INSUFFICIENT_STATE: Final = 3010
SHUTDOWN: Final = 3001


Connection = tuple[Session, object]
OpenSession = Callable[[PartialWriteTransport, str], Connection]
"""Opens a session of the named client at one of the nodes, which is returned as well."""


class Asked(NamedTuple):
    """A command without a reply. `subject` is a channel, or the data of an rpc."""

    method: str
    subject: Any
    params: dict[str, Any]


class SimulatedClient:
    """A small SDK. The client remembers positions, recovers after its connection was cut, and raises BrokenGuarantee

    - for a publication that is lost, duplicated, out of order or not equal to what was published,
    - for a wrong number of publications that conflation left out,
    - for a message of a channel before the subscribe reply, and for a push before the connect reply,
    - for the end of a subscription that history could have continued,
    - for two joins or two leaves of a client after each other,
    - for `recovered: true` with a missing publication, and for `recovered: false` although history had everything,
    - for replies that are missing, out of order (those of rpc may be) or errors,

    unless `excuses` say that the simulation may cause this.
    """

    def __init__(
        self, name: str, rng: random.Random, store: StreamStore, excuses: Excuses, open_session: OpenSession
    ) -> None:
        self.name = name
        self._rng = rng
        self._excuses = excuses
        self._open_session = open_session
        self.counts = Counts()
        self.channels = {
            channel: SubscribedChannel(name, channel, rng, store, excuses, self.counts) for channel in CHANNELS
        }
        self.session: Session | None = None
        self.is_connected = False
        self.server: object = None
        """The node that the client is connected to, None without a connection."""
        self.transport = PartialWriteTransport(rng)
        self._connected_after = 0
        """When the connection was opened: see `Excuses.now`."""
        self._ids = itertools.count(1)
        self.waiting: dict[int, Asked] = {}
        """The commands without a reply, in order, by id."""

    # The connection

    def connect(self) -> None:
        self._connected_after = self._excuses.now()
        self.transport = PartialWriteTransport(self._rng)
        self.session, self.server = self._open_session(self.transport, self.name)
        self._send_connect()

    def _send_connect(self) -> None:
        wanted = {
            channel: state.ask(by_connect=True)
            for channel, state in self.channels.items()
            if state.by_connect and state.is_free
        }
        self.send("connect", "", {"token": self.name, "subs": wanted})

    @property
    def may_send(self) -> bool:
        """Commands may follow connect without waiting for its reply if connect cannot fail."""
        return self.is_connected or not (
            self._excuses.refusals or any(state.by_connect for state in self.channels.values())
        )

    def drop_connection(self) -> None:
        """The network fails. Messages on their way are lost."""
        assert self.session is not None
        self.transport.is_closed = True
        self.session.on_closed()
        self._forget_connection()

    def lose_server(self) -> None:
        """The process of the node has been killed."""
        self.transport.is_closed = True
        self._forget_connection()

    def toggle_writable(self) -> None:
        """The connection takes no more data, or takes data again."""
        assert self.session is not None
        self.transport.writable = not self.transport.writable
        if self.transport.writable:
            self.session.on_writable()

    def _forget_connection(self) -> None:
        self.session = self.server = None
        self.is_connected = False
        self.transport = PartialWriteTransport(self._rng)
        self.waiting.clear()
        for state in self.channels.values():
            state.forget_connection()

    # Commands

    def send(self, method: str, subject: Any, params: dict[str, Any]) -> None:
        assert self.session is not None
        number = next(self._ids)
        self.waiting[number] = Asked(method, subject, params)
        self.session.on_data(json.dumps({"id": number, method: params}).encode(), False)

    def subscribe(self, channel: str) -> None:
        self.send("subscribe", channel, {"channel": channel, **self.channels[channel].ask()})

    def unsubscribe(self, channel: str) -> None:
        self.channels[channel].is_live = False
        self.channels[channel].unsubscribing += 1
        self.send("unsubscribe", channel, {"channel": channel})

    def resubscribe(self, channel: str) -> None:
        """Both commands are on their way at the same time."""
        self.unsubscribe(channel)
        self.subscribe(channel)

    def publish(self, channel: str, number: int) -> None:
        self.send("publish", channel, {"channel": channel, "data": chained_text(number)})

    def ask_history(self, channel: str) -> None:
        position = self.channels[channel].position
        since = {"since": {"offset": position.offset, "epoch": position.epoch}} if position is not None else {}
        self.send("history", channel, {"channel": channel, "limit": 3, **since})

    def ask_presence(self, channel: str) -> None:
        self.send("presence", channel, {"channel": channel})

    def call(self, number: int) -> None:
        self.send("rpc", number, {"method": "echo", "data": number})

    # What the client receives

    def read(self, count: int) -> None:
        """Reads at most `count` messages."""
        for _ in range(min(count, len(self.transport.inbox))):
            self._on_message(self.transport.inbox.popleft())
            if self.session is None:
                return
        code = self.transport.disconnect_code
        if code is not None and not self.transport.inbox and self.session is not None:
            expected = {INSUFFICIENT_STATE, SHUTDOWN}
            if self._excuses.control:
                expected.add(DISCONNECTED_BY_CONTROL)
            if code not in expected or (code == INSUFFICIENT_STATE and not self._may_have_gap()):
                raise BrokenGuarantee(f"{self.name}: disconnected with code {code}")
            self.session.on_closed()
            self._forget_connection()

    def _on_message(self, message: dict[str, Any]) -> None:
        if "push" in message:
            push = message["push"]
            if not self.is_connected:
                raise BrokenGuarantee(f"{self.name}: {push} before the reply to connect")
            self.channels[push["channel"]].on_push(push)
        elif message:
            number = message["id"]
            asked = self.waiting.get(number)
            if asked is None or (asked.method != "rpc" and number != self._first_in_order()):
                raise BrokenGuarantee(f"{self.name}: {message} answers none of {self.waiting}, or is out of order")
            del self.waiting[number]
            if "error" in message:
                self._on_error(asked, message["error"]["code"])
            else:
                self._on_reply(asked, message[asked.method])

    def _may_have_gap(self) -> bool:
        if any(state.may_have_gap() for state in self.channels.values()):
            return True
        if self._excuses.lost_newest:
            return True  # a subscription that is being made may have what was lost
        # The client may not know yet what the server has subscribed it to.
        return self._excuses.control and self._excuses.gap_since(self._connected_after)

    def _first_in_order(self) -> int:
        return next(number for number, asked in self.waiting.items() if asked.method != "rpc")

    def _on_reply(self, asked: Asked, result: dict[str, Any]) -> None:
        if asked.method == "subscribe":
            self.channels[asked.subject].on_subscribed(result)
        elif asked.method == "unsubscribe":
            self.channels[asked.subject].unsubscribing -= 1
        elif asked.method == "connect":
            self._on_connected(asked.params["subs"], result.get("subs", {}))
        else:
            self.counts.answered += 1
            if asked.method == "history":
                self.channels[asked.subject].check_history(result)
            elif asked.method == "rpc" and result["data"] != asked.subject:
                raise BrokenGuarantee(f"{self.name}: rpc {asked.subject} got {result}")

    def _on_connected(self, wanted: dict[str, Any], made: dict[str, Any]) -> None:
        """A handler may refuse a wanted channel. The client then subscribes itself."""
        self.is_connected = True
        for channel in wanted:
            if channel in made:
                self.counts.server_side += 1
                self.channels[channel].on_subscribed(made[channel], by_connect=True)
            elif self._excuses.refusals:
                self.channels[channel].is_asked = False
            else:
                raise BrokenGuarantee(f"{self.name}: connect has not subscribed to {channel}")

    def _on_error(self, asked: Asked, code: int) -> None:
        """A command may fail while the link is lost, because a call of the engine has failed, or by a handler."""
        excuses = self._excuses
        expected = {100, 103} if excuses.refusals and asked.method != "unsubscribe" else set()
        if asked.method in ("subscribe", "connect", "history", "presence") and (
            excuses.lost_announcements or excuses.failures or excuses.gaps
        ):
            expected.add(100)
        if asked.method == "publish" and excuses.lost_replies:
            expected.add(100)
        if asked.method == "history":
            expected.add(112)  # the stream of the position was lost
        if asked.method == "presence":
            expected.add(106)  # larger than the replies of some simulations may be
        if asked.method == "subscribe" and excuses.control:
            expected |= {103, 105}
        if code not in expected:
            raise BrokenGuarantee(f"{self.name}: {asked} failed with code {code}")
        self.counts.refused += 1
        if asked.method == "subscribe":
            self.channels[asked.subject].is_asked = False
        elif asked.method == "connect":
            self._on_connect_refused()

    def _on_connect_refused(self) -> None:
        """The client connects again: on the same connection, if the server permits, or on a new one."""
        for state in self.channels.values():
            state.is_asked = False
        assert self.session is not None
        if not self.session.traits.connect_is_final and self._rng.random() < 0.7:
            self._send_connect()
        else:
            self.drop_connection()
