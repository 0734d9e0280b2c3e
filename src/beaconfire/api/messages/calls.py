"""Requests and results of the methods batch and rpc."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, Meta, Raw, UnsetType

from beaconfire.api.messages.common import ApiRequest, ApiResult, Json


class BatchRequest(ApiRequest, frozen=True, kw_only=True):
    """Each command succeeds or fails separately. A batch cannot contain a batch."""

    commands: Annotated[
        list[dict[str, Raw]],
        Meta(description='A command is an object like `{"publish": {…}}`: the name of a method and its request.'),
    ]
    parallel: Annotated[
        bool,
        Meta(
            description="Start each command without waiting for the previous ones. Otherwise a command waits, but "
            "publishes that follow each other may overlap; they take effect in their order in each channel."
        ),
    ] = False


class BatchResult(ApiResult, frozen=True, kw_only=True, omit_defaults=True):
    """One reply for each command, in the order of the commands: an object like `{"publish": {…}}` or
    `{"error": {…}}`."""

    replies: list[dict[str, Any]]


class RpcRequest(ApiRequest, frozen=True, kw_only=True):
    """This server has no RPC methods yet, so every call gets error 104."""

    method: Annotated[str, Meta(min_length=1, description="The name of the RPC method.")]
    params: Json | UnsetType = UNSET


class RpcResult(ApiResult, frozen=True, kw_only=True, omit_defaults=True):
    """The return value of the RPC method."""

    data: Json | UnsetType = UNSET
