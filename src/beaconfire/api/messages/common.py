"""The base classes of all requests and results, and the parts that several methods use."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Raw, Struct

U63_MAX = 2**63 - 1

Unsigned = Annotated[int, Meta(ge=0, le=U63_MAX)]
ChannelName = Annotated[str, Meta(min_length=1, description="The name of the channel.")]
Json = Annotated[Raw, Meta(description="Any JSON value.")]


class ApiRequest(Struct, frozen=True, kw_only=True):
    """Base of all requests."""


class ApiResult(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of all results. Fields with their default value are omitted."""


class Position(ApiRequest, frozen=True, kw_only=True):
    """A position in the stream of a channel: the offset of a publication and the epoch of the stream."""

    offset: Unsigned = 0
    epoch: Annotated[str, Meta(description="The epoch that came with the offset. Empty means: do not compare.")] = ""


class ApiError(ApiResult, frozen=True, kw_only=True, omit_defaults=True):
    """An error. `code` and `message` are from the table of errors; `detail` says what to change."""

    code: int
    message: str
    detail: str = ""


class EmptyResult(ApiResult, frozen=True, kw_only=True, omit_defaults=True):
    """Always `{}`, also if no connection matches the request. Users can be connected to any node, or not at all."""
