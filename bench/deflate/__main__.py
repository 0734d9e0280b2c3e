"""`python -m bench.deflate`: CPU time and bytes of a delivery, with and without compression.

There are a thousand subscribers, and a backend that publishes the next message when all subscribers have received the
one before. CPU time is that of the server, including its work for the backend.
"""

from __future__ import annotations

import argparse
import json
import socket
import sys
from collections.abc import Mapping
from random import Random

import msgspec

from bench.deflate.content import order
from bench.deflate.subscribers import CHANNELS, channel
from bench.peers.beaconfire import Beaconfire
from bench.peers.centrifuge import api_request
from bench.processes import Program

SUBSCRIBERS = 1000
SIZES = (500, 2000)
OFFER = "permessage-deflate; client_max_window_bits"
LEVELS = (0, 1, 6)
"""0 means no compression."""

_WARM_UP = 20


class CompressionResults(msgspec.Struct, frozen=True):
    """Averages per delivery; `resident_bytes` is per connection, after the last delivery."""

    bytes: float
    cpu_us: float
    compressed: float
    resident_bytes: float


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.deflate", description=__doc__)
    parser.add_argument("--messages", type=int, default=100, help="number of messages in each measurement")
    parser.add_argument(
        "--rounds",
        type=int,
        default=3,
        help="number of measurements of each kind, in turns; the one with the least CPU counts",
    )
    arguments = parser.parse_args()
    print("| subscribers | message | compression | bytes per delivery | CPU per delivery | memory per connection |")
    print("|---|--:|---|--:|--:|--:|")
    for distribution in CHANNELS:
        for size in SIZES:
            rounds: dict[int, list[CompressionResults]] = {level: [] for level in LEVELS}
            for _ in range(arguments.rounds):
                for level in LEVELS:
                    rounds[level].append(measure(distribution, size, level, arguments.messages))
            for level in LEVELS:
                results = min(rounds[level], key=lambda results: results.cpu_us)
                assert results.compressed == (1 if level else 0), "either all messages or none must be compressed"
                print(
                    f"| {distribution} | {size} | {f'level {level}' if level else 'off'} | {results.bytes:,.0f} "
                    f"| {results.cpu_us:.2f} µs | {results.resident_bytes / 1024:.1f} KiB |",
                    flush=True,
                )


def measure(distribution: str, size: int, level: int, messages: int) -> CompressionResults:
    """Publishes `messages` messages of about `size` bytes to all subscribers."""
    random = Random(size)
    with Beaconfire().start(settings(level)) as running:
        empty = running.resident_bytes()
        command = [
            sys.executable,
            "-m",
            "bench.deflate.subscribers",
            str(running.port),
            str(SUBSCRIBERS),
            distribution,
            OFFER,
        ]
        with Program(command) as subscribers, socket.create_connection(("127.0.0.1", running.port)) as backend:
            assert subscribers.read_line() == "ready"
            totals = [0, 0]

            def publish() -> None:
                backend.sendall(api_request(running.port, *call(distribution, order(random, size))))
                _read_response(backend)
                totals[:] = map(int, subscribers.read_line().split())

            for _ in range(_WARM_UP):
                publish()
            bytes_before, compressed_before = totals
            cpu_before_s = running.cpu_s()
            for _ in range(messages):
                publish()
            deliveries = messages * SUBSCRIBERS
            return CompressionResults(
                (totals[0] - bytes_before) / deliveries,
                (running.cpu_s() - cpu_before_s) / deliveries * 1e6,
                (totals[1] - compressed_before) / deliveries,
                (running.resident_bytes() - empty) / SUBSCRIBERS,
            )


def settings(level: int) -> Mapping[str, str]:
    return {"websocket.compression": "true", "websocket.compression_level": str(level)} if level else {}


def call(distribution: str, data: object) -> tuple[str, bytes]:
    """Method and body of the API call that reaches every subscriber once."""
    if distribution == "one room":
        return "publish", json.dumps({"channel": channel(distribution, 0), "data": data}).encode()
    channels = [channel(distribution, number) for number in range(SUBSCRIBERS)]
    return "broadcast", json.dumps({"channels": channels, "data": data}).encode()


def _read_response(backend: socket.socket) -> None:
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += backend.recv(64 * 1024)
    head, _, body = answer.partition(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    while len(body) < length:
        body += backend.recv(64 * 1024)
    if b'"error"' in body:
        raise RuntimeError(f"not published: {body[:500]!r}")


if __name__ == "__main__":
    main()
