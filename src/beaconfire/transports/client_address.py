"""The address of a client whose requests may pass through proxies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from beaconfire.base.tasks import run_in_one_step


class ClientAddresses:
    """Takes the addresses of clients from the forwarding headers of `trusted_proxies`, as uvicorn does for HTTP."""

    def __init__(self, trusted_proxies: Sequence[str]) -> None:
        self._proxy_headers = ProxyHeadersMiddleware(_no_op, list(trusted_proxies)) if trusted_proxies else None

    def find(self, peer: object, headers: Iterable[tuple[bytes, bytes]]) -> str:
        """The client's address without a port. Empty if it is unknown, as on a Unix socket.

        `peer` is the peer of the connection as the event loop reports it: for TCP a tuple of address and port, perhaps
        with more fields. Names of `headers` are in lower case.
        """
        client = peer[:2] if isinstance(peer, tuple) else None
        if self._proxy_headers is not None:
            scope: Any = {"type": "http", "client": client, "headers": headers}
            # The middleware changes the scope in place and never suspends.
            run_in_one_step(self._proxy_headers(scope, _no_op, _no_op))  # type: ignore[arg-type]  # a coroutine, in fact
            client = scope["client"]
        return str(client[0]) if client else ""


async def _no_op(*_: object) -> None:
    """Stands in for an ASGI application, `receive` and `send`, which the middleware must get."""
