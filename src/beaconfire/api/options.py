"""The settings of the server API."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, field

from beaconfire.base.options import SECRET, Options
from beaconfire.base.units import Size


class ApiOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The HTTP API for backends, at `/api/<method>`."""

    enabled: Annotated[bool, Meta(description="Serve the API.")] = True
    keys: Annotated[
        list[str], Meta(description="Accepted API keys; with none, every call is answered with 401.", extra=SECRET)
    ] = field(default_factory=list)
    insecure: Annotated[bool, Meta(description="Development only: no key is asked for.")] = False
    request_max_size: Annotated[
        Size, Meta(description="Largest request body; beyond it HTTP 413 before it is read.")
    ] = Size(4 * 1024 * 1024)
    response_max_size: Annotated[
        Size,
        Meta(
            description="Bytes in an answer. Pages of history and lists of connections are cut to it; larger "
            "presence and lists of channels are error 106; the rest of a batch is not done and gets error 111."
        ),
    ] = Size(1024 * 1024)
    batch_max: Annotated[int, Meta(ge=1, description="Commands in one batch; beyond it error 107.")] = 1024
