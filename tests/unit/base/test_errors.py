"""What clients conclude from the numbers of disconnects and unsubscribes."""

from __future__ import annotations

import pytest

from beaconfire.base.errors import (
    DISCONNECTS,
    ERRORS,
    INTERNAL,
    UNSUBSCRIBES,
    CommandError,
    DisconnectCode,
    EngineError,
    EngineUnavailable,
    ErrorCode,
    NotReplicated,
    StorageFull,
    UnsubscribeCode,
)


@pytest.mark.parametrize(
    ("number", "reconnect"),
    [
        (3000, True),
        (3499, True),
        (3500, False),
        (3999, False),
        (4000, True),
        (4499, True),
        (4500, False),
        (4999, False),
    ],
)
def test_final_disconnects_have_their_ranges(number: int, reconnect: bool) -> None:
    """Clients do not reconnect after 3500-3999 and 4500-4999."""
    assert DisconnectCode(number, "", "").reconnect is reconnect


@pytest.mark.parametrize(("number", "resubscribe"), [(0, False), (2000, False), (2499, False), (2500, True)])
def test_clients_subscribe_again_from_2500(number: int, resubscribe: bool) -> None:
    """An unsubscribe below 2500 is final."""
    assert UnsubscribeCode(number, "", "").resubscribe is resubscribe


@pytest.mark.parametrize("codes", [ERRORS, DISCONNECTS, UNSUBSCRIBES])
def test_numbers_are_unique_and_sorted(codes: tuple[ErrorCode | DisconnectCode | UnsubscribeCode, ...]) -> None:
    """Each table is in the order of its numbers."""
    numbers = [code.code for code in codes]
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize("kind", [EngineError, EngineUnavailable, NotReplicated, StorageFull])
def test_every_failure_of_the_engine_is_the_same_temporary_error(kind: type[EngineError]) -> None:
    """So the client may try again. The detail says what failed."""
    error = kind("publish: no answer in 3 s")
    assert isinstance(error, CommandError)
    assert (error.code, error.code.temporary, error.detail) == (INTERNAL, True, "publish: no answer in 3 s")
