"""The control bus: announcements to all nodes and to one node. A node is live while it renews its lease.

A node that has lost its link is not live either, although its lease lasts some seconds: the server knows who listens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Struct

from beaconfire.base.errors import EngineUnavailable
from beaconfire.base.loop import Runtime
from beaconfire.base.timers import Timer
from beaconfire.engines.port import ControlHandler
from beaconfire.engines.redis.connection import Command
from beaconfire.engines.redis.keys import Keys
from beaconfire.engines.redis.link import Link
from beaconfire.engines.redis.scripts import NODES
from beaconfire.engines.redis.servers import Servers

LEASE_S: Final = 5.0
"""How long a node without a sign of life stays live."""

RENEWAL_INTERVAL_S: Final = 1.0


class Message(Struct, tag="m", array_like=True, gc=False):
    """A broadcast, or a message to one node."""

    content: bytes


class Question(Struct, tag="q", array_like=True, gc=False):
    """A survey: `asker` wants an answer to `survey`."""

    asker: str
    survey: int
    content: bytes


class Answer(Struct, tag="a", array_like=True, gc=False):
    """The answer of the node `uid`."""

    uid: str
    survey: int
    content: bytes


_decode: Final = msgspec.msgpack.Decoder(Message | Question | Answer).decode
_encode: Final = msgspec.msgpack.Encoder().encode


class RunningSurvey:
    """Collects the answers of the other nodes."""

    def __init__(self, expected: set[str]) -> None:
        self._expected = expected
        self.answers: dict[str, bytes] = {}
        """By node."""
        self.done = asyncio.Event()
        self._check()

    def add(self, answer: Answer) -> None:
        self.answers[answer.uid] = answer.content
        self._check()

    def _check(self) -> None:
        if self._expected <= self.answers.keys():
            self.done.set()


class RedisControlBus:
    """Implements `ControlBus`."""

    def __init__(self, servers: Servers, keys: Keys, runtime: Runtime) -> None:
        self._servers = servers
        self._keys = keys
        self._timers = runtime.timers
        self._verb: Final = "SPUBLISH" if servers.sharded else "PUBLISH"
        self._listeners: Final = ("PUBSUB", "SHARDNUMSUB" if servers.sharded else "NUMSUB")
        self._handler: ControlHandler | None = None
        self._uid = ""
        self._renewal: Timer | None = None
        self._surveys: dict[int, RunningSurvey] = {}
        self._last_survey = 0

    async def start(self, uid: str, handler: ControlHandler) -> None:
        """See `ControlBus.start`. Raises RuntimeError if the bus is started."""
        if self._handler is not None:
            raise RuntimeError("the control bus is already started")
        self._handler, self._uid = handler, uid
        try:
            names = dict.fromkeys((self._keys.control, self._keys.node(uid)), self._on_announcement)
            await self._servers.listen(names, self._renew)
            await self._link().send(self._lease_command())
        except BaseException:
            self._handler = None
            self._servers.end_listening()
            raise
        self._renew_later()

    async def stop(self) -> None:
        """See `ControlBus.stop`. If the link is down, the node is not live anyway."""
        if self._handler is None:
            return
        self._handler = None
        if self._renewal is not None:
            self._renewal.cancel()
        self._servers.end_listening()
        try:
            await self._link().send(("ZREM", self._keys.nodes, self._uid))
        except EngineUnavailable:
            pass

    async def broadcast(self, message: bytes) -> None:
        """See `ControlBus.broadcast`. Raises RuntimeError unless started."""
        self._started()
        await self._publish(self._keys.control, Message(message))

    async def send(self, node: str, message: bytes) -> bool:
        """See `ControlBus.send`. Raises RuntimeError unless started."""
        self._started()
        return await self._publish(self._keys.node(node), Message(message)) > 0

    async def survey(self, request: bytes, timeout_s: float) -> list[bytes]:
        """See `ControlBus.survey`. Returns as soon as all live nodes have answered. Raises RuntimeError unless
        started."""
        handler = self._started()
        own = handler.on_survey(request)
        self._last_survey += 1
        number = self._last_survey
        running = self._surveys[number] = RunningSurvey({*await self.nodes()} - {self._uid})
        timer = self._timers.after(timeout_s, running.done.set)
        try:
            await self._publish(self._keys.control, Question(self._uid, number, request))
            await running.done.wait()
        finally:
            timer.cancel()
            del self._surveys[number]
        return [own, *running.answers.values()]

    async def nodes(self) -> Sequence[str]:
        """See `ControlBus.nodes`. Raises RuntimeError unless started."""
        self._started()
        uids = [uid.decode() for uid in await self._link().send(("EVALSHA", NODES.sha, "1", self._keys.nodes, "", 0))]
        counts = await self._link().send((*self._listeners, *map(self._keys.node, uids)))
        return [uid for uid, count in zip(uids, counts[1::2], strict=True) if count]

    def _started(self) -> ControlHandler:
        if self._handler is None:
            raise RuntimeError("the redis control bus is not started")
        return self._handler

    def _link(self) -> Link:
        return self._servers.link(self._keys.control)

    async def _publish(self, name: bytes, message: Message | Question) -> int:
        """Returns how many nodes the server has sent the message to."""
        receivers: int = await self._link().send((self._verb, name, _encode(message)))
        return receivers

    # The lease

    def _lease_command(self) -> Command:
        return ("EVALSHA", NODES.sha, "1", self._keys.nodes, self._uid, int(LEASE_S * 1000))

    def _renew_later(self) -> None:
        self._renewal = self._timers.after(RENEWAL_INTERVAL_S, self._on_renewal)

    def _on_renewal(self) -> None:
        self._renew()
        self._renew_later()

    def _renew(self) -> None:
        """A failure does no harm: the link comes back, or the node is not live."""
        self._tell(self._lease_command())

    def _tell(self, command: Command) -> None:
        try:
            self._link().tell(command)
        except EngineUnavailable:
            pass

    # Announcements

    def _on_announcement(self, data: bytes) -> None:
        handler, message = self._handler, _decode(data)
        if handler is None:
            return
        if isinstance(message, Message):
            handler.on_control(message.content)
        elif isinstance(message, Answer):
            if (survey := self._surveys.get(message.survey)) is not None:
                survey.add(message)
        elif message.asker != self._uid:
            answer = Answer(self._uid, message.survey, handler.on_survey(message.content))
            self._tell((self._verb, self._keys.node(message.asker), _encode(answer)))
