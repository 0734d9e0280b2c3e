"""Options of the server API."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, field

from beaconfire.base.options import SECRET, Options
from beaconfire.base.units import Seconds, Size
from beaconfire.session.revocations import LIFETIME_MAX_S


class ApiOptions(Options, frozen=True, kw_only=True):
    """The HTTP API for backends, at `/api/<method>`."""

    enabled: Annotated[bool, Meta(description="Serve the API.")] = True
    keys: Annotated[
        list[str], Meta(description="Accepted API keys; without any key, every call gets HTTP 401.", extra=SECRET)
    ] = field(default_factory=list)
    insecure: Annotated[bool, Meta(description="Development only: calls need no API key.")] = False
    request_max_size: Annotated[
        Size, Meta(gt=0, description="Largest request body; a larger one gets HTTP 413 before it is read.")
    ] = Size(4 * 1024 * 1024)
    response_max_size: Annotated[
        Size,
        Meta(
            gt=0,
            description="Bytes in one response. History pages and connection lists are cut to this size; larger "
            "presence replies and channel lists get error 106; the remaining commands of a batch are not executed and "
            "get error 111.",
        ),
    ] = Size(1024 * 1024)
    revocation_ttl: Annotated[
        Seconds,
        Meta(
            gt=0,
            le=LIFETIME_MAX_S,
            description="How long the method revoke keeps a revocation, unless the call names expire_at. Must be at "
            "least the longest lifetime of your tokens: an older token would be accepted again.",
        ),
    ] = Seconds(86400)
    batch_max: Annotated[int, Meta(ge=1, description="Commands in one batch; more get error 107.")] = 1024
