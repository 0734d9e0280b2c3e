"""The link ends between a publish and its reply: the publication is stored once, and the publisher gets its position.

`LOST_REPLIES=1000` runs more of them.
"""

from __future__ import annotations

import asyncio
import os
import random
from functools import partial

import pytest
from msgspec import Raw

from beaconfire.base.clock import SystemClock
from beaconfire.base.timers import Timers
from beaconfire.engines.memory import random_epoch
from beaconfire.engines.no_node import NoNode
from beaconfire.engines.options import RedisOptions
from beaconfire.engines.port import HistoryOptions, PublishOptions
from beaconfire.engines.redis import redis_engine
from beaconfire.model.events import NoEvents
from beaconfire.server.ticks import make_runtime
from tests.acceptance.deadlines import run_scenario, wait_until
from tests.acceptance.sdk.python.tcp_proxy import TcpProxy
from tests.servers.redis_server import shared_server

LOST = int(os.environ.get("LOST_REPLIES", "100"))
HISTORY = HistoryOptions(size=10 * LOST, ttl_s=3600.0)


@pytest.mark.timeout(60 + LOST / 5)
@pytest.mark.parametrize(
    "options", [{}, {"idempotency_key": "k"}, {"producer": "p", "seq": 1}], ids=["plain", "key", "producer"]
)
def test_an_unknown_outcome_is_found_out(options: dict[str, object]) -> None:
    """Half of the requests are lost on their way, the other half reach the server, and only their reply is lost."""

    async def scenario() -> None:
        server = shared_server("redis")
        proxy = TcpProxy(server.port)
        await proxy.open()
        clock = SystemClock()
        prefix = f"lost-{'-'.join(options)}-{random_epoch()}"
        engine = redis_engine(
            RedisOptions(url=f"redis://127.0.0.1:{proxy.port}", prefix=prefix),
            make_runtime(clock, Timers(clock)),
            NoEvents(),
            random_epoch,
        )
        stream = f"{prefix}:{{room}}:s".encode()
        await engine.broker.start(NoNode())

        def has_length(length: int) -> bool:
            return bool(server.call("XLEN", stream) == length)

        rng = random.Random(0)
        stored = 0
        for number in range(LOST):
            given = {name: f"{number}" if name == "idempotency_key" else value for name, value in options.items()}
            if "seq" in given:
                given["seq"] = number + 1
            arrives = rng.random() < 0.5
            proxy.mute(upstream=not arrives, downstream=arrives)
            publishing = asyncio.ensure_future(
                engine.broker.publish("room", Raw(b"%d" % number), PublishOptions(history=HISTORY, **given))  # type: ignore[arg-type]
            )
            if arrives:
                await wait_until(partial(has_length, number + 1), "the publication is stored")
                stored += 1
            else:
                await asyncio.sleep(0)
            proxy.cut()
            proxy.restore()
            outcome = await publishing
            assert (outcome.position.offset, outcome.suppressed) == (number + 1, "")
            await wait_until(lambda: engine.state().up, "the link is back")
        page = await engine.broker.history("room", HISTORY, -1)
        assert [bytes(publication.data) for publication in page.publications] == [b"%d" % n for n in range(LOST)]
        assert 0 < stored < LOST
        await engine.broker.stop()
        proxy.close()
        print(f"{LOST} lost replies, {stored} of stored publications")

    run_scenario(scenario(), 60 + LOST / 5)
