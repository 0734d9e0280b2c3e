"""Requests and results of the methods publish and broadcast."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Raw, UnsetType, field

from beaconfire.api.messages.common import U63_MAX, ApiError, ApiRequest, ApiResult, ChannelName
from beaconfire.engines.port import Durability


class PublishFields(ApiRequest, frozen=True, kw_only=True):
    """The fields that publish and broadcast share."""

    data: (
        Annotated[
            Raw,
            Meta(description="Any JSON value. Subscribers get exactly this text. Required, unless `b64data` is given."),
        ]
        | UnsetType
    ) = UNSET
    b64data: Annotated[
        str,
        Meta(
            description="Any bytes in base64, instead of `data`. Bytes that are not JSON reach only clients that use "
            "Protobuf."
        ),
    ] = ""
    skip_history: Annotated[bool, Meta(description="Deliver the publication without storing it in history.")] = False
    tags: Annotated[dict[str, str], Meta(description="Labels that are delivered with the publication.")] = field(
        default_factory=dict
    )
    producer: Annotated[
        str,
        Meta(
            max_length=255,
            description="The name of a publisher that numbers its publications in each channel with `seq`. So it can "
            "repeat requests without an answer: each number is published exactly once. Needs history.",
        ),
    ] = ""
    seq: Annotated[
        int,
        Meta(
            ge=0,
            le=U63_MAX,
            description="The number of this publication, for its `producer` and in its channel: 1, 2, 3 and so on. A "
            "number that was published before has no effect, and gets the result of the first request. A number after "
            "a gap gets error 150, which names the expected number.",
        ),
    ] = 0
    idempotency_key: Annotated[
        str,
        Meta(
            max_length=1024,
            description="A repeated request with the same key and channel within five minutes has no effect, and gets "
            "the result of the first request.",
        ),
    ] = ""
    delta: Annotated[
        bool,
        Meta(
            description="Send subscribers that use delta compression only the difference to the previous publication, "
            "if the difference is smaller. Always on with the channel option `delta_publish`."
        ),
    ] = False
    version: Annotated[
        int,
        Meta(
            ge=0,
            le=U63_MAX,
            description="If above 0, and the channel already has this version or a later one, nothing is published, "
            "and the result is the current position. Needs history.",
        ),
    ] = 0
    version_epoch: Annotated[str, Meta(description="Versions of different version epochs are not compared.")] = ""
    exclude: Annotated[
        list[str], Meta(description="Client ids that do not get the publication live. History still contains it.")
    ] = field(default_factory=list)


class PublishRequest(PublishFields, frozen=True, kw_only=True):
    """The publication is stored, if the channel has history, and sent to the subscribers in one step."""

    channel: ChannelName


class PublishResult(ApiResult, frozen=True, kw_only=True, omit_defaults=True):
    """The position of the publication. Empty in a channel without history."""

    offset: int = 0
    epoch: str = ""
    durability: Annotated[
        Durability | Literal[""],
        Meta(description="What the stored publication survives: `memory`, `disk` or `replicated`."),
    ] = ""


class BroadcastRequest(PublishFields, frozen=True, kw_only=True):
    """The data is published in each channel separately: publishing in one channel may fail while others succeed."""

    channels: Annotated[list[str], Meta(min_length=1, description="The names of the channels.")]


class PublishResponse(ApiResult, frozen=True, kw_only=True, omit_defaults=True):
    """The outcome for one channel: either `result` or `error`."""

    result: PublishResult | UnsetType = UNSET
    error: ApiError | UnsetType = UNSET


class BroadcastResult(ApiResult, frozen=True, kw_only=True, omit_defaults=True):
    """One response for each channel, in the order of the request."""

    responses: list[PublishResponse]
