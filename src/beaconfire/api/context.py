"""The context of API methods, and helpers that several methods use."""

from __future__ import annotations

import base64

from msgspec import UNSET, Raw, UnsetType

from beaconfire.api.messages.common import ApiError
from beaconfire.api.messages.queries import ClientEntry
from beaconfire.api.messages.sessions import SessionSelection
from beaconfire.api.options import ApiOptions
from beaconfire.base.clock import Clock
from beaconfire.base.errors import (
    BAD_REQUEST,
    LIMIT_EXCEEDED,
    TOO_MANY_REQUESTS,
    CommandError,
    ErrorCode,
    PayloadError,
)
from beaconfire.base.loop import LoopTurns
from beaconfire.channels.namespaces import Namespace, Namespaces
from beaconfire.channels.service import ChannelService
from beaconfire.engines.migration import NO_MIGRATION, Migration
from beaconfire.model.events import EventSink, LimitHit
from beaconfire.model.publication import NO_PAYLOAD, ClientInfo
from beaconfire.node.cluster import Cluster, Selector
from beaconfire.node.revocation_stream import RevocationStream
from beaconfire.protocols.json_payload import check_json
from beaconfire.session.operations.publish import Publishing

RESPONSE_LIMIT = "api.response_max_size"

_NULL = b"null"


class ApiContext:
    """The parts of the node that the methods use, the cluster, and the settings of the API."""

    def __init__(
        self,
        channels: ChannelService,
        namespaces: Namespaces,
        cluster: Cluster,
        turns: LoopTurns,
        clock: Clock,
        events: EventSink,
        options: ApiOptions,
        publishing: Publishing,
        revocation_stream: RevocationStream,
        may_suspend: bool,
        publishes_overlap: bool,
        leeway_s: float = 0.0,
        migration: Migration = NO_MIGRATION,
    ) -> None:
        """`may_suspend` tells whether the engine, or a decision about a publication, may suspend.
        `publishes_overlap` tells whether publishes keep their order without waiting for each other. `leeway_s` is the
        tolerated difference between the clocks of this node and of those that issue tokens."""
        self.channels = channels
        self.namespaces = namespaces
        self.cluster = cluster
        self.turns = turns
        self.publishing = publishing
        self.revocation_stream = revocation_stream
        self.may_suspend = may_suspend
        self.publishes_overlap = may_suspend and publishes_overlap
        """Whether publishes that follow each other should overlap."""
        self.leeway_s = leeway_s
        self.migration = migration
        self.unix_s = clock.unix_s
        self.now_s = clock.now_s
        self.events = events
        self.options = options

    def namespace(self, channel: str) -> Namespace:
        """Raises CommandError 107 if the channel name is empty or too long, and 102 if its namespace is unknown."""
        namespaces = self.namespaces
        if namespaces.too_long(channel):
            self.events.emit(LimitHit("channel_names.max_length", ""))
            raise CommandError(BAD_REQUEST, "channel is longer than channel_names.max_length")
        return namespaces.resolve(channel)

    def check_size(self, size: int, what: str, remedy: str) -> None:
        """Raises CommandError 106 if a result of `size` bytes is too large. `what` and `remedy` become the detail."""
        if size > self.options.response_max_size:
            raise self.limit_error(LIMIT_EXCEEDED, f"{what} is larger than {RESPONSE_LIMIT}: {remedy}")

    def check_space(self, size: int) -> None:
        """Raises CommandError 111 for a further command of a batch if its response already has `size` bytes and is
        full."""
        if size >= self.options.response_max_size:
            raise self.limit_error(
                TOO_MANY_REQUESTS,
                f"not executed, because the response is full ({RESPONSE_LIMIT}): send this command again",
            )

    def limit_error(self, code: ErrorCode, detail: str) -> CommandError:
        """Counts a response above the size limit, and returns the error to raise."""
        self.events.emit(LimitHit("api.response_max_size", ""))
        return CommandError(code, detail)


def api_error(error: CommandError) -> ApiError:
    return ApiError(code=error.code.code, message=error.code.message, detail=error.detail)


def selector(request: SessionSelection) -> Selector:
    """The selector of a request. Raises CommandError 107 if it would select nothing."""
    if not (request.user or request.client or request.session):
        raise CommandError(BAD_REQUEST, "user, client or session is required")
    return Selector(request.user, request.client, request.session)


def payload(name: str, json: Raw | UnsetType, b64: str) -> Raw:
    """Returns the bytes of a field that can also be given in base64, or `NO_PAYLOAD` if neither is given.

    The result is a copy, because a decoded field keeps the whole request in memory. Raises CommandError 107 if both
    are given, or if the base64 is invalid.
    """
    if not b64:
        return NO_PAYLOAD if json is UNSET else json.copy()
    if json is not UNSET and bytes(json) != _NULL:
        raise CommandError(BAD_REQUEST, f"give {name} or b64{name}, not both")
    try:
        return Raw(base64.b64decode(b64, validate=True))
    except ValueError as error:
        raise CommandError(BAD_REQUEST, f"b64{name}: expected base64 with padding ({error})") from None


def optional_payload(name: str, json: Raw | UnsetType, b64: str = "") -> bytes:
    """As `payload`, but null counts as a missing field, and the result is `bytes`."""
    data = bytes(payload(name, json, b64))
    return b"" if data == _NULL else data


def json_or_base64(data: Raw) -> tuple[Raw | UnsetType, str]:
    """Returns a payload for a JSON result: either the JSON itself or, if the payload is not JSON, base64."""
    try:
        json = check_json(data)
    except PayloadError:
        return UNSET, base64.b64encode(bytes(data)).decode()
    return (json, "") if json is not NO_PAYLOAD else (UNSET, "")


def client_entry(info: ClientInfo) -> ClientEntry:
    conn_info, b64conn_info = json_or_base64(info.conn_info)
    chan_info, b64chan_info = json_or_base64(info.chan_info)
    return ClientEntry(
        user=info.user,
        client=info.client,
        conn_info=conn_info,
        chan_info=chan_info,
        b64conn_info=b64conn_info,
        b64chan_info=b64chan_info,
    )
