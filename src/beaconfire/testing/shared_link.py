"""The link between one node and the shared store: its attachments, and what happens when the link is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

from beaconfire.base.errors import EngineUnavailable
from beaconfire.engines.port import BrokerEvents, ControlHandler, EngineState
from beaconfire.testing.lanes import Lanes

Lane = tuple["SharedLink", str, str]
"""The receiver, "channel" or "control", and the name of the channel or the uid of the sender."""


class SharedLink:
    """One node's link. `attached` are the channels whose announcements the store puts on their way to this node."""

    def __init__(self, network: Lanes[Lane]) -> None:
        self.attached: set[str] = set()
        self.events: BrokerEvents | None = None
        self.uid = ""
        self.handler: ControlHandler | None = None
        """The uid and the handler of the control bus while it is started."""
        self._network = network
        self._lost: set[str] = set()
        """The channels that cannot be attached, although the link is up."""
        self._up = True
        self._noticed = True
        """Whether the engine knows that the link is down."""
        self._reset = asyncio.Event()
        """Set while no call hangs."""

    # For tests

    def lose(self, channels: Sequence[str] | None = None) -> None:
        """The link is down for these channels (None: for everything).

        Announcements on their way are dropped, and the node is told. Without `channels`, control messages on their way
        are dropped as well, calls fail with EngineUnavailable, and the node is not live for other nodes.
        """
        self._drop(channels)
        if channels is None:
            self._up = False
            self._notice()
        if self.events is not None:
            self.events.on_link_down(channels)

    def lose_silently(self) -> None:
        """The link is down, but nobody notices: nothing arrives, and calls hang until `restore`."""
        self._drop(None)
        self._up = self._noticed = False
        self._reset.clear()

    def restore(self, channels: Sequence[str] | None = None) -> None:
        """The link is up again. The node is told and must attach its channels again.

        After `lose_silently` the node is also told that the link was down, and calls that hang fail.
        """
        if not self._noticed:
            self._notice()
            if self.events is not None:
                self.events.on_link_down(None)
        if channels is None:
            self._up = True
            self._lost.clear()
        else:
            self._lost.difference_update(channels)
        if self.events is not None:
            self.events.on_link_up(channels)

    def state(self) -> EngineState:
        """Down while the link is down and the engine knows this."""
        if self._up or not self._noticed:
            return EngineState(True)
        return EngineState(False, "the link to the shared store is lost")

    # For the engine

    @property
    def live(self) -> bool:
        """Whether other nodes can send to this node."""
        return self._up and self.handler is not None

    async def pass_call(self, call: str, channels: Iterable[str] = ()) -> None:
        """Returns at once if the store can be asked. Raises EngineUnavailable if the link is down, or for one of the
        channels, which are those that the call attaches."""
        if not self._noticed:
            await self._reset.wait()
            raise EngineUnavailable(f"{call}: the link to the shared store was reset")
        if not self._up or not self._lost.isdisjoint(channels):
            raise EngineUnavailable(f"{call}: the link to the shared store is lost")

    def announce(self, channel: str, announcement: Callable[[BrokerEvents], None]) -> None:
        """Puts an announcement on its way. It is dropped if the link is lost before its arrival."""
        self._network.add((self, "channel", channel), lambda: self._arrive(announcement))

    def deliver(self, sender: str, arrive: Callable[[ControlHandler], None]) -> None:
        """Puts a control message on its way."""
        self._network.add((self, "control", sender), lambda: self._arrive_control(arrive))

    def drop(self, kind: str) -> None:
        """Drops everything of this kind, "channel" or "control", that is on its way to this node."""
        self._network.drop(lambda lane: lane[0] is self and lane[1] == kind)

    def _notice(self) -> None:
        self._noticed = True
        self._reset.set()

    def _drop(self, channels: Sequence[str] | None) -> None:
        if channels is None:
            self.attached.clear()
            self.drop("channel")
            self.drop("control")
        else:
            self.attached.difference_update(channels)
            self._lost.update(channels)
            lost = set(channels)
            self._network.drop(lambda lane: lane[0] is self and lane[1] == "channel" and lane[2] in lost)

    def _arrive(self, announcement: Callable[[BrokerEvents], None]) -> None:
        assert self.events is not None, "stop drops what is on its way"
        announcement(self.events)

    def _arrive_control(self, arrive: Callable[[ControlHandler], None]) -> None:
        assert self.handler is not None, "stop drops what is on its way"
        arrive(self.handler)
