"""Long polling, for clients without any other transport: a poll waits for news, and another request sends commands.

The server keeps no sessions between requests. Each request contains the client's credentials and positions, and may go
to any node. Two concurrent requests do not affect each other.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
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
from beaconfire.transports.polling.poll_transport import PollOutcome, PollTransport, disconnect_response
from beaconfire.transports.port import ErrorResponse, OpenSession
from beaconfire.transports.request_checks import RequestChecks, RequestRefused

LIMIT, RESPONSE_LIMIT = POLL.limit_settings

COMMANDS_MAX: Final = 100
"""The most commands in one request. A request with more of them is refused with 400."""

_PING: Final = b"{}"
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


class _SubscribeResult(Struct, frozen=True):
    recoverable: bool = False
    recovered: bool = False
    publications: Sequence[Raw] = ()
    offset: int = 0
    epoch: str = ""


class _ClientPosition(Struct, frozen=True):
    """The client's position in a channel, from its request."""

    recover: bool = False
    offset: int = 0
    epoch: str = ""


class _ConnectResult(Struct, frozen=True):
    subs: dict[str, _SubscribeResult] = {}


class _ConnectPush(Struct, frozen=True):
    """The first message of a unidirectional session. Only the fields that a poll reads."""

    connect: _ConnectResult = _ConnectResult()


T = TypeVar("T")
Handler = Callable[[Request], Awaitable[Response]]

_read_poll_request: Final = msgspec.json.Decoder(PollRequest).decode
_read_commands_request: Final = msgspec.json.Decoder(CommandsRequest).decode
_read_connect_push: Final = msgspec.json.Decoder(_ConnectPush).decode
_read_fields: Final = msgspec.json.Decoder(dict[str, Raw]).decode
_read_position: Final = msgspec.json.Decoder(_ClientPosition).decode
_encode: Final = msgspec.json.Encoder().encode


class Poll:
    """`POST /connection/poll`: responds as soon as there is news for the client, or after the wait."""

    def __init__(
        self, checks: RequestChecks, body_max: int, response_max: int, wait_max_s: float, open_session: OpenSession
    ) -> None:
        """`open_session` opens unidirectional sessions that write one line for each message.

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
        positions = _client_positions(poll_request.subs or {})
        outcome = await PollTransport("poll", self._response_max).gather(
            self._open_session,
            read_handshake(request.scope, "poll"),
            request.receive,
            _encode(poll_request.connect()),
            self._wait_max_s,
            wait_s,
            lambda messages: _has_news(messages, positions),
        )
        if outcome is None:
            raise ClientDisconnectedError
        headers = {**self._checks.cors(request), "Cache-Control": "no-store"}
        if outcome.end is not None:
            return disconnect_response(*outcome.end, headers)
        if not outcome.messages:
            raise RequestRefused(
                ErrorResponse(503, "bad", "connecting took too long: send the request again, nothing has changed")
            )
        messages = b",".join([message for message in outcome.messages if message != _PING])
        body = b'{"messages":[%b],"subs":%b}' % (messages, _encode(_next_subs(outcome)))
        return Response(body, 200, headers, "application/json")


class PollCommands:
    """`POST /connection/commands`: runs the commands in order. The response contains the reply to each.

    If the response is full, the remaining commands are not run, and each gets error 111 as its reply.
    """

    def __init__(
        self, checks: RequestChecks, body_max: int, response_max: int, timeout_s: float, open_session: OpenSession
    ) -> None:
        """`open_session` opens sessions of the bidirectional protocol that write one line for each message.

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
        commands = [{"id": 1, "connect": commands_request.connect()}]
        commands += [{**command, "id": number} for number, command in enumerate(commands_request.commands, start=2)]
        poll_transport = PollTransport("poll", self._response_max)
        outcome = await poll_transport.exchange(
            self._open_session,
            read_handshake(request.scope, poll_transport.name),
            request.receive,
            list(map(_encode, commands)),
            self._timeout_s,
        )
        if outcome is None:
            raise ClientDisconnectedError
        replies = list(outcome.messages)
        headers = self._checks.cors(request)
        if replies and b'"error":' in replies[0] and b'"connect":' not in replies[0]:
            return Response(replies[0], 401, headers, "application/json")
        if outcome.end is not None:
            return disconnect_response(*outcome.end, headers)
        if len(replies) < len(commands) and poll_transport.is_full:
            self._checks.count(RESPONSE_LIMIT)
            replies += [_encode(_not_run(number)) for number in range(len(replies) + 1, len(commands) + 1)]
        if len(replies) < len(commands):
            text = "the commands took too long: not all of them have a reply, and some may have been run"
            raise RequestRefused(ErrorResponse(503, "bad", text))
        return Response(b'{"replies":[%b]}' % b",".join(replies[1:]), 200, headers, "application/json")


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


def _client_positions(subs: Mapping[str, Raw]) -> dict[str, _ClientPosition]:
    """The client's position by channel, for the entries of `subs` that contain a valid one.

    They are parsed before the poll, because `_has_news` runs during fan-out, where a decode error would affect other
    clients. The session accepts more forms (null counts as missing); such an entry has no position here.
    """
    positions = {}
    for channel, entry in subs.items():
        try:
            positions[channel] = _read_position(entry)
        except msgspec.DecodeError:
            continue
    return positions


def _has_news(messages: Sequence[bytes], positions: Mapping[str, _ClientPosition]) -> bool:
    """Whether the messages contain anything that the client did not have when it sent the poll, except pings.

    A channel that cannot be recovered has no position. In such a channel, only publications during the poll are news.
    """
    if any(message != _PING for message in messages[1:]):
        return True
    subs = _read_connect_push(messages[0]).connect.subs
    return any(result.recoverable and _is_news(result, positions.get(channel)) for channel, result in subs.items())


def _is_news(result: _SubscribeResult, position: _ClientPosition | None) -> bool:
    """Whether a recoverable channel has news for a client at this position.

    A channel in cache mode without any publication reports `recovered` as false. So a subscription that was not
    recovered is news only if the client's position differs from the channel's.
    """
    if result.publications or position is None:
        return True
    return not (result.recovered or position == _ClientPosition(True, result.offset, result.epoch))


def _next_subs(outcome: PollOutcome) -> dict[str, object]:
    """The `subs` for the next request: every channel, with its position if the channel has one."""
    subs: dict[str, object] = {}
    for message in outcome.messages[:1]:
        subs = {channel: {} for channel in _read_connect_push(message).connect.subs}
    for channel, (offset, epoch) in outcome.positions.items():
        subs[channel] = {"recover": True, "offset": offset, "epoch": epoch}
    return subs
