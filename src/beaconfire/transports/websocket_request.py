"""The request for a WebSocket, as the endpoints see it, under our own server and under any ASGI server."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qs


class WebSocketRequest:
    """The parts of a request on which an endpoint decides.

    - `path` is percent-decoded, `query` is not.
    - `headers` maps lower-case names to values: see `model.handshake.decode_headers`.
    - `subprotocols` are the offered ones in order of preference. An empty header offers none.
    """

    __slots__ = ("_parameters", "headers", "path", "query", "subprotocols")

    def __init__(self, path: str, query: str, headers: Mapping[str, str]) -> None:
        self.path = path
        self.query = query
        self.headers = headers
        self.subprotocols = split_tokens(headers.get("sec-websocket-protocol", ""))
        self._parameters: dict[str, list[str]] | None = None

    @property
    def extensions(self) -> str:
        """The Sec-WebSocket-Extensions header: usually one offer, often none."""
        return self.headers.get("sec-websocket-extensions", "")

    @property
    def origin(self) -> str | None:
        return self.headers.get("origin")

    def parameter(self, name: str) -> str:
        """The first value of a query parameter; empty if it is missing, or if there are over 100 parameters."""
        if self._parameters is None:
            try:
                self._parameters = parse_qs(self.query, max_num_fields=100) if self.query else {}
            except ValueError:  # too many parameters
                self._parameters = {}
        values = self._parameters.get(name)
        return values[0] if values else ""


def split_tokens(value: str) -> tuple[str, ...]:
    """The tokens of a comma-separated header."""
    if not value:
        return ()
    return tuple(token for part in value.split(",") if (token := part.strip(" \t")))
