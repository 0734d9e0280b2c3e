"""A caller without a session, and policies with a fixed answer or none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Raw, Struct

from beaconfire.channels.namespaces import Namespace
from beaconfire.model.grants import SubscriptionGrant
from beaconfire.model.identity import Identity
from beaconfire.model.requests import SubscriptionRequest
from beaconfire.policy.no_opinion import NoOpinion
from beaconfire.policy.port import Caller, ConnectionAttempt, EndedSession, EndedSubscription, PublicationAttempt, Via


class FakeCaller(Struct, frozen=True):
    """Implements `policy.port.Caller`."""

    client: str
    identity: Identity


class AnsweringPolicy(NoOpinion):
    """Gives the same answer to every decision: what `answers` returns or raises for the name of the decision.

    `asked` records the decisions that were asked, with what the policy got to decide about.
    """

    def __init__(self, answers: Callable[[str], Any]) -> None:
        self._answers = answers
        self.asked: list[tuple[str, Any]] = []

    def _answer(self, decision: str, subject: Any) -> Any:
        self.asked.append((decision, subject))
        return self._answers(decision)

    async def connect(self, attempt: ConnectionAttempt) -> Identity | None:
        return self._answer("connect", attempt)  # type: ignore[no-any-return]

    async def refresh(self, caller: Caller, token: str) -> Identity | None:
        return self._answer("refresh", token)  # type: ignore[no-any-return]

    async def subscribe(
        self,
        caller: Caller,
        request: SubscriptionRequest,
        namespace: Namespace,
        via: Via,
        proposed: SubscriptionGrant | None,
    ) -> SubscriptionGrant | None:
        return self._answer("subscribe", proposed)  # type: ignore[no-any-return]

    async def sub_refresh(self, caller: Caller, channel: str, token: str) -> SubscriptionGrant | None:
        return self._answer("sub_refresh", token)  # type: ignore[no-any-return]

    async def publish(self, attempt: PublicationAttempt) -> Raw | None:
        return self._answer("publish", attempt)  # type: ignore[no-any-return]

    async def presence(self, caller: Caller, channel: str, namespace: Namespace, subscribed: bool) -> bool | None:
        return self._answer("presence", channel)  # type: ignore[no-any-return]

    async def history(self, caller: Caller, channel: str, namespace: Namespace, subscribed: bool) -> bool | None:
        return self._answer("history", channel)  # type: ignore[no-any-return]

    async def rpc(self, caller: Caller, method: str, data: Raw) -> Raw | None:
        return self._answer("rpc", method)  # type: ignore[no-any-return]

    async def message(self, caller: Caller, data: Raw) -> bool | None:
        return self._answer("message", data)  # type: ignore[no-any-return]


class EndingsRecorder(NoOpinion):
    """A policy that wants to know what has ended."""

    wants_endings = True

    def __init__(self, suspends_in: frozenset[str] = frozenset()) -> None:
        self._suspends_in = suspends_in
        self.ended: list[Sequence[EndedSubscription] | Sequence[EndedSession]] = []

    @property
    def suspending(self) -> frozenset[str]:
        return self._suspends_in

    async def unsubscribed(self, ended: Sequence[EndedSubscription]) -> None:
        self.ended.append(ended)

    async def disconnected(self, ended: Sequence[EndedSession]) -> None:
        self.ended.append(ended)
