"""What an idle connection weighs: authenticated by a JWT, subscribed to a channel, resident memory of the server."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

from beaconfire.auth.mint import connection_token
from bench.processes import Beaconfire, Program, compile_c

SECRET = "a-secret-of-the-benchmark-of-32-bytes"
CONFIG = f"""
[token]
hmac_secret = "{SECRET}"
[channel]
allow_subscribe_for_client = true
presence = true
history_size = 10
history_ttl = "60s"
force_recovery = true
[api]
enabled = false
"""


def measure(connections: int, channels: int) -> float:
    """Bytes of resident memory per connection; connections spread evenly over the channels, each user another."""
    load = str(compile_c("load"))
    now_s = time.time()
    with tempfile.TemporaryDirectory() as name, Beaconfire(CONFIG, {}) as server:
        greetings, publish = Path(name) / "greetings", Path(name) / "publish"
        publish.write_text("")

        def greeting(number: int) -> str:
            token = connection_token(SECRET, f"user{number}", now_unix_s=now_s, expires_in_s=3600)
            connect = {"id": 1, "connect": {"token": token}}
            subscribe = {"id": 2, "subscribe": {"channel": f"room{number % channels}"}}
            return json.dumps(connect) + "\t" + json.dumps(subscribe)

        def weigh(first: int, count: int) -> Program:
            greetings.write_text("\n".join(greeting(first + number) for number in range(count + 1)))
            command = [load, str(server.port), "/connection/websocket", str(count), str(greetings), str(publish)]
            program = Program([*command, "1", "1"], stdin=True)
            assert program.read_line() == "ready"
            return program

        # The first connections pay for what all share: imports, tables, the allocator's first arenas.
        with weigh(0, 200):
            before = server.resident_bytes()
            with weigh(1000, connections):
                return (server.resident_bytes() - before) / (connections + 1)
