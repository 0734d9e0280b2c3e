"""The base class of policies that decide only some of the questions."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from msgspec import Raw

from beaconfire.channels.namespaces import Namespace
from beaconfire.model.grants import SubscriptionGrant
from beaconfire.model.requests import SubscriptionRequest
from beaconfire.policy.chain import PolicyChain
from beaconfire.policy.no_opinion import NoOpinion
from beaconfire.policy.port import DECISIONS, Caller, EndedSession, EndedSubscription, Policy, PublicationAttempt, Via
from tests.unit.kit import run
from tests.unit.policy.test_chain import QUESTIONS


@pytest.mark.parametrize("decision", DECISIONS)
def test_no_decision_has_an_answer(decision: str) -> None:
    """None neither permits nor refuses."""
    assert run(QUESTIONS[decision](NoOpinion())) is None


def test_a_policy_without_opinions_costs_nothing() -> None:
    """It never suspends, and is neither told about endings nor asked about the server API. It may be called anyway."""
    policy: Policy = NoOpinion()
    assert (policy.suspending, policy.wants_endings, policy.decides_for_server_api) == (frozenset(), False, False)
    run(policy.unsubscribed(()))
    run(policy.disconnected(()))


class Publishing(NoOpinion):
    async def publish(self, attempt: PublicationAttempt) -> Raw | None:
        return attempt.data


class WhenUnsubscribed(NoOpinion):
    async def unsubscribed(self, ended: Sequence[EndedSubscription]) -> None:
        pass


class WhenDisconnected(NoOpinion):
    async def disconnected(self, ended: Sequence[EndedSession]) -> None:
        pass


class OfSubclass(WhenDisconnected):
    """Inherits what it wants."""


@pytest.mark.parametrize(
    ("policy", "for_server_api", "endings"),
    [
        (Publishing(), True, False),
        (WhenUnsubscribed(), False, True),
        (WhenDisconnected(), False, True),
        (OfSubclass(), False, True),
    ],
)
def test_what_a_subclass_overrides_is_called(policy: Policy, for_server_api: bool, endings: bool) -> None:
    """Nothing else must be declared, and what is not overridden costs nothing."""
    assert (policy.decides_for_server_api, policy.wants_endings) == (for_server_api, endings)


class Subscribing(NoOpinion):
    async def subscribe(
        self,
        caller: Caller,
        request: SubscriptionRequest,
        namespace: Namespace,
        via: Via,
        proposed: SubscriptionGrant | None,
    ) -> SubscriptionGrant | None:
        return SubscriptionGrant()


class Versioned(Subscribing):
    ticket_version = "2"


@pytest.mark.parametrize(
    ("policies", "version"),
    [
        ((), ""),
        ((Publishing,), ""),
        ((Subscribing,), None),
        ((Versioned, Publishing), "2"),
        ((Versioned, Subscribing), None),
    ],
)
def test_decisions_are_in_tickets_only_if_the_policy_names_a_version(
    policies: tuple[type[NoOpinion], ...], version: str | None
) -> None:
    """A policy that makes such a decision says itself whether it holds for later connections of the user."""
    assert PolicyChain([policy() for policy in policies]).ticket_version == version
