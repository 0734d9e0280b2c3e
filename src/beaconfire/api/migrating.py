"""API methods about the migration to another engine. With several worker processes, any worker answers for all."""

from __future__ import annotations

from msgspec import structs

from beaconfire.api.context import ApiContext
from beaconfire.api.messages.migrating import (
    DifferenceEntry,
    MigrationReadRequest,
    MigrationRequest,
    MigrationResult,
    MigrationVerifyRequest,
    StreamTotalsEntry,
    VerificationEntry,
)
from beaconfire.engines.migration import MigrationStatus, StreamTotals, Verification


async def migration(api: ApiContext, request: MigrationRequest) -> MigrationResult:
    """How far the migration is."""
    return _result(await api.migration.status())


async def migration_read(api: ApiContext, request: MigrationReadRequest) -> MigrationResult:
    """Changes the part of the channels that is read from the new engine."""
    return _result(await api.migration.set_read_percent(request.percent))


async def migration_verify(api: ApiContext, request: MigrationVerifyRequest) -> MigrationResult:
    """Starts a verification, and does not wait for its result."""
    return _result(await api.migration.verify())


def _result(status: MigrationStatus) -> MigrationResult:
    verified = None if status.verified is None else _verification(status.verified)
    return MigrationResult(**{**structs.asdict(status), "verified": verified})


def _verification(verification: Verification) -> VerificationEntry:
    return VerificationEntry(
        number=verification.number,
        old=_totals(verification.old),
        new=_totals(verification.new),
        different=verification.different,
        differences=[DifferenceEntry(channel=each.channel, what=each.what) for each in verification.differences],
    )


def _totals(totals: StreamTotals) -> StreamTotalsEntry:
    return StreamTotalsEntry(channels=totals.channels, publications=totals.publications, hash=totals.hash)
