"""The messages between the load test and its workers: one JSON object per line.

The load test writes commands to a worker's standard input: `Configure` once, then `OpenConnections`, `StartRun`,
`FinishRun` and `CloseConnections` as often as needed. The end of the input ends the worker. The worker writes updates
to its standard output. The counts in an update are those of one worker: in `RunProgress` since `StartRun`, in
`OpenProgress` since `OpenConnections`.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec
from msgspec import Struct

from beaconfire.loadtest.failures import Failure
from beaconfire.loadtest.histogram import HistogramCounts
from beaconfire.loadtest.plan import Plan

LINE_BYTES_MAX: Final = 1 << 26


class Configure(Struct, frozen=True, tag=True):
    """The plan and the number of this worker. No update follows."""

    plan: Plan
    worker: int


class OpenConnections(Struct, frozen=True, tag=True):
    """Open and subscribe the connections that are not open. `OpenProgress` follows ten times a second, then
    `ConnectionsOpened`."""


class StartRun(Struct, frozen=True, tag=True):
    """Publish, from a monotonic time on. `RunProgress` follows ten times a second until `FinishRun`.

    `subscribers` is the number of subscribers of each channel, over all workers.
    """

    start_ns: int
    rate: float
    duration_s: float
    subscribers: tuple[int, ...]


class Stop(Struct, frozen=True, tag=True):
    """Open no more connections and publish no more. The update that was due anyway follows soon."""


class FinishRun(Struct, frozen=True, tag=True):
    """The run is over, even if deliveries are missing. `RunFinished` follows."""


class CloseConnections(Struct, frozen=True, tag=True):
    """Close all connections. `ConnectionsClosed` follows."""


class OpenProgress(Struct, frozen=True, tag=True):
    opened: int
    failed: int


class ConnectionsOpened(Struct, frozen=True, tag=True):
    """`subscribers` of each channel among the worker's connections. `connect_ns` is the time from the start of the
    TCP connection to the reply to the last subscription."""

    subscribers: tuple[int, ...]
    connect_ns: HistogramCounts
    failures: tuple[Failure, ...]


class RunProgress(Struct, frozen=True, tag=True):
    """`expected` deliveries of the messages that this worker has sent, and `delivered` to its own connections."""

    sent: int = 0
    expected: int = 0
    delivered: int = 0
    open_connections: int = 1
    done: bool = False


class RunFinished(Struct, frozen=True, tag=True):
    """`cpu` is CPU time per elapsed time while publishing. `late_ns` is the delay from when messages were due until
    they were sent. `last_ns` is when the last delivery came."""

    sent: int
    expected: int
    delivered: int
    duplicated: int
    reordered: int
    latency_ns: HistogramCounts
    late_ns: HistogramCounts
    last_ns: int
    cpu: float
    failures: tuple[Failure, ...]


class ConnectionsClosed(Struct, frozen=True, tag=True):
    pass


WorkerCommand: TypeAlias = Configure | OpenConnections | StartRun | Stop | FinishRun | CloseConnections
WorkerUpdate: TypeAlias = OpenProgress | ConnectionsOpened | RunProgress | RunFinished | ConnectionsClosed

decode_command: Final = msgspec.json.Decoder(WorkerCommand).decode
decode_update: Final = msgspec.json.Decoder(WorkerUpdate).decode


def encode_line(message: WorkerCommand | WorkerUpdate) -> bytes:
    return msgspec.json.encode(message) + b"\n"
