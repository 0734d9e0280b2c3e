"""The control bus of a worker process."""

from __future__ import annotations

from collections.abc import Sequence

from beaconfire.base.errors import EngineUnavailable
from beaconfire.engines.port import ControlHandler
from beaconfire.engines.remote.link import Link
from beaconfire.engines.wire.messages import (
    Answers,
    Broadcast,
    Control,
    Done,
    Names,
    ReadNodes,
    Send,
    Sent,
    StartControl,
    StopControl,
    Survey,
    SurveyAnswer,
    SurveyQuestion,
    encode,
)


class RemoteControlBus:
    """Implements `ControlBus`. The hub passes all messages on, also those of this node to itself."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._handler: ControlHandler | None = None
        link.handle(Control, self._on_control)
        link.handle(SurveyQuestion, self._on_survey)

    async def start(self, uid: str, handler: ControlHandler) -> None:
        """See `ControlBus.start`. After a lost link the node is live again as soon as the link is up. Raises
        RuntimeError if the bus is started."""
        if self._handler is not None:
            raise RuntimeError("the control bus is already started")
        self._handler = handler
        self._link.node = uid
        try:
            await self._link.send(StartControl(0, uid), Done)
        except BaseException:
            self._handler = None
            self._link.node = ""
            raise

    async def stop(self) -> None:
        """See `ControlBus.stop`. If the link is down, the node is not live anyway."""
        if self._handler is None:
            return
        self._handler = None
        self._link.node = ""
        try:
            await self._link.send(StopControl(0), Done)
        except EngineUnavailable:
            pass

    async def broadcast(self, message: bytes) -> None:
        """See `ControlBus.broadcast`. Raises RuntimeError unless started."""
        self._started()
        await self._link.send(Broadcast(0, message), Done)

    async def send(self, node: str, message: bytes) -> bool:
        """See `ControlBus.send`. Raises RuntimeError unless started."""
        self._started()
        return (await self._link.send(Send(0, node, message), Sent)).is_live

    async def survey(self, request: bytes, timeout_s: float) -> list[bytes]:
        """See `ControlBus.survey`. Returns as soon as all nodes have answered. Raises RuntimeError unless started."""
        handler = self._started()
        asked = self._link.send(Survey(0, request, timeout_s), Answers)
        own = handler.on_survey(request)
        return [own, *(await asked).answers]

    async def nodes(self) -> Sequence[str]:
        """See `ControlBus.nodes`. Raises RuntimeError unless started."""
        self._started()
        return (await self._link.send(ReadNodes(0), Names)).names

    def _started(self) -> ControlHandler:
        if self._handler is None:
            raise RuntimeError("the remote control bus is not started")
        return self._handler

    # From the hub

    def _on_control(self, message: Control) -> None:
        if self._handler is not None:
            self._handler.on_control(message.message)

    def _on_survey(self, message: SurveyQuestion) -> None:
        if self._handler is not None:
            answer = self._handler.on_survey(message.request)
            self._link.tell(encode(SurveyAnswer(message.survey, answer)))
