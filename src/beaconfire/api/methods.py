"""The server API without its transport: one table of methods, one way to call them.

HTTP, and whatever door comes later, meets the same `ApiMethods.call`; documents are made from the same table.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from msgspec import Raw, Struct

from beaconfire.api import managing, publishing, reading, requests
from beaconfire.api.context import ApiContext, api_error
from beaconfire.api.decoding import RequestDecoder
from beaconfire.api.eagerly import run_all
from beaconfire.api.requests import BatchRequest, BatchResult, Request, Result
from beaconfire.base.errors import (
    BAD_REQUEST,
    INTERNAL,
    METHOD_NOT_FOUND,
    CommandError,
)
from beaconfire.model.events import ApiCallHandled, LimitHit, report_error

Params = bytes | Raw | Request | Mapping[str, object]

COMMANDS_AT_ONCE = 8
"""Commands of a batch between two looks at the clock: most take a few microseconds, the largest some milliseconds."""

_LARGE = frozenset({"broadcast", "history", "presence", "channels", "connections"})
"""Methods whose results have no fixed size. Others are too small for `api.batch_max` of them to fill an answer."""

_encode = msgspec.json.Encoder().encode

UNKNOWN_METHOD = "unknown"
"""What events call every method that does not exist, whatever its name."""


class Method(Struct, frozen=True):
    """One row of the table. `run` gets an `ApiMethods` and a `request`, and returns a `result`."""

    request: type[Request]
    result: type[Result]
    run: Callable[[Any, Any], Awaitable[Result]]
    summary: str
    decode: Callable[[bytes], Request]


class ApiMethods(ApiContext):
    """Calls methods by name."""

    async def call(self, method: str, params: Params = b"{}") -> Result:
        """The method's result. `params` is a request as JSON text, as a struct of its type, or as a mapping.

        Raises CommandError and nothing else: what should not happen is reported as an event and becomes error 100.
        Raises its subclass UnreadableError for text that is not JSON. Suspends only where an engine does, and between
        the commands of a long batch.
        """
        started_s = self.now_s()
        row = METHODS.get(method)
        error = 0
        try:
            if row is None:
                raise CommandError(METHOD_NOT_FOUND, f"no method {method[:64]!r}; there are {', '.join(METHODS)}")
            return await row.run(self, _request(row, params))
        except CommandError as failure:
            error = failure.code.code
            raise
        except Exception as failure:
            error = INTERNAL.code
            report_error(self.events, f"api {method}", failure)
            raise CommandError(INTERNAL) from failure
        finally:
            duration_s = self.now_s() - started_s
            self.events.emit(ApiCallHandled(method if row is not None else UNKNOWN_METHOD, duration_s, error))


def _request(row: Method, params: Params) -> Request:
    if type(params) is bytes:
        return row.decode(params)
    if isinstance(params, row.request):
        return params
    return row.decode(bytes(params) if isinstance(params, Raw) else msgspec.json.encode(params))


async def _batch(api: ApiMethods, request: BatchRequest) -> BatchResult:
    commands = request.commands
    if len(commands) > api.options.batch_max:
        api.events.emit(LimitHit("api.batch_max", ""))
        raise CommandError(BAD_REQUEST, f"commands: expected at most {api.options.batch_max}, got {len(commands)}")
    replies: list[dict[str, Any]] = [{}] * len(commands)
    size = 0

    async def reply(index: int, command: Mapping[str, Raw]) -> None:
        nonlocal size
        try:
            api.check_room(size)
            method = _method_of(command)
            result: Result | Raw = await api.call(method, command[method])
            if method in _LARGE:
                result = Raw(_encode(result))
                size += len(result)
            replies[index] = {method: result}
        except CommandError as error:
            replies[index] = {"error": api_error(error)}

    if request.parallel:
        await run_all(reply(index, command) for index, command in enumerate(commands))
    else:
        started_s = api.now_s()
        for index, command in enumerate(commands):
            if index % COMMANDS_AT_ONCE == 0:
                started_s = await api.turns.yield_after_slice(started_s)
            await reply(index, command)
    return BatchResult(replies=replies)


def _method_of(command: Mapping[str, Raw]) -> str:
    for method, params in command.items():
        if method in METHODS and method != "batch" and bytes(params) != b"null":
            return method
    names = ", ".join(name for name in METHODS if name != "batch")
    raise CommandError(METHOD_NOT_FOUND, f"a command must hold one of {names}")


def _row(
    request: type[Request], result: type[Result], run: Callable[[Any, Any], Awaitable[Result]], summary: str
) -> Method:
    return Method(request, result, run, summary, RequestDecoder(request))


METHODS: Mapping[str, Method] = {
    "publish": _row(requests.PublishRequest, requests.PublishResult, publishing.publish, "Publish data in a channel."),
    "broadcast": _row(
        requests.BroadcastRequest,
        requests.BroadcastResult,
        publishing.broadcast,
        "Publish the same data in several channels.",
    ),
    "subscribe": _row(
        requests.SubscribeRequest, requests.Nothing, managing.subscribe, "Subscribe a user's connections to a channel."
    ),
    "unsubscribe": _row(
        requests.UnsubscribeRequest,
        requests.Nothing,
        managing.unsubscribe,
        "Take a user's connections out of a channel, or out of all.",
    ),
    "disconnect": _row(requests.DisconnectRequest, requests.Nothing, managing.disconnect, "End a user's connections."),
    "refresh": _row(
        requests.RefreshRequest, requests.Nothing, managing.refresh, "Change when a user's connections expire."
    ),
    "presence": _row(requests.PresenceRequest, requests.PresenceResult, reading.presence, "Who is in a channel now."),
    "presence_stats": _row(
        requests.PresenceStatsRequest,
        requests.PresenceStatsResult,
        reading.presence_stats,
        "How many clients and users are in a channel now.",
    ),
    "history": _row(
        requests.HistoryRequest, requests.HistoryResult, reading.history, "Read what was published in a channel."
    ),
    "history_remove": _row(
        requests.HistoryRemoveRequest, requests.Nothing, reading.history_remove, "Forget a channel's publications."
    ),
    "channels": _row(
        requests.ChannelsRequest, requests.ChannelsResult, reading.channels, "Which channels have subscribers."
    ),
    "connections": _row(
        requests.ConnectionsRequest, requests.ConnectionsResult, reading.connections, "Who is connected, and how."
    ),
    "info": _row(requests.InfoRequest, requests.InfoResult, reading.info, "Which nodes are running."),
    "batch": _row(BatchRequest, BatchResult, _batch, "Several commands in one request."),
    "rpc": _row(requests.RpcRequest, requests.RpcResult, reading.rpc, "Call a method of the application."),
}
"""Every method by its name."""
