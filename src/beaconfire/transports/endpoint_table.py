"""The table of endpoints: one row for each path where clients connect, listen or send commands.

`server.endpoints` makes a WebSocket endpoint or an ASGI route from each row. The start-up announcement, the names of
limits in metrics, the path labels of HTTP metrics, the check of `plain.path`, and `docs/reference/endpoints.md` come
from the same rows.
"""

from __future__ import annotations

from typing import Final, Literal

from msgspec import Struct

from beaconfire.transports.traits import Pings, SessionTraits


class EndpointRow(Struct, frozen=True, kw_only=True):
    """One endpoint.

    `path` is empty if a setting holds the path: `<section>.path`. `section` is the table of its settings; an endpoint
    is served if `<section>.enabled` is true or does not exist. The client of a unidirectional endpoint sends nothing
    after its connect request. `limits` are settings of that table that bound what one
    client may use. `announced` is false for endpoints that are used together with another one.
    """

    name: str
    path: str
    section: str
    scheme: Literal["ws", "http"]
    methods: tuple[str, ...]
    protocol: str
    summary: str
    traits: SessionTraits = SessionTraits()
    is_unidirectional: bool = False
    limits: tuple[str, ...] = ()
    announced: bool = True

    @property
    def limit_settings(self) -> tuple[str, ...]:
        """The full names of the settings in `limits`."""
        return tuple(f"{self.section}.{limit}" for limit in self.limits)


_NATIVE: Final = "Centrifuge (JSON, Protobuf)"
_JSON: Final = "Centrifuge (JSON)"
_ONE_WAY: Final = "Centrifuge, unidirectional (JSON)"
_STREAM_LIMITS: Final = ("max_request_body_size", "close_timeout")

WEBSOCKET: Final = EndpointRow(
    name="websocket",
    path="/connection/websocket",
    section="websocket",
    scheme="ws",
    methods=("GET",),
    protocol=_NATIVE,
    summary="Bidirectional connection over WebSocket.",
    limits=("message_size_limit", "write_timeout", "close_timeout"),
)
HTTP_STREAM: Final = EndpointRow(
    name="http_stream",
    path="/connection/http_stream",
    section="http_stream",
    scheme="http",
    methods=("POST",),
    protocol=_NATIVE,
    summary="Replies and pushes in one response that does not end. Commands come by emulation.",
    limits=_STREAM_LIMITS,
)
SSE: Final = EndpointRow(
    name="sse",
    path="/connection/sse",
    section="sse",
    scheme="http",
    methods=("GET", "POST"),
    protocol=_JSON,
    summary="Replies and pushes as Server-Sent Events. Commands come by emulation.",
    limits=_STREAM_LIMITS,
)
UNI_WEBSOCKET: Final = EndpointRow(
    name="uni_websocket",
    path="/connection/uni_websocket",
    section="uni_websocket",
    scheme="ws",
    methods=("GET",),
    protocol=_ONE_WAY,
    summary="Pushes over WebSocket, for clients that only listen.",
    traits=SessionTraits(Pings.TRANSPORT),
    is_unidirectional=True,
)
UNI_HTTP_STREAM: Final = EndpointRow(
    name="uni_http_stream",
    path="/connection/uni_http_stream",
    section="uni_http_stream",
    scheme="http",
    methods=("POST",),
    protocol=_ONE_WAY,
    summary="Pushes in one response that does not end, for clients that only listen.",
    traits=SessionTraits(Pings.UNANSWERED),
    is_unidirectional=True,
    limits=_STREAM_LIMITS,
)
UNI_SSE: Final = EndpointRow(
    name="uni_sse",
    path="/connection/uni_sse",
    section="uni_sse",
    scheme="http",
    methods=("GET", "POST"),
    protocol=_ONE_WAY,
    summary="Pushes as Server-Sent Events, for clients that only listen.",
    traits=SessionTraits(Pings.UNANSWERED),
    is_unidirectional=True,
    limits=_STREAM_LIMITS,
)
EMULATION: Final = EndpointRow(
    name="emulation",
    path="/emulation",
    section="emulation",
    scheme="http",
    methods=("POST",),
    protocol=_NATIVE,
    summary="Commands for a session of http_stream or sse.",
    limits=("max_request_body_size",),
    announced=False,
)
POLL: Final = EndpointRow(
    name="poll",
    path="/connection/poll",
    section="poll",
    scheme="http",
    methods=("POST",),
    protocol=_ONE_WAY,
    summary="Long polling: one response with the publications after given positions.",
    traits=SessionTraits(Pings.UNANSWERED, per_request=True),
    is_unidirectional=True,
    limits=("max_request_body_size", "max_response_size"),
)
COMMANDS: Final = EndpointRow(
    name="commands",
    path="/connection/commands",
    section="poll",
    scheme="http",
    methods=("POST",),
    protocol=_JSON,
    summary="Commands of clients that poll, with their replies in the response.",
    traits=SessionTraits(Pings.UNANSWERED, per_request=True),
    announced=False,
)
PLAIN: Final = EndpointRow(
    name="plain",
    path="",
    section="plain",
    scheme="ws",
    methods=("GET",),
    protocol="plain",
    summary="The plain protocol: JSON messages for clients without an SDK.",
    traits=SessionTraits(Pings.TRANSPORT, connect_is_final=False),
)

ENDPOINTS: Final = (
    WEBSOCKET,
    HTTP_STREAM,
    SSE,
    UNI_WEBSOCKET,
    UNI_HTTP_STREAM,
    UNI_SSE,
    EMULATION,
    POLL,
    COMMANDS,
    PLAIN,
)
"""All endpoints, in the order in which they are announced and documented."""

ENDPOINT_LIMITS: Final = tuple(limit for row in ENDPOINTS for limit in row.limit_settings)
"""The settings that are limits of endpoints."""
