"""The table of all API methods, and `ApiMethods.call`, which calls a method by name.

Nothing here depends on HTTP. The documentation is generated from the same table.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from itertools import groupby
from typing import Any, TypeAlias

import msgspec
from msgspec import Raw, Struct

from beaconfire.api import migrating, publishing, queries, revoking, sessions
from beaconfire.api.context import ApiContext, api_error
from beaconfire.api.decoding import RequestDecoder
from beaconfire.api.messages import migrating as migration_messages
from beaconfire.api.messages import publishing as publish_messages
from beaconfire.api.messages import queries as query_messages
from beaconfire.api.messages import sessions as session_messages
from beaconfire.api.messages.calls import BatchRequest, BatchResult, RpcRequest, RpcResult
from beaconfire.api.messages.common import ApiRequest, ApiResult, EmptyResult
from beaconfire.base.errors import (
    BAD_REQUEST,
    INTERNAL,
    METHOD_NOT_FOUND,
    CommandError,
)
from beaconfire.base.tasks import run_all
from beaconfire.model.events import ApiCallHandled, LimitHit, report_error

Params: TypeAlias = bytes | Raw | ApiRequest | Mapping[str, object]

COMMANDS_PER_TIME_CHECK = 8
"""How many commands of a batch run before the time is checked. Most take a few microseconds, the largest some
milliseconds."""

_METHODS_WITH_LARGE_RESULTS = frozenset(
    {"broadcast", "history", "presence", "channels", "connections", "migration", "migration_read", "migration_verify"}
)
"""Methods whose results have no fixed maximum size. The results of all other methods are so small that a batch of
`api.batch_max` commands cannot exceed the limit of a response."""

_encode = msgspec.json.Encoder().encode

UNKNOWN_METHOD = "unknown"
"""The name in events for all methods that do not exist. Clients could otherwise create any number of names."""


class Method(Struct, frozen=True):
    """One row of the table.

    `run` gets an `ApiMethods` and a `request`, and returns a `result`. `decode` raises CommandError for a malformed
    request.
    """

    request: type[ApiRequest]
    result: type[ApiResult]
    run: Callable[[Any, Any], Awaitable[ApiResult]]
    summary: str
    decode: Callable[[bytes], ApiRequest]


class ApiMethods(ApiContext):
    """The server API of a node: calls methods by name."""

    async def call(self, method: str, params: Params = b"{}") -> ApiResult:
        """Calls a method and returns its result. `params` is the request as JSON text, as a struct or as a mapping.

        Raises only CommandError. Any other exception is reported as an event and becomes error 100. Text that is not
        JSON raises the subclass InvalidJsonError. Suspends only if the engine suspends, and between the commands of a
        long batch.
        """
        started_s = self.now_s()
        row = METHODS.get(method)
        error = 0
        try:
            if row is None:
                raise CommandError(
                    METHOD_NOT_FOUND, f"unknown method {method[:64]!r}; expected one of {', '.join(METHODS)}"
                )
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


def _request(row: Method, params: Params) -> ApiRequest:
    if type(params) is bytes:
        return row.decode(params)
    if isinstance(params, row.request):
        return params
    return row.decode(bytes(params) if isinstance(params, Raw) else msgspec.json.encode(params))


async def _batch(api: ApiMethods, request: BatchRequest) -> BatchResult:
    """Executes all commands in order and collects their replies. Emits an event if the batch is too long.

    Publishes that follow each other wait for their answers together if they keep their order anyway.
    """
    commands = request.commands
    if len(commands) > api.options.batch_max:
        api.events.emit(LimitHit("api.batch_max", ""))
        raise CommandError(BAD_REQUEST, f"commands: expected at most {api.options.batch_max}, got {len(commands)}")
    replies: list[dict[str, Any]] = [{}] * len(commands)
    size = 0

    async def reply(index: int, command: Mapping[str, Raw]) -> None:
        nonlocal size
        try:
            api.check_space(size)
            method = _method_of(command)
            result: ApiResult | Raw = await api.call(method, command[method])
            if method in _METHODS_WITH_LARGE_RESULTS:
                result = Raw(_encode(result))
                size += len(result)
            replies[index] = {method: result}
        except CommandError as error:
            replies[index] = {"error": api_error(error)}

    async def reply_in_order(numbered: Iterable[tuple[int, Mapping[str, Raw]]]) -> None:
        started_s = api.now_s()
        for count, each in enumerate(numbered):
            if count % COMMANDS_PER_TIME_CHECK == 0:
                started_s = await api.turns.yield_after_slice(started_s)
            await reply(*each)

    if request.parallel:
        await run_all((reply(*each) for each in enumerate(commands)), concurrently=api.may_suspend)
    elif api.publishes_overlap:
        for are_publishes, group in groupby(enumerate(commands), lambda each: list(each[1]) == ["publish"]):
            if are_publishes:
                await run_all((reply(*each) for each in group), concurrently=True)
            else:
                await reply_in_order(group)
    else:
        await reply_in_order(enumerate(commands))
    return BatchResult(replies=replies)


def _method_of(command: Mapping[str, Raw]) -> str:
    for method, params in command.items():
        if method in METHODS and method != "batch" and bytes(params) != b"null":
            return method
    names = ", ".join(name for name in METHODS if name != "batch")
    raise CommandError(METHOD_NOT_FOUND, f"a command must have one of {names}")


def _row(
    request: type[ApiRequest], result: type[ApiResult], run: Callable[[Any, Any], Awaitable[ApiResult]], summary: str
) -> Method:
    return Method(request, result, run, summary, RequestDecoder(request))


METHODS: Mapping[str, Method] = {
    "publish": _row(
        publish_messages.PublishRequest,
        publish_messages.PublishResult,
        publishing.publish,
        "Publishes data in a channel.",
    ),
    "broadcast": _row(
        publish_messages.BroadcastRequest,
        publish_messages.BroadcastResult,
        publishing.broadcast,
        "Publishes the same data in several channels.",
    ),
    "subscribe": _row(
        session_messages.SubscribeRequest,
        EmptyResult,
        sessions.subscribe,
        "Subscribes the connections of a user to a channel.",
    ),
    "unsubscribe": _row(
        session_messages.UnsubscribeRequest,
        EmptyResult,
        sessions.unsubscribe,
        "Unsubscribes the connections of a user from a channel, or from all channels.",
    ),
    "disconnect": _row(
        session_messages.DisconnectRequest, EmptyResult, sessions.disconnect, "Closes the connections of a user."
    ),
    "refresh": _row(
        session_messages.RefreshRequest,
        EmptyResult,
        sessions.refresh,
        "Changes when the connections of a user expire.",
    ),
    "revoke": _row(
        session_messages.RevokeRequest,
        EmptyResult,
        revoking.revoke,
        "Revokes tokens of a user, or one token, before they expire.",
    ),
    "send": _row(
        session_messages.SendRequest,
        EmptyResult,
        sessions.send,
        "Sends data to the connections of a user, outside of any channel.",
    ),
    "presence": _row(
        query_messages.PresenceRequest,
        query_messages.PresenceResult,
        queries.presence,
        "Returns the clients that are in a channel now.",
    ),
    "presence_stats": _row(
        query_messages.PresenceStatsRequest,
        query_messages.PresenceStatsResult,
        queries.presence_stats,
        "Returns how many clients and users are in a channel now.",
    ),
    "history": _row(
        query_messages.HistoryRequest,
        query_messages.HistoryResult,
        queries.history,
        "Returns publications of a channel.",
    ),
    "history_remove": _row(
        query_messages.HistoryRemoveRequest,
        EmptyResult,
        queries.history_remove,
        "Removes the publications of a channel from history.",
    ),
    "channels": _row(
        query_messages.ChannelsRequest,
        query_messages.ChannelsResult,
        queries.channels,
        "Returns the channels that have subscribers.",
    ),
    "connections": _row(
        query_messages.ConnectionsRequest,
        query_messages.ConnectionsResult,
        queries.connections,
        "Returns the open connections.",
    ),
    "info": _row(
        query_messages.InfoRequest, query_messages.InfoResult, queries.info, "Returns the nodes that are running."
    ),
    "migration": _row(
        migration_messages.MigrationRequest,
        migration_messages.MigrationResult,
        migrating.migration,
        "Returns how far the migration to another engine is.",
    ),
    "migration_read": _row(
        migration_messages.MigrationReadRequest,
        migration_messages.MigrationResult,
        migrating.migration_read,
        "Reads the history of a part of the channels from the new engine.",
    ),
    "migration_verify": _row(
        migration_messages.MigrationVerifyRequest,
        migration_messages.MigrationResult,
        migrating.migration_verify,
        "Starts to compare all channels of both engines.",
    ),
    "batch": _row(BatchRequest, BatchResult, _batch, "Executes several commands in one request."),
    "rpc": _row(RpcRequest, RpcResult, queries.rpc, "Calls an RPC method of the application."),
}
"""All methods by name."""
