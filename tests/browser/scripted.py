"""A scripted server for pages."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from playwright.sync_api import Page, WebSocketRoute

Message = dict[str, Any]
Answer = Callable[[Message], Message | None]
"""Returns the fields of the reply to a request, without the id; None sends no reply."""

CONNECTED: Message = {"connect": {"client": "c", "version": "scripted", "ping": 25, "pong": True}}


class Scripted:
    """Answers commands by their kind. `then` are messages that are sent in the same frame, after the replies."""

    def __init__(self, page: Page) -> None:
        self.answers: dict[str, Answer] = {"connect": lambda request: CONNECTED}
        self.received: list[tuple[str, Message]] = []
        """Kinds and requests, in order; ("pong", {}) for a pong."""
        self.then: list[Message] = []
        self.sockets: list[WebSocketRoute] = []
        page.route_web_socket("**/connection/websocket", self._accept)

    def requests(self, kind: str) -> list[Message]:
        return [request for known, request in self.received if known == kind]

    def push(self, *messages: Message) -> None:
        """Sends all messages in one frame to the newest connection."""
        self.sockets[-1].send("\n".join(map(json.dumps, messages)))

    def _accept(self, socket: WebSocketRoute) -> None:
        self.sockets.append(socket)
        socket.on_message(lambda frame: self._receive(str(frame)))

    def _receive(self, frame: str) -> None:
        replies = [reply for line in frame.split("\n") if (reply := self._answer(json.loads(line))) is not None]
        if replies:
            then, self.then = self.then, []
            self.push(*replies, *then)

    def _answer(self, command: Message) -> Message | None:
        number = command.pop("id", None)
        kind, request = next(iter(command.items()), ("pong", {}))
        self.received.append((kind, request))
        answer = self.answers.get(kind, _empty_reply(kind))(request) if number else None
        return None if answer is None else {"id": number, **answer}


def _empty_reply(kind: str) -> Answer:
    return lambda request: {kind: {}}


def publication(channel: str, offset: int) -> Message:
    return {"push": {"channel": channel, "pub": {"data": offset, "offset": offset}}}
