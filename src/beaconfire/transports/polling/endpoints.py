"""Long polling, for clients without any other transport: a poll waits for news, and another request sends commands.

The server keeps no sessions between requests. Each request contains the client's credentials and positions, and may go
to any node. Two concurrent requests do not affect each other.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from beaconfire.base.errors import TOO_MANY_REQUESTS
from beaconfire.base.request_body import ClientDisconnectedError
from beaconfire.protocols.json_payload import NotJSONError, decode_json
from beaconfire.transports.asgi_scope import read_handshake
from beaconfire.transports.endpoint_table import POLL
from beaconfire.transports.polling.commands_transport import CONNECT_REF, CommandsTransport, OpenCommands
from beaconfire.transports.polling.poll_transport import OpenPoll, PollTransport
from beaconfire.transports.polling.positions import client_positions, has_news, next_subs
from beaconfire.transports.polling.request_transport import disconnect_response
from beaconfire.transports.port import ErrorResponse
from beaconfire.transports.request_checks import RequestChecks, RequestRefused

LIMIT, RESPONSE_LIMIT = POLL.limit_settings

COMMANDS_MAX: Final = 100
"""The most commands in one request. A request with more of them is refused with 400."""

_POSITION_FIELDS: Final = ("recover", "offset", "epoch")


class ConnectFields(Struct, forbid_unknown_fields=True):
    """The fields of a connect request.

    `subs` contains, by channel, the position in the last response, and the channel's token if it needs one. `name` and
    `version` are those of the SDK. As in the connect request, null counts as missing.
    """

    token: str | None = None
    data: Raw | UnsetType = UNSET
    subs: dict[str, Raw] | None = None
    name: str | None = None
    version: str | None = None

    def connect(self) -> dict[str, object]:
        """The connect request of the session."""
        request: dict[str, object] = {
            "token": self.token or "",
            "subs": self.subs or {},
            "name": self.name or "",
            "version": self.version or "",
        }
        return request if self.data is UNSET else {**request, "data": self.data}


class PollRequest(ConnectFields, forbid_unknown_fields=True):
    """A request for news. `wait` is the time, in seconds, that the client waits for it."""

    wait: Annotated[float, Meta(ge=0)] | None = None


class CommandsRequest(ConnectFields, forbid_unknown_fields=True, kw_only=True):
    """Commands without ids. While they run, the client is subscribed to `subs`; the response has no publications."""

    commands: Annotated[list[dict[str, Raw]], Meta(min_length=1)]

    def connect(self) -> dict[str, object]:
        subs = {channel: _without_position(entry) for channel, entry in (self.subs or {}).items()}
        return {**super().connect(), "subs": subs}


def _without_position(entry: Raw) -> Raw | dict[str, Raw]:
    """An entry of `subs` without recovery. The session itself refuses an entry that is not an object."""
    try:
        fields = _read_fields(entry)
    except msgspec.DecodeError:
        return entry
    return {name: value for name, value in fields.items() if name not in _POSITION_FIELDS}


T = TypeVar("T")
Handler = Callable[[Request], Awaitable[Response]]

_read_poll_request: Final = msgspec.json.Decoder(PollRequest).decode
_read_commands_request: Final = msgspec.json.Decoder(CommandsRequest).decode
_read_fields: Final = msgspec.json.Decoder(dict[str, Raw]).decode
_encode: Final = msgspec.json.Encoder().encode


class Poll:
    """`POST /connection/poll`: responds as soon as there is news for the client, or after the wait."""

    def __init__(
        self, checks: RequestChecks, body_max: int, response_max: int, wait_max_s: float, open_session: OpenPoll
    ) -> None:
        """`open_session` opens unidirectional sessions on a `PollWire`.

        Connecting may take `wait_max_s` seconds as well. A response of `response_max` bytes is sent at once; the next
        poll gets the rest.
        """
        self._checks = checks
        self._body_max = body_max
        self._response_max = response_max
        self._wait_max_s = wait_max_s
        self._open_session = open_session

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _serve(self._checks, self._respond, scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        poll_request = await _read(self._checks, request, self._body_max, _read_poll_request)
        wait_s = self._wait_max_s if poll_request.wait is None else min(poll_request.wait, self._wait_max_s)
        positions = client_positions(poll_request.subs or {})
        poll_transport = PollTransport(self._response_max, lambda start: has_news(start, positions))
        outcome = await poll_transport.gather(
            self._open_session,
            read_handshake(request.scope, poll_transport.name),
            request.receive,
            _encode(poll_request.connect()),
            self._wait_max_s,
            wait_s,
        )
        if outcome is None:
            raise ClientDisconnectedError
        headers = {**self._checks.cors(request), "Cache-Control": "no-store"}
        if outcome.end is not None:
            return disconnect_response(*outcome.end, headers)
        if outcome.start is None:
            raise RequestRefused(
                ErrorResponse(503, "bad", "connecting took too long: send the request again, nothing has changed")
            )
        subs = _encode(next_subs(outcome.start, outcome.positions))
        body = b'{"messages":[%b],"subs":%b}' % (b",".join(outcome.messages), subs)
        return Response(body, 200, headers, "application/json")


class PollCommands:
    """`POST /connection/commands`: runs the commands in order. The response contains the reply to each.

    If the response is full, the remaining commands are not run, and each gets error 111 as its reply.
    """

    def __init__(
        self, checks: RequestChecks, body_max: int, response_max: int, timeout_s: float, open_session: OpenCommands
    ) -> None:
        """`open_session` opens sessions of the bidirectional protocol on a `PollWire`.

        `response_max` is in bytes. All commands together may take `timeout_s` seconds.
        """
        self._checks = checks
        self._body_max = body_max
        self._response_max = response_max
        self._timeout_s = timeout_s
        self._open_session = open_session

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _serve(self._checks, self._respond, scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        commands_request = await _read(self._checks, request, self._body_max, _read_commands_request)
        if len(commands_request.commands) > COMMANDS_MAX:
            text = f"the body: expected at most {COMMANDS_MAX} commands, got {len(commands_request.commands)}"
            raise self._checks.limit_reached("poll_commands_max", ErrorResponse(400, "bad", text))
        commands = [{"id": CONNECT_REF, "connect": commands_request.connect()}]
        numbers = range(CONNECT_REF + 1, CONNECT_REF + 1 + len(commands_request.commands))
        commands += [
            {**command, "id": number} for number, command in zip(numbers, commands_request.commands, strict=True)
        ]
        commands_transport = CommandsTransport(self._response_max)
        outcome = await commands_transport.exchange(
            self._open_session,
            read_handshake(request.scope, commands_transport.name),
            request.receive,
            list(map(_encode, commands)),
            self._timeout_s,
        )
        if outcome is None:
            raise ClientDisconnectedError
        headers = self._checks.cors(request)
        if outcome.refusal is not None:
            return Response(outcome.refusal, 401, headers, "application/json")
        if outcome.end is not None:
            return disconnect_response(*outcome.end, headers)
        replies = list(outcome.replies)
        not_run = numbers[outcome.commands_run :]
        if not_run and outcome.is_full:
            self._checks.count(RESPONSE_LIMIT)
            replies += [_encode(_not_run(number)) for number in not_run]
        elif not_run:
            text = "the commands took too long: not all of them have a reply, and some may have been run"
            raise RequestRefused(ErrorResponse(503, "bad", text))
        return Response(b'{"replies":[%b]}' % b",".join(replies), 200, headers, "application/json")


def _not_run(number: int) -> dict[str, object]:
    """The reply to a command that was not run because the response is full."""
    code = TOO_MANY_REQUESTS
    message = f"{code.message}: not run, because the response is full ({RESPONSE_LIMIT}): send this command again"
    return {"id": number, "error": {"code": code.code, "message": message, "temporary": True}}


async def _serve(checks: RequestChecks, respond: Handler, scope: Scope, receive: Receive, send: Send) -> None:
    request = Request(scope, receive)
    try:
        if request.method == "OPTIONS":
            response = checks.preflight(request, POLL.methods)
        else:
            response = await respond(request)
    except RequestRefused as refused:
        response = checks.refuse(request, refused.response)
    except ClientDisconnectedError:
        return
    await response(scope, receive, send)


async def _read(checks: RequestChecks, request: Request, body_max: int, decode: Callable[[bytes], T]) -> T:
    """Checks the request and decodes its body. Raises RequestRefused and ClientDisconnectedError."""
    checks.check(request, POLL.methods)
    body = await checks.body(request, body_max, LIMIT)
    try:
        decoded = decode_json(decode, body or b"{}")
    except NotJSONError as error:
        raise RequestRefused(ErrorResponse(400, "bad", f"the body: {error}")) from None
    error_response = checks.admit()
    if error_response is not None:
        raise RequestRefused(error_response)
    return decoded
