"""Opens many connections, a limited number at a time, and keeps those that succeed."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Iterator
from functools import partial
from typing import Final

from picows import WSError, WSInvalidStatusError, ws_connect

from beaconfire.auth.issue import connection_token
from beaconfire.base.clock import Clock
from beaconfire.loadtest.client import ConnectError, LoadClient
from beaconfire.loadtest.failures import FailureKind
from beaconfire.loadtest.histogram import Histogram
from beaconfire.loadtest.messages import Encoding
from beaconfire.loadtest.plan import Plan
from beaconfire.loadtest.results import Results

CONNECTING_MAX: Final = 64
"""Connections that one worker opens at the same time. More would measure the accept queue of the server's socket."""

CONNECT_TIMEOUT_S: Final = 10.0
_FRAME_BYTES_MAX: Final = 64 * 1024 * 1024
_TOKEN_EXPIRES_IN_S: Final = 86_400


class ConnectionOpener:
    """Failures go to the results. `opened`, `failed` and `connect_time` are those of the last `open_missing`."""

    def __init__(self, plan: Plan, encoding: Encoding, results: Results, clock: Clock) -> None:
        self._plan = plan
        self._encoding = encoding
        self._results = results
        self._clock = clock
        self._ssl = ssl.create_default_context() if plan.url.startswith("wss:") else None
        self.connect_time = Histogram()
        self.opened = 0
        self.failed = 0

    async def open_missing(self, clients: dict[int, LoadClient], numbers: range) -> None:
        """Opens the connections of `numbers` that are not in `clients`, and adds those that succeed."""
        self.connect_time, self.opened, self.failed = Histogram(), 0, 0
        missing = iter([number for number in numbers if number not in clients])
        async with asyncio.TaskGroup() as group:
            for _ in range(CONNECTING_MAX):
                group.create_task(self._open_each(missing, clients))

    async def _open_each(self, missing: Iterator[int], clients: dict[int, LoadClient]) -> None:
        for number in missing:
            client = LoadClient(
                self._encoding,
                self._results,
                {channel: self._plan.channel(channel) for channel in self._plan.channels_of(number)},
            )
            started_ns = self._results.now_ns()
            if await self._connect(client, number):
                self.connect_time.record(self._results.now_ns() - started_ns)
                self.opened += 1
                clients[number] = client
            else:
                self.failed += 1
                client.close()

    async def _connect(self, client: LoadClient, number: int) -> bool:
        add_failure = partial(self._results.add_failure, FailureKind.CONNECT)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await ws_connect(
                    lambda: client,
                    self._plan.url,
                    ssl_context=self._ssl,
                    websocket_handshake_timeout=None,
                    max_frame_size=_FRAME_BYTES_MAX,
                    extra_headers={"Sec-WebSocket-Protocol": self._encoding.codec.name},
                )
                await client.connect(self._token(number))
        except ConnectError:
            return False
        except TimeoutError:
            add_failure(0, f"no reply within {CONNECT_TIMEOUT_S:g} s")
            return False
        except WSInvalidStatusError as error:
            add_failure(int(error.response.status) if error.response else 0, "the server refused the upgrade")
            return False
        except (WSError, ssl.SSLError) as error:
            add_failure(0, f"the WebSocket handshake failed: {error}")
            return False
        except OSError as error:
            add_failure(0, os.strerror(error.errno) if error.errno and error.errno > 0 else str(error))
            return False
        return True

    def _token(self, number: int) -> str:
        plan = self._plan
        if plan.token_secret:
            return connection_token(
                plan.token_secret,
                f"bench-{number}",
                now_unix_s=self._clock.unix_s(),
                expires_in_s=_TOKEN_EXPIRES_IN_S,
            )
        return plan.tokens[number % len(plan.tokens)] if plan.tokens else ""
