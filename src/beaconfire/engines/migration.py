"""The port of a migration: the streams of a running engine are copied to a new engine, which then follows every change.

How a migration works is described in `engines.mirror`. The larger types are `array_like`, as parts of messages between
processes are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, Protocol, TypeAlias

from msgspec import Struct

from beaconfire.base.errors import NOT_AVAILABLE, CommandError

Phase: TypeAlias = Literal["copying", "following", "verifying"]


class Difference(Struct, frozen=True):
    """One difference of a channel. `what` is a sentence for operators; it contains no payload."""

    channel: str
    what: str


class StreamTotals(Struct, frozen=True, array_like=True):
    """What was compared in one engine. `hash` is over all of it, in hexadecimal digits, whatever the order."""

    channels: int
    publications: int
    hash: str


class Verification(Struct, frozen=True, array_like=True):
    """The result of a comparison of all channels. `number` counts the verifications since the start of the engine.

    `different` counts the channels. `differences` lists the first differences, not all if there are many.
    """

    number: int
    old: StreamTotals
    new: StreamTotals
    different: int
    differences: Sequence[Difference]


class MigrationStatus(Struct, frozen=True, array_like=True):
    """How far a migration is. `old` and `new` are the names of the engines.

    `channels` of about `total` are done in this phase. `waiting` channels have changes that the new engine does not
    have yet. `read_percent` is the part of the channels whose history is read from the new engine. `problem` is why the
    new engine cannot be written at present, or empty. `verification` is the number of the verification that was started
    last, 0 without any, and `verified` the result of the one that was finished last.
    """

    old: str
    new: str
    phase: Phase
    channels: int
    total: int
    waiting: int
    read_percent: float
    problem: str
    verification: int = 0
    verified: Verification | None = None


class Migration(Protocol):
    """What operators can do. Each method returns the status after it. Errors are those of `engines.port`.

    Without a migration, each method raises CommandError 108.
    """

    async def status(self) -> MigrationStatus:
        """How far the migration is."""

    async def set_read_percent(self, percent: float) -> MigrationStatus:
        """Reads the history of this part of the channels from the new engine, from 0 to 100. Takes effect at once. 0
        steps back. With 100, the new engine is the one that goes on after the end of the old one."""

    async def verify(self) -> MigrationStatus:
        """Starts a comparison of all channels, after the copy. One that runs begins again, with a new number."""


class NoMigration:
    """Implements `Migration` for an engine without one."""

    async def status(self) -> MigrationStatus:
        raise _none()

    async def set_read_percent(self, percent: float) -> MigrationStatus:
        raise _none()

    async def verify(self) -> MigrationStatus:
        raise _none()


def _none() -> CommandError:
    return CommandError(NOT_AVAILABLE, "no migration is configured: set migration.to, and restart the server")


NO_MIGRATION: Final = NoMigration()

__all__ = [
    "NO_MIGRATION",
    "Difference",
    "Migration",
    "MigrationStatus",
    "NoMigration",
    "Phase",
    "StreamTotals",
    "Verification",
]
