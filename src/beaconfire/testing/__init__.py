"""Tools to test code that uses an engine, and to test engines: engines that are slow, fail and lose their link.

* `SharedStore` has an engine for each of several nodes in one process. Their links can be lost and restored.
* `control_calls` puts a `CallControl` in front of the calls of any engine: `ManualCalls` does what a test asks for,
  `RandomCalls` decides by random numbers.

Nothing here uses real time or real randomness: time comes from `Timers`, random numbers from a function.
"""

from __future__ import annotations

from beaconfire.testing.calls import CallControl, ManualCalls, RandomCalls, control_calls
from beaconfire.testing.shared import SharedEngine, SharedStore
from beaconfire.testing.shared_link import SharedLink

__all__ = [
    "CallControl",
    "ManualCalls",
    "RandomCalls",
    "SharedEngine",
    "SharedLink",
    "SharedStore",
    "control_calls",
]
