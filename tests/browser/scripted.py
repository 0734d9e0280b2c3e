"""A server that says exactly what a test wants, to a page that thinks it is a real one."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from playwright.sync_api import Page, WebSocketRoute

Message = dict[str, Any]
Answer = Callable[[Message], Message | None]
"""Given the request, what the reply holds beside its id; None leaves it unanswered."""

CONNECTED: Message = {"connect": {"client": "c", "version": "scripted", "ping": 25, "pong": True}}


class Scripted:
    """Answers commands by their kind. `then` are messages that go out in the same frame, after the replies."""

    def __init__(self, page: Page) -> None:
        self.answers: dict[str, Answer] = {"connect": lambda request: CONNECTED}
        self.heard: list[tuple[str, Message]] = []
        """Kinds and requests, in order; ("pong", {}) for a pong."""
        self.then: list[Message] = []
        self.sockets: list[WebSocketRoute] = []
        page.route_web_socket("**/connection/websocket", self._accept)

    def requests(self, kind: str) -> list[Message]:
        return [request for known, request in self.heard if known == kind]

    def push(self, *messages: Message) -> None:
        """All in one frame, to the newest connection."""
        self.sockets[-1].send("\n".join(map(json.dumps, messages)))

    def _accept(self, socket: WebSocketRoute) -> None:
        self.sockets.append(socket)
        socket.on_message(lambda frame: self._hear(str(frame)))

    def _hear(self, frame: str) -> None:
        replies = [reply for line in frame.split("\n") if (reply := self._answer(json.loads(line))) is not None]
        if replies:
            then, self.then = self.then, []
            self.push(*replies, *then)

    def _answer(self, command: Message) -> Message | None:
        number = command.pop("id", None)
        kind, request = next(iter(command.items()), ("pong", {}))
        self.heard.append((kind, request))
        answer = self.answers.get(kind, _nothing_to_add(kind))(request) if number else None
        return None if answer is None else {"id": number, **answer}


def _nothing_to_add(kind: str) -> Answer:
    return lambda request: {kind: {}}


def publication(channel: str, offset: int) -> Message:
    return {"push": {"channel": channel, "pub": {"data": offset, "offset": offset}}}
