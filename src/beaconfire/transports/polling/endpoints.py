"""Long polling, for clients that have nothing else: one request asks what is new since a position, another one speaks.

There are no sessions to be opened, kept or lost. Each request says who asks and where it is, and may go to any node;
two at once do not disturb each other.
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
from beaconfire.transports.polling.poll_transport import PollOutcome, PollTransport, refusal
from beaconfire.transports.port import OpenSession, Refusal
from beaconfire.transports.request_checks import RequestChecks, RequestRefused

LIMIT: Final = "poll.max_request_body_size"
RESPONSE_LIMIT: Final = "poll.max_response_size"

COMMANDS_MAX: Final = 100
"""Commands in one request; with more of them it is refused with 400."""

_PING: Final = b"{}"
_POSITION: Final = ("recover", "offset", "epoch")


class ConnectFields(Struct, forbid_unknown_fields=True):
    """Who asks: a connect request. `subs` are channels, each with its position in the last answer, and with its token
    where it needs one. `name` and `version` are the SDK's. Null counts as missing, as it does in the connect request.
    """

    token: str | None = None
    data: Raw | UnsetType = UNSET
    subs: dict[str, Raw] | None = None
    name: str | None = None
    version: str | None = None

    def connect(self) -> dict[str, object]:
        request: dict[str, object] = {
            "token": self.token or "",
            "subs": self.subs or {},
            "name": self.name or "",
            "version": self.version or "",
        }
        return request if self.data is UNSET else {**request, "data": self.data}


class PollRequest(ConnectFields, forbid_unknown_fields=True):
    """What is new? `wait` is how many seconds the client waits for anything."""

    wait: Annotated[float, Meta(ge=0)] | None = None


class CommandsRequest(ConnectFields, forbid_unknown_fields=True, kw_only=True):
    """Commands without ids. The client is in its `subs` for as long as they take; nothing of them is in the answer."""

    commands: Annotated[list[dict[str, Raw]], Meta(min_length=1)]

    def connect(self) -> dict[str, object]:
        subs = {channel: _without_position(entry) for channel, entry in (self.subs or {}).items()}
        return {**super().connect(), "subs": subs}


def _without_position(entry: Raw) -> Raw | dict[str, Raw]:
    """An entry of `subs` that asks for no recovery. One that is no object is left for the session to refuse."""
    try:
        fields = _read_fields(entry)
    except msgspec.DecodeError:
        return entry
    return {name: value for name, value in fields.items() if name not in _POSITION}


class _Sub(Struct, frozen=True):
    recoverable: bool = False
    recovered: bool = False
    publications: Sequence[Raw] = ()
    offset: int = 0
    epoch: str = ""


class _Place(Struct, frozen=True):
    """Where a client is in a channel, as it says."""

    recover: bool = False
    offset: int = 0
    epoch: str = ""


class _Connected(Struct, frozen=True):
    subs: dict[str, _Sub] = {}


class _First(Struct, frozen=True):
    """The first message of a session that only listens, as far as it matters here."""

    connect: _Connected = _Connected()


T = TypeVar("T")
Handler = Callable[[Request], Awaitable[Response]]

_read_poll_request: Final = msgspec.json.Decoder(PollRequest).decode
_read_commands_request: Final = msgspec.json.Decoder(CommandsRequest).decode
_read_first: Final = msgspec.json.Decoder(_First).decode
_read_fields: Final = msgspec.json.Decoder(dict[str, Raw]).decode
_read_place: Final = msgspec.json.Decoder(_Place).decode
_encode: Final = msgspec.json.Encoder().encode


class Poll:
    """`POST /connection/poll`: answers when there is anything that the client has not got, or when the time is over."""

    def __init__(
        self, checks: RequestChecks, body_max: int, answer_max: int, wait_max_s: float, open_session: OpenSession
    ) -> None:
        """`open_session` makes unidirectional sessions that write one line for each message. Connecting may take
        `wait_max_s` seconds as well. A response of `answer_max` bytes is sent at once; the next poll gets the rest.
        """
        self._checks = checks
        self._body_max = body_max
        self._answer_max = answer_max
        self._wait_max_s = wait_max_s
        self._open_session = open_session

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _serve(self._checks, self._answer, scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        poll_request = await _read(self._checks, request, self._body_max, _read_poll_request)
        wait_s = self._wait_max_s if poll_request.wait is None else min(poll_request.wait, self._wait_max_s)
        places = _places(poll_request.subs or {})
        outcome = await PollTransport("poll", self._answer_max).gather(
            self._open_session,
            request.receive,
            _encode(poll_request.connect()),
            self._wait_max_s,
            wait_s,
            lambda messages: _has_news(messages, places),
        )
        if outcome is None:
            raise ClientDisconnectedError
        headers = {**self._checks.cors(request), "Cache-Control": "no-store"}
        if outcome.end is not None:
            return refusal(*outcome.end, headers)
        if not outcome.messages:
            raise RequestRefused(Refusal(503, "bad", "connecting took too long: ask again, nothing has changed"))
        messages = b",".join([message for message in outcome.messages if message != _PING])
        body = b'{"messages":[%b],"subs":%b}' % (messages, _encode(_subs(outcome)))
        return Response(body, 200, headers, "application/json")


class PollCommands:
    """`POST /connection/commands`: each command is done, in order, and has its reply in the answer.

    Where the answer is full, the commands that are left are not done, and each has error 111 as its reply.
    """

    def __init__(
        self, checks: RequestChecks, body_max: int, answer_max: int, patience_s: float, open_session: OpenSession
    ) -> None:
        """`open_session` makes sessions of the ordinary protocol, on lines. `answer_max` is in bytes."""
        self._checks = checks
        self._body_max = body_max
        self._answer_max = answer_max
        self._patience_s = patience_s
        self._open_session = open_session

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _serve(self._checks, self._answer, scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        commands_request = await _read(self._checks, request, self._body_max, _read_commands_request)
        if len(commands_request.commands) > COMMANDS_MAX:
            text = f"the body: expected at most {COMMANDS_MAX} commands, got {len(commands_request.commands)}"
            raise self._checks.beyond("poll_commands_max", Refusal(400, "bad", text))
        commands = [{"id": 1, "connect": commands_request.connect()}]
        commands += [{**command, "id": number} for number, command in enumerate(commands_request.commands, start=2)]
        poll_transport = PollTransport("poll", self._answer_max)
        outcome = await poll_transport.exchange(
            self._open_session, request.receive, list(map(_encode, commands)), self._patience_s
        )
        if outcome is None:
            raise ClientDisconnectedError
        replies = list(outcome.messages)
        headers = self._checks.cors(request)
        if replies and b'"error":' in replies[0] and b'"connect":' not in replies[0]:
            return Response(replies[0], 401, headers, "application/json")
        if outcome.end is not None:
            return refusal(*outcome.end, headers)
        if len(replies) < len(commands) and poll_transport.is_full:
            self._checks.count(RESPONSE_LIMIT)
            replies += [_encode(_not_done(number)) for number in range(len(replies) + 1, len(commands) + 1)]
        if len(replies) < len(commands):
            text = "the commands took too long: not all of them have been answered, and some may have been done"
            raise RequestRefused(Refusal(503, "bad", text))
        return Response(b'{"replies":[%b]}' % b",".join(replies[1:]), 200, headers, "application/json")


def _not_done(number: int) -> dict[str, object]:
    """The reply to a command for which the answer has no room."""
    code = TOO_MANY_REQUESTS
    message = f"{code.message}: not done, because the answer is full ({RESPONSE_LIMIT}): send this command again"
    return {"id": number, "error": {"code": code.code, "message": message, "temporary": True}}


async def _serve(checks: RequestChecks, answer: Handler, scope: Scope, receive: Receive, send: Send) -> None:
    request = Request(scope, receive)
    try:
        response = checks.preflight(request, "POST, OPTIONS") if request.method == "OPTIONS" else await answer(request)
    except RequestRefused as refused:
        response = checks.refuse(request, refused.refusal)
    except ClientDisconnectedError:
        return
    await response(scope, receive, send)


async def _read(checks: RequestChecks, request: Request, body_max: int, decode: Callable[[bytes], T]) -> T:
    """What the client wants, if it may come in. Raises RequestRefused and ClientDisconnectedError."""
    checks.check(request, ("POST",))
    body = await checks.body(request, body_max, LIMIT)
    try:
        wanted = decode_json(decode, body or b"{}")
    except NotJSONError as error:
        raise RequestRefused(Refusal(400, "bad", f"the body: {error}")) from None
    refused = checks.admit()
    if refused is not None:
        raise RequestRefused(refused)
    return wanted


def _places(subs: Mapping[str, Raw]) -> dict[str, _Place]:
    """Where the client says that it is, in the channels for which that is plain.

    Read at once, for what is asked later is asked by those who send to everybody, and nothing in a request may break
    them. Sessions are kinder readers (null counts as missing): what only they understand is no place here.
    """
    places = {}
    for channel, entry in subs.items():
        try:
            places[channel] = _read_place(entry)
        except msgspec.DecodeError:
            continue
    return places


def _has_news(messages: Sequence[bytes], places: Mapping[str, _Place]) -> bool:
    """Whether there is something that the client did not know when it asked, pings aside.

    A channel that can't be recovered has no position that could be news: only what is published while the client waits.
    """
    if any(message != _PING for message in messages[1:]):
        return True
    subs = _read_first(messages[0]).connect.subs
    return any(sub.recoverable and _is_news(sub, places.get(channel)) for channel, sub in subs.items())


def _is_news(sub: _Sub, place: _Place | None) -> bool:
    """What is not recovered counts if the channel is elsewhere than the client: one that keeps the latest only and has
    none yet calls nobody recovered.
    """
    if sub.publications or place is None:
        return True
    return not (sub.recovered or place == _Place(True, sub.offset, sub.epoch))


def _subs(outcome: PollOutcome) -> dict[str, object]:
    """What to ask with next time: every channel, and the position of those that have one."""
    subs: dict[str, object] = {}
    for message in outcome.messages[:1]:
        subs = {channel: {} for channel in _read_first(message).connect.subs}
    for channel, (offset, epoch) in outcome.positions.items():
        subs[channel] = {"recover": True, "offset": offset, "epoch": epoch}
    return subs
