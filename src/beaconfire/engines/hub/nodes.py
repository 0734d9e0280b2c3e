"""The control bus of the hub: the nodes of the workers, and the surveys that are on their way.

The control bus of the inner engine is not used, because all nodes are connected to the hub. A node is live from
`StartControl` (or from `Hello`, after a lost link) to `StopControl` or the end of its connection.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Final

from beaconfire.base.timers import Timer, Timers
from beaconfire.engines.hub.peer import Peer
from beaconfire.engines.wire.messages import (
    Answers,
    Broadcast,
    Control,
    ControlRequest,
    Done,
    Message,
    Names,
    ReadNodes,
    Reply,
    Send,
    Sent,
    StartControl,
    StopControl,
    Survey,
    SurveyAnswer,
    SurveyQuestion,
    encode,
)


class _RunningSurvey:
    """A survey of the node of `asker`. `waiting` are the nodes whose answers are missing."""

    def __init__(self, asker: Peer, request_id: int, waiting: dict[Peer, None]) -> None:
        self.asker = asker
        self.request_id = request_id
        self.waiting = waiting
        self.answers: list[bytes] = []
        self.timer: Timer | None = None


class HubNodes:
    """Handles the requests of the control bus. No method suspends, so messages stay in the order of their requests."""

    def __init__(self, timers: Timers) -> None:
        self._timers = timers
        self._nodes: dict[str, Peer] = {}
        self._surveys: dict[int, _RunningSurvey] = {}
        self._survey_ids = itertools.count(1)

    def handle(self, peer: Peer, request: ControlRequest) -> None:
        """Replies to the request, to a survey later."""
        reply = _HANDLERS[type(request)](self, peer, request)
        if reply is not None:
            peer.reply(reply)

    def register(self, peer: Peer, node: str) -> None:
        """The node of this connection is live under this uid. A uid belongs to one node, so another connection with the
        same uid is an earlier one of the same node, whose end the hub has not noticed yet. It is closed."""
        if peer.node != node:
            self.remove(peer)
        earlier = self._nodes.get(node)
        if earlier is not None and earlier is not peer:
            self.remove(earlier)
            earlier.close(f"the node {node} has a new connection")
        self._nodes[node] = peer
        peer.node = node

    def remove(self, peer: Peer) -> None:
        """The node of this connection is not live any more. Idempotent."""
        if self._nodes.get(peer.node) is peer:
            del self._nodes[peer.node]
        peer.node = ""
        for number, survey in list(self._surveys.items()):
            if survey.asker is peer:
                self._finish(number, survey)
            else:
                self._answered(number, survey, peer)

    def on_answer(self, peer: Peer, message: SurveyAnswer) -> None:
        """An answer that comes after the time of its survey is dropped."""
        survey = self._surveys.get(message.survey)
        if survey is not None and peer in survey.waiting:
            survey.answers.append(message.answer)
            self._answered(message.survey, survey, peer)

    def close(self) -> None:
        """Ends all surveys."""
        for survey in self._surveys.values():
            if survey.timer is not None:
                survey.timer.cancel()
        self._surveys.clear()

    # One method for each request

    def _start(self, peer: Peer, request: StartControl) -> Reply:
        self.register(peer, request.node)
        return Done(request.id)

    def _stop(self, peer: Peer, request: StopControl) -> Reply:
        self.remove(peer)
        return Done(request.id)

    def _broadcast(self, peer: Peer, request: Broadcast) -> Reply:
        frame = encode(Control(request.message))
        for each in self._nodes.values():
            each.write(frame)
        return Done(request.id)

    def _send(self, peer: Peer, request: Send) -> Reply:
        receiver = self._nodes.get(request.node)
        if receiver is None:
            return Sent(request.id, False)
        receiver.write(encode(Control(request.message)))
        return Sent(request.id, True)

    def _list(self, peer: Peer, request: ReadNodes) -> Reply:
        return Names(request.id, list(self._nodes))

    def _survey(self, peer: Peer, request: Survey) -> Reply | None:
        others = {each: None for each in self._nodes.values() if each is not peer}
        if not others:
            return Answers(request.id, [])
        number = next(self._survey_ids)
        survey = self._surveys[number] = _RunningSurvey(peer, request.id, others)
        survey.timer = self._timers.after(request.timeout_s, lambda: self._finish(number, survey))
        frame = encode(SurveyQuestion(number, request.request))
        for each in others:
            each.write(frame)
        return None

    def _answered(self, number: int, survey: _RunningSurvey, peer: Peer) -> None:
        survey.waiting.pop(peer, None)
        if not survey.waiting:
            self._finish(number, survey)

    def _finish(self, number: int, survey: _RunningSurvey) -> None:
        if self._surveys.pop(number, None) is not None:
            if survey.timer is not None:
                survey.timer.cancel()
            survey.asker.reply(Answers(survey.request_id, survey.answers))


# Any: each function takes the one type that it is listed for.
_HANDLERS: Final[Mapping[type[Message], Callable[..., Reply | None]]] = {
    StartControl: HubNodes._start,
    StopControl: HubNodes._stop,
    Broadcast: HubNodes._broadcast,
    Send: HubNodes._send,
    Survey: HubNodes._survey,
    ReadNodes: HubNodes._list,
}
