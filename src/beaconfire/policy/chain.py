"""Several policies as one. Every policy is asked, in order, so a permission never hides a refusal."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from msgspec import Raw
from msgspec.structs import replace

from beaconfire.channels.namespaces import Namespace
from beaconfire.model.grants import SubscriptionGrant
from beaconfire.model.identity import Identity
from beaconfire.model.requests import SubscriptionRequest
from beaconfire.policy.port import (
    Caller,
    ConnectionAttempt,
    EndedSession,
    EndedSubscription,
    Policy,
    PublicationAttempt,
    Via,
)

T = TypeVar("T")
FromToken = TypeVar("FromToken", Identity, SubscriptionGrant)


class PolicyChain:
    """Implements `policy.port.Policy`.

    The answer of a later policy replaces that of an earlier one. The first policy that refuses ends the chain. An rpc
    or a message has one result, so there the first policy with an answer ends the chain as well.
    """

    def __init__(self, policies: Sequence[Policy]) -> None:
        self._policies = tuple(policies)

    @property
    def suspending(self) -> frozenset[str]:
        return frozenset[str]().union(*(policy.suspending for policy in self._policies))

    @property
    def decides_for_server_api(self) -> bool:
        return any(policy.decides_for_server_api for policy in self._policies)

    @property
    def wants_endings(self) -> bool:
        return any(policy.wants_endings for policy in self._policies)

    @property
    def ticket_version(self) -> str | None:
        versions = [policy.ticket_version for policy in self._policies]
        if None in versions:
            return None
        return "\n".join(version for version in versions if version)

    async def connect(self, attempt: ConnectionAttempt) -> Identity | None:
        for policy in self._policies:
            identity = await policy.connect(attempt)
            if identity is not None:
                attempt = replace(attempt, proposed=_with_token(identity, attempt.proposed))
        return attempt.proposed

    async def refresh(self, caller: Caller, token: str) -> Identity | None:
        identity = None
        for policy in self._policies:
            answer = await policy.refresh(caller, token)
            identity = _with_token(answer, identity) if answer is not None else identity
        return identity

    async def subscribe(
        self,
        caller: Caller,
        request: SubscriptionRequest,
        namespace: Namespace,
        via: Via,
        proposed: SubscriptionGrant | None,
    ) -> SubscriptionGrant | None:
        for policy in self._policies:
            answer = await policy.subscribe(caller, request, namespace, via, proposed)
            proposed = _with_token(answer, proposed) if answer is not None else proposed
        return proposed

    async def sub_refresh(self, caller: Caller, channel: str, token: str) -> SubscriptionGrant | None:
        grant = None
        for policy in self._policies:
            answer = await policy.sub_refresh(caller, channel, token)
            grant = _with_token(answer, grant) if answer is not None else grant
        return grant

    async def publish(self, attempt: PublicationAttempt) -> Raw | None:
        permitted = None
        for policy in self._policies:
            data = await policy.publish(attempt)
            if data is not None:
                permitted = data
                attempt = attempt if data is attempt.data else replace(attempt, data=data)
        return permitted

    async def presence(self, caller: Caller, channel: str, namespace: Namespace, subscribed: bool) -> bool | None:
        permitted = None
        for policy in self._policies:
            answer = await policy.presence(caller, channel, namespace, subscribed)
            if answer is False:
                return False
            permitted = answer or permitted
        return permitted

    async def history(self, caller: Caller, channel: str, namespace: Namespace, subscribed: bool) -> bool | None:
        permitted = None
        for policy in self._policies:
            answer = await policy.history(caller, channel, namespace, subscribed)
            if answer is False:
                return False
            permitted = answer or permitted
        return permitted

    async def rpc(self, caller: Caller, method: str, data: Raw) -> Raw | None:
        for policy in self._policies:
            result = await policy.rpc(caller, method, data)
            if result is not None:
                return result
        return None

    async def message(self, caller: Caller, data: Raw) -> bool | None:
        for policy in self._policies:
            if await policy.message(caller, data):
                return True
        return None

    async def unsubscribed(self, ended: Sequence[EndedSubscription]) -> None:
        await _tell(ended, [policy.unsubscribed for policy in self._policies if policy.wants_endings])

    async def disconnected(self, ended: Sequence[EndedSession]) -> None:
        await _tell(ended, [policy.disconnected for policy in self._policies if policy.wants_endings])


def _with_token(answer: FromToken, before: FromToken | None) -> FromToken:
    """The answer, with the token and the client id of the answer before it. Otherwise a policy that replaces an
    identity or a grant would make its token impossible to revoke, or its grant valid for another session."""
    if before is None or before.issued_at_unix_s is None or answer.issued_at_unix_s is not None:
        return answer
    if isinstance(before, SubscriptionGrant):
        answer = replace(answer, client=before.client)
    return replace(answer, issued_at_unix_s=before.issued_at_unix_s, token_id=before.token_id)


async def _tell(ended: T, listeners: Sequence[Callable[[T], Awaitable[None]]]) -> None:
    """Calls the listeners in order. A failure of one does not keep the endings from the others, and is raised at the
    end."""
    failures: list[Exception] = []
    for listener in listeners:
        try:
            await listener(ended)
        except Exception as error:  # noqa: BLE001 - raised below
            failures.append(error)
    try:
        if len(failures) > 1:
            raise ExceptionGroup("several policies have failed", failures)
        if failures:
            raise failures[0]
    finally:
        del failures  # a failure refers to this frame, which would refer to the failure
