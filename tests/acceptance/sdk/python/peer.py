"""SDK clients that record all events, so that a check can wait for the expected ones."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import centrifuge

WAIT_DEADLINE_S = 10.0


class EventLog:
    """The events of a client or a subscription, in their order.

    Replaces the SDK's handler classes: each call of an `on_…` method becomes an entry.
    """

    def __init__(self) -> None:
        self.entries: list[tuple[str, Any]] = []
        self._changed = asyncio.Event()

    def __getattr__(self, name: str) -> Callable[[Any], Awaitable[None]]:
        if not name.startswith("on_"):
            raise AttributeError(name)

        async def note(context: Any) -> None:
            self.entries.append((name.removeprefix("on_"), context))
            self._changed.set()

        return note

    def all(self, *kinds: str) -> list[Any]:
        return [context for kind, context in self.entries if kind in kinds]

    async def wait(self, *kinds: str, number: int = 1, **fields: object) -> Any:
        """The `number`th entry of these kinds with these fields, once it is there."""
        try:
            async with asyncio.timeout(WAIT_DEADLINE_S):
                while True:
                    found = [entry for entry in self.all(*kinds) if _fits(entry, fields)]
                    if len(found) >= number:
                        return found[number - 1]
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"waited for {'/'.join(kinds)} {number} {fields}; recorded: {self.entries}") from None


def _fits(context: Any, fields: dict[str, object]) -> bool:
    return all(getattr(context, name) == value for name, value in fields.items())


class Room:
    """A subscription with its event log."""

    def __init__(self, peer: Peer, channel: str, **options: Any) -> None:
        self.peer = peer
        self.channel = channel
        self.event_log = EventLog()
        self.subscription = peer.client.new_subscription(channel, events=self.event_log, **options)

    async def publish(self, value: object) -> None:
        await self.subscription.publish(self.peer.encode(value))

    def published(self) -> list[Any]:
        """The values of all publications so far."""
        return [self.peer.decode(context.pub.data) for context in self.event_log.all("publication")]

    async def wait_publications(self, *values: object) -> None:
        """Waits for as many publications as `values`. They must be equal to `values`, in this order."""
        await self.event_log.wait("publication", number=len(values))
        assert self.published() == list(values), self.published()


class Peer:
    """An SDK client with its event log."""

    def __init__(self, port: int, protobuf: bool, **options: Any) -> None:
        self.event_log = EventLog()
        self._protobuf = protobuf
        self.client = centrifuge.Client(
            f"ws://127.0.0.1:{port}/connection/websocket",
            events=self.event_log,
            use_protobuf=protobuf,
            min_reconnect_delay=0.05,
            max_reconnect_delay=0.2,
            **options,
        )

    def encode(self, value: object) -> object:
        """A payload as the codec wants it."""
        return json.dumps(value).encode() if self._protobuf else value

    def decode(self, payload: Any) -> Any:
        return json.loads(payload) if isinstance(payload, bytes) else payload

    @property
    def id(self) -> str:
        return str(self.client.client_id)

    async def connect(self) -> Peer:
        """Returns once it is connected."""
        await self.client.connect()
        await self.event_log.wait("connected")
        return self

    def room(self, channel: str, **options: Any) -> Room:
        return Room(self, channel, **options)

    async def subscribe(self, channel: str, **options: Any) -> Room:
        """Returns once it is subscribed."""
        room = Room(self, channel, **options)
        await room.subscription.subscribe()
        await room.event_log.wait("subscribed")
        return room

    async def disconnect(self) -> None:
        await self.client.disconnect()

    async def wait_lost(self, code: int) -> Any:
        """The event that tells why the connection ended. (Before 0.6 it was `disconnected` in every case.)"""
        return await self.event_log.wait("connecting", "disconnected", code=code)

    async def wait_refused(self, code: int) -> Any:
        """The event of an end for good; nothing may have been tried after it."""
        context = await self.event_log.wait("disconnected", code=code)
        assert self.client.state == centrifuge.ClientState.DISCONNECTED
        return context

    async def frame(self, *commands: dict[str, Any]) -> list[dict[str, Any]]:
        """Commands in one frame through the SDK's own connection, and their replies."""
        client = self.client
        numbered = [{"id": client._next_command_id(), **command} for command in commands]
        futures = [client._register_future(command["id"], WAIT_DEADLINE_S) for command in numbered]
        await client._send_commands(numbered)
        return list(await asyncio.gather(*futures))


async def refusal(call: Awaitable[object]) -> int:
    """The error code of the server's refusal. Raises AssertionError if it does not."""
    try:
        await call
    except centrifuge.ReplyError as error:
        return int(error.code)
    raise AssertionError("the server accepted it")
