"""Opens many connections, a few at a time, and keeps those that got in."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from picows import WSError, WSInvalidStatusError, ws_connect

from beaconfire.auth.issue import connection_token
from beaconfire.base.clock import Clock
from beaconfire.loadtest.client import Client, EntryError
from beaconfire.loadtest.codes import Kind
from beaconfire.loadtest.dialect import Dialect
from beaconfire.loadtest.histogram import Histogram
from beaconfire.loadtest.ledger import Ledger
from beaconfire.loadtest.plan import Plan

AT_ONCE_MAX: Final = 64
"""In one worker. More would measure the backlog of the server's socket."""

ENTRY_TIMEOUT_S: Final = 10.0
_FRAME_BYTES_MAX: Final = 64 * 1024 * 1024


class Opener:
    """Fills `clients`, by number, with those of `numbers` that are missing. Troubles go to the ledger."""

    def __init__(self, plan: Plan, dialect: Dialect, ledger: Ledger, clock: Clock) -> None:
        self._plan = plan
        self._dialect = dialect
        self._ledger = ledger
        self._clock = clock
        self._ssl = ssl.create_default_context() if plan.url.startswith("wss:") else None
        self.connect = Histogram()
        self.opened = 0
        self.failed = 0

    async def fill(self, clients: dict[int, Client], numbers: range) -> None:
        self.connect, self.opened, self.failed = Histogram(), 0, 0
        waiting = iter([number for number in numbers if number not in clients])
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE_MAX):
                group.create_task(self._open_each(waiting, clients.__setitem__))

    async def _open_each(self, waiting: Iterator[int], keep: Callable[[int, Client], None]) -> None:
        for number in waiting:
            client = Client(
                self._dialect,
                self._ledger,
                {channel: self._plan.channel(channel) for channel in self._plan.channels_of(number)},
            )
            began_ns = self._ledger.now_ns()
            if await self._enters(client, number):
                self.connect.record(self._ledger.now_ns() - began_ns)
                self.opened += 1
                keep(number, client)
            else:
                self.failed += 1
                client.close()

    async def _enters(self, client: Client, number: int) -> bool:
        trouble = partial(self._ledger.trouble, Kind.CONNECT)
        try:
            async with asyncio.timeout(ENTRY_TIMEOUT_S):
                await ws_connect(
                    lambda: client,
                    self._plan.url,
                    ssl_context=self._ssl,
                    websocket_handshake_timeout=None,
                    max_frame_size=_FRAME_BYTES_MAX,
                    extra_headers={"Sec-WebSocket-Protocol": self._dialect.subprotocol},
                )
                await client.enter(self._token(number))
        except EntryError:
            return False
        except TimeoutError:
            trouble(0, f"no answer within {ENTRY_TIMEOUT_S:g} s")
            return False
        except WSInvalidStatusError as error:
            trouble(int(error.response.status) if error.response else 0, "the server refused the upgrade")
            return False
        except (WSError, ssl.SSLError) as error:
            trouble(0, f"no WebSocket: {error}")
            return False
        except OSError as error:
            trouble(0, os.strerror(error.errno) if error.errno and error.errno > 0 else str(error))
            return False
        return True

    def _token(self, number: int) -> str:
        plan = self._plan
        if plan.token_secret:
            now_unix_s = self._clock.unix_s()
            return connection_token(plan.token_secret, f"bench-{number}", now_unix_s=now_unix_s, expires_in_s=86400)
        return plan.tokens[number % len(plan.tokens)] if plan.tokens else ""
