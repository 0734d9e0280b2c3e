"""Requests and results of the methods about a migration: migration, migration_read and migration_verify."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, field

from beaconfire.api.messages.common import ApiRequest, ApiResult


class MigrationRequest(ApiRequest, frozen=True, kw_only=True):
    """Error 108 if no migration is configured. The other methods about the migration have the same result."""


class MigrationReadRequest(ApiRequest, frozen=True, kw_only=True):
    """Takes effect at once, until the next start. Error 108 if no migration is configured."""

    percent: Annotated[float, Meta(ge=0, le=100, description="From 0, which steps back to the old engine, to 100.")]


class MigrationVerifyRequest(ApiRequest, frozen=True, kw_only=True):
    """Error 108 if no migration is configured. The result comes later, as `verified` of `migration`."""


class DifferenceEntry(ApiResult, frozen=True, kw_only=True, omit_defaults=True):
    """A difference between the two engines. It contains no payload."""

    channel: str
    what: str


class StreamTotalsEntry(ApiResult, frozen=True, kw_only=True, omit_defaults=True):
    """What was compared in one engine."""

    channels: int
    publications: int
    hash: Annotated[str, Meta(description="Over everything that was compared except times.")]


class VerificationEntry(ApiResult, frozen=True, kw_only=True, omit_defaults=True):
    """A comparison of all channels that has finished."""

    number: int
    old: StreamTotalsEntry
    new: StreamTotalsEntry
    different: Annotated[int, Meta(description="How many channels differ. They are copied again.")]
    differences: Annotated[list[DifferenceEntry], Meta(description="The first 1,000 differences.")] = field(
        default_factory=list
    )


class MigrationResult(ApiResult, frozen=True, kw_only=True, omit_defaults=True):
    """How far the migration is."""

    old: Annotated[str, Meta(description="The engine that decides.")]
    new: Annotated[str, Meta(description="The engine that follows.")]
    phase: Annotated[str, Meta(description="`copying`, `following` or `verifying`.")]
    channels: Annotated[int, Meta(description="Channels that are done in this phase.")]
    total: Annotated[int, Meta(description="About how many channels this phase has.")]
    waiting: Annotated[int, Meta(description="Channels with changes that the new engine does not have yet.")]
    read_percent: Annotated[
        float, Meta(description="The part of the channels whose history is read from the new engine.")
    ]
    problem: Annotated[str, Meta(description="Why the new engine cannot be used at present.")] = ""
    verification: Annotated[int, Meta(description="The number of the verification that was started last.")] = 0
    verified: Annotated[
        VerificationEntry | None, Meta(description="The result of the verification that was finished last.")
    ] = None
