"""The base class of policies that decide only some of the questions."""

from __future__ import annotations

import pytest

from beaconfire.policy.no_opinion import NoOpinion
from beaconfire.policy.port import DECISIONS, Policy
from tests.unit.kit import run
from tests.unit.policy.test_chain import QUESTIONS


@pytest.mark.parametrize("decision", DECISIONS)
def test_no_decision_has_an_answer(decision: str) -> None:
    """None neither permits nor refuses."""
    assert run(QUESTIONS[decision](NoOpinion())) is None


def test_a_policy_without_opinions_costs_nothing() -> None:
    """It never suspends, and is not told about endings. It may be called nevertheless."""
    policy: Policy = NoOpinion()
    assert (policy.suspending, policy.wants_endings) == (frozenset(), False)
    run(policy.unsubscribed(()))
    run(policy.disconnected(()))
