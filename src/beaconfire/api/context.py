"""What the methods of the server API work with, and what several of them need."""

from __future__ import annotations

import base64

from msgspec import UNSET, Raw, UnsetType

from beaconfire.api.options import ApiOptions
from beaconfire.api.requests import ApiError, ClientEntry, Selection
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
from beaconfire.model.events import EventSink, LimitHit
from beaconfire.model.publication import NO_PAYLOAD, ClientInfo
from beaconfire.node.cluster import Cluster, Selector
from beaconfire.protocols.json_payload import embeddable

RESPONSE_LIMIT = "api.response_max_size"

_NULL = b"null"


class ApiContext:
    """The parts of the node that the methods use, all nodes together, and the API's settings."""

    def __init__(
        self,
        channels: ChannelService,
        namespaces: Namespaces,
        cluster: Cluster,
        turns: LoopTurns,
        clock: Clock,
        events: EventSink,
        options: ApiOptions,
    ) -> None:
        self.channels = channels
        self.namespaces = namespaces
        self.cluster = cluster
        self.turns = turns
        self.now_s = clock.now_s
        self.events = events
        self.options = options

    def namespace(self, channel: str) -> Namespace:
        """Raises CommandError 107 for an empty or too long name, 102 for an unknown namespace."""
        namespaces = self.namespaces
        if namespaces.too_long(channel):
            self.events.emit(LimitHit("channel_names.max_length", ""))
            raise CommandError(BAD_REQUEST, "channel is longer than channel_names.max_length")
        return namespaces.resolve(channel)

    def check_size(self, size: int, what: str, remedy: str) -> None:
        """Raises CommandError 106 for an answer that would be too large. `size` is in bytes."""
        if size > self.options.response_max_size:
            raise self.beyond(LIMIT_EXCEEDED, f"{what} is larger than {RESPONSE_LIMIT}: {remedy}")

    def check_room(self, size: int) -> None:
        """Raises CommandError 111 for a command of a batch whose answer has `size` bytes already, and is full."""
        if size >= self.options.response_max_size:
            raise self.beyond(
                TOO_MANY_REQUESTS, f"not done, because the answer is full ({RESPONSE_LIMIT}): send this command again"
            )

    def beyond(self, code: ErrorCode, detail: str) -> CommandError:
        """What to raise where an answer is beyond its limit, which is counted."""
        self.events.emit(LimitHit("api.response_max_size", ""))
        return CommandError(code, detail)


def api_error(error: CommandError) -> ApiError:
    return ApiError(code=error.code.code, message=error.code.message, detail=error.detail)


def selector(request: Selection) -> Selector:
    """Raises CommandError 107 where nobody is meant."""
    if not (request.user or request.client or request.session):
        raise CommandError(BAD_REQUEST, "give user, client or session: without them nobody is meant")
    return Selector(request.user, request.client, request.session)


def payload(name: str, json: Raw | UnsetType, b64: str) -> Raw:
    """The bytes of a field that has a twin in base64, `NO_PAYLOAD` if neither is there. Raises CommandError 107.

    They are a copy: what was decoded is a view that would keep the whole request in memory.
    """
    if not b64:
        return NO_PAYLOAD if json is UNSET else json.copy()
    if json is not UNSET and bytes(json) != _NULL:
        raise CommandError(BAD_REQUEST, f"give {name} or b64{name}, not both")
    try:
        return Raw(base64.b64decode(b64, validate=True))
    except ValueError as error:
        raise CommandError(BAD_REQUEST, f"b64{name}: expected base64 with padding ({error})") from None


def attachment(name: str, json: Raw | UnsetType, b64: str = "") -> bytes:
    """As `payload`, for what comes along and may as well not be there: null is nothing."""
    data = bytes(payload(name, json, b64))
    return b"" if data == _NULL else data


def shown(data: Raw) -> tuple[Raw | UnsetType, str]:
    """A payload for a JSON answer: as it is if it is JSON, else in base64."""
    try:
        json = embeddable(data)
    except PayloadError:
        return UNSET, base64.b64encode(bytes(data)).decode()
    return (json, "") if json is not NO_PAYLOAD else (UNSET, "")


def client_entry(info: ClientInfo) -> ClientEntry:
    conn_info, b64conn_info = shown(info.conn_info)
    chan_info, b64chan_info = shown(info.chan_info)
    return ClientEntry(
        user=info.user,
        client=info.client,
        conn_info=conn_info,
        chan_info=chan_info,
        b64conn_info=b64conn_info,
        b64chan_info=b64chan_info,
    )
