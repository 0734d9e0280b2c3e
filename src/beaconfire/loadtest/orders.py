"""What a campaign and its workers say to each other: one JSON object a line, orders one way, notes the other.

The campaign says `Begin` once, then `Open`, `Go`, `Finish` and `Close` as often as it likes; the end of its words ends
the worker. Counts in notes are of one worker; those of `Running` since `Go`, those of `Opening` since `Open`.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec
from msgspec import Struct

from beaconfire.loadtest.codes import Kind
from beaconfire.loadtest.histogram import Counts
from beaconfire.loadtest.plan import Plan

LINE_BYTES_MAX: Final = 1 << 26


class Begin(Struct, frozen=True, tag=True):
    """Who the worker is. Answered by nothing."""

    plan: Plan
    worker: int


class Open(Struct, frozen=True, tag=True):
    """Connect and subscribe what is not connected. Answered by `Opening` now and then, and `Opened`."""


class Go(Struct, frozen=True, tag=True):
    """Publish, from a monotonic time on. Answered by `Running` ten times a second until `Finish`.

    `members` is the number of subscribers of each channel, over all workers.
    """

    start_ns: int
    rate: float
    duration_s: float
    members: tuple[int, ...]


class Halt(Struct, frozen=True, tag=True):
    """Open and publish no more. Answered by what comes next anyway, soon."""


class Finish(Struct, frozen=True, tag=True):
    """The run is over, whatever is missing. Answered by `Finished`."""


class Close(Struct, frozen=True, tag=True):
    """End all connections. Answered by `Closed`."""


class Trouble(Struct, frozen=True):
    """Something that went wrong `count` times. `code` is 0 where there is none."""

    kind: Kind
    code: int
    reason: str
    count: int


class Opening(Struct, frozen=True, tag=True):
    opened: int
    failed: int


class Opened(Struct, frozen=True, tag=True):
    """`members` of each channel among its connections; `connect_ns` from dialling to the last subscription."""

    members: tuple[int, ...]
    connect_ns: Counts
    troubles: tuple[Trouble, ...]


class Running(Struct, frozen=True, tag=True):
    """`expected` deliveries are those of what it has sent, `arrived` those that came to its own connections."""

    sent: int = 0
    expected: int = 0
    arrived: int = 0
    alive: int = 1
    done: bool = False


class Finished(Struct, frozen=True, tag=True):
    """`cpu` is CPU time per time, while publishing; `late_ns` is by how much messages left after they were due."""

    sent: int
    expected: int
    arrived: int
    duplicated: int
    reordered: int
    latency_ns: Counts
    late_ns: Counts
    last_ns: int
    cpu: float
    troubles: tuple[Trouble, ...]


class Closed(Struct, frozen=True, tag=True):
    pass


Order: TypeAlias = Begin | Open | Go | Halt | Finish | Close
Note: TypeAlias = Opening | Opened | Running | Finished | Closed

read_order: Final = msgspec.json.Decoder(Order).decode
read_note: Final = msgspec.json.Decoder(Note).decode


def line(words: Order | Note) -> bytes:
    return msgspec.json.encode(words) + b"\n"
