"""One message to many subscribers: CPU per delivery and deliveries per second, beside a bare C loop."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from bench.processes import Beaconfire, Program, compile_c

CONFIG = """
[client]
insecure = true
message_rate_limit = 0
byte_rate_limit = 0
ping_interval = "1h"
pong_timeout = "10s"
[api]
enabled = false
"""

CHANNEL = "bench"
FRAME_BYTES = 132
"""What one delivery is on the wire: a WebSocket frame around a message of 128 bytes."""


@dataclass
class Series:
    """Samples of one server at one window: microseconds of server CPU per delivery, deliveries per second."""

    cpu_us: list[float] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)

    def medians(self) -> tuple[float, float]:
        return statistics.median(self.cpu_us), statistics.median(self.rate)


def ratios(loop: Series, ours: Series) -> tuple[float, float]:
    """CPU and rate, ours over the loop's: medians of each round's own ratio, since the machine drifts in between."""
    return (
        statistics.median(b / a for a, b in zip(loop.cpu_us, ours.cpu_us, strict=True)),
        statistics.median(b / a for a, b in zip(loop.rate, ours.rate, strict=True)),
    )


def publish_command() -> str:
    """A publish whose push is FRAME_BYTES on the wire, its mark included."""
    empty = json.dumps({"push": {"channel": CHANNEL, "pub": {"data": "~"}}}, separators=(",", ":"))
    info = ',"info":{"user":"","client":"00000000-0000-0000-0000-000000000000"}'
    filling = FRAME_BYTES - 4 - len(empty) - len(info)
    assert filling >= 0, "the frame is too small for its envelope"
    data = "~" + "x" * filling
    return json.dumps({"id": 3, "publish": {"channel": CHANNEL, "data": data}}, separators=(",", ":"))


def measure(subscribers: int, windows: dict[int, int], rounds: int) -> Iterator[tuple[int, Series, Series]]:
    """For each window (messages in flight -> messages per round): the C loop's series and ours, taken in turn."""
    load = str(compile_c("load"))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        greetings, publish = folder / "greetings", folder / "publish"
        connect, subscribe = '{"id":1,"connect":{}}', json.dumps({"id": 2, "subscribe": {"channel": CHANNEL}})
        greetings.write_text(f"{connect}\t{subscribe}\n" * subscribers + connect)
        publish.write_text(publish_command())
        loop = stack.enter_context(Program([str(compile_c("loop")), str(FRAME_BYTES)]))
        loop_port = int(loop.read_line())
        ours = stack.enter_context(Beaconfire(CONFIG, {}))
        for window, messages in windows.items():
            common = [str(subscribers), str(greetings), str(publish), str(window), str(messages)]
            series = Series(), Series()
            for _ in range(rounds):
                for server, port, path, samples in (
                    (loop, loop_port, "/", series[0]),
                    (ours, ours.port, "/connection/websocket", series[1]),
                ):
                    _round(server, [load, str(port), path, *common], subscribers * messages, samples)
            yield window, *series


def _round(server: Program, command: list[str], deliveries: int, samples: Series) -> None:
    with Program(command, stdin=True) as load:
        assert load.read_line() == "ready"
        load.write_line("warm up")
        load.read_line()
        before_s = server.cpu_s()
        load.write_line("measure")
        seconds = float(load.read_line())
        samples.cpu_us.append((server.cpu_s() - before_s) / deliveries * 1e6)
        samples.rate.append(deliveries / seconds)
