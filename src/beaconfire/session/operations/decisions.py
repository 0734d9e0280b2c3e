"""Asks the policy on behalf of a session. All operations, and the server API, ask here.

A request that no policy permits is refused. A decision that may suspend has a deadline, and the end of its session
cancels it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from msgspec import Raw

from beaconfire.base.deadlines import Deadlines
from beaconfire.base.errors import (
    COMMAND_NOT_AVAILABLE,
    CONNECTION_CLOSED,
    CONNECTION_EXPIRED,
    INTERNAL,
    METHOD_NOT_FOUND,
    NOT_AVAILABLE,
    PERMISSION_DENIED,
    SUBSCRIPTION_EXPIRED,
    TOKEN_EXPIRED,
    UNAUTHORIZED,
    CommandError,
    Disconnect,
    DisconnectCode,
)
from beaconfire.base.timers import Timers
from beaconfire.channels.namespaces import Namespace
from beaconfire.model.events import EventSink, LimitHit
from beaconfire.model.grants import SubscriptionGrant
from beaconfire.model.identity import Identity
from beaconfire.model.requests import ConnectionRequest, SubscriptionRequest
from beaconfire.policy.port import ConnectionAttempt, Policy, PublicationAttempt, Via
from beaconfire.session.operations.lookup import check_connected
from beaconfire.session.revocations import Revocations
from beaconfire.session.session import Session

T = TypeVar("T")


class Decisions:
    """Every method raises CommandError to refuse, or Disconnect to end the session as well."""

    def __init__(
        self, policy: Policy, revocations: Revocations, timeout_s: float, timers: Timers, events: EventSink
    ) -> None:
        """`timeout_s` is the deadline of one decision."""
        self._policy = policy
        self._revocations = revocations
        self.suspending = policy.suspending
        self.asks_about_server_api = policy.decides_for_server_api
        """Whether publications of the server API need a decision."""
        self._timeout_s = timeout_s
        self._deadlines = Deadlines(timeout_s, timers)
        self._events = events

    async def connect(self, session: Session, request: ConnectionRequest) -> Identity:
        assert session.handshake is not None, "the session has not connected yet"
        attempt = ConnectionAttempt(request, session.client, session.handshake)
        identity = await self._ask(session, "connect", self._policy.connect(attempt))
        if identity is None:
            raise CommandError(UNAUTHORIZED, "no token: send a connection token")
        self._revocations.check_identity(identity)
        return identity

    def resume(self, identity: Identity) -> Identity:
        """The identity of a ticket: no policy is asked. Revocations are checked as those of a token."""
        self._revocations.check_identity(identity)
        return identity

    def revokes(self, session: Session, channel: str, grant: SubscriptionGrant) -> bool:
        """Whether the grant of a ticket was revoked."""
        return self._revocations.revokes_subscription(session.user, channel, grant)

    def resume_subscription(self, session: Session, channel: str, grant: SubscriptionGrant) -> SubscriptionGrant:
        """The grant of a ticket: no policy is asked. Revocations are checked as those of a token."""
        self._revocations.check_grant(session.user, channel, grant)
        return grant

    async def refresh(self, session: Session, token: str) -> Identity:
        identity = await self._ask(session, "refresh", self._policy.refresh(session, token))
        if identity is None:
            raise CommandError(PERMISSION_DENIED, "the connection cannot be refreshed")
        with _ending(CONNECTION_EXPIRED):
            self._revocations.check_identity(identity)
        return identity

    async def subscribe(
        self,
        session: Session,
        request: SubscriptionRequest,
        namespace: Namespace,
        via: Via,
        proposed: SubscriptionGrant | None = None,
    ) -> SubscriptionGrant:
        asked = self._policy.subscribe(session, request, namespace, via, proposed)
        grant = await (asked if "subscribe" not in self.suspending else self._ask(session, "subscribe", asked))
        grant = grant or proposed
        if grant is None:
            detail = f"channel {request.channel!r} needs a subscription token or a permission"
            raise CommandError(PERMISSION_DENIED, detail)
        self._revocations.check_grant(session.user, request.channel, grant)
        return grant

    async def sub_refresh(self, session: Session, channel: str, token: str) -> SubscriptionGrant:
        grant = await self._ask(session, "sub_refresh", self._policy.sub_refresh(session, channel, token))
        if grant is None:
            raise CommandError(PERMISSION_DENIED, f"the subscription to {channel!r} cannot be refreshed")
        with _ending(SUBSCRIPTION_EXPIRED):
            self._revocations.check_grant(session.user, channel, grant)
        return grant

    async def publish(self, session: Session | None, attempt: PublicationAttempt) -> Raw:
        """The data to publish. `session` is None for the server API."""
        asked = self._policy.publish(attempt)
        data = await (asked if "publish" not in self.suspending else self._ask(session, "publish", asked))
        if data is None:
            raise CommandError(PERMISSION_DENIED, f"publishing to {attempt.channel!r} is not permitted to this client")
        return data

    async def may_see_presence(self, session: Session, channel: str, namespace: Namespace, subscribed: bool) -> bool:
        asked = self._policy.presence(session, channel, namespace, subscribed)
        return bool(await self._ask(session, "presence", asked))

    async def may_read_history(self, session: Session, channel: str, namespace: Namespace, subscribed: bool) -> bool:
        asked = self._policy.history(session, channel, namespace, subscribed)
        return bool(await self._ask(session, "history", asked))

    async def rpc(self, session: Session, method: str, data: Raw) -> Raw:
        check_connected(session)
        result = await self._ask(session, "rpc", self._policy.rpc(session, method, data))
        if result is not None:
            return result
        if ":" in method:
            raise CommandError(METHOD_NOT_FOUND, f"no RPC namespace for method {method!r} is configured")
        raise CommandError(NOT_AVAILABLE, "no RPC handler is configured")

    async def message(self, session: Session, data: Raw) -> None:
        check_connected(session)
        if not await self._ask(session, "message", self._policy.message(session, data)):
            raise Disconnect(COMMAND_NOT_AVAILABLE, "send: no message handler is configured")

    async def _ask(self, session: Session | None, decision: str, asked: Coroutine[Any, Any, T]) -> T:
        """Waits for a decision. Frequent decisions that never suspend are not passed to this method."""
        if decision not in self.suspending:
            return await asked
        if session is not None and session.has_ended():  # nothing would cancel the decision
            asked.close()
            raise Disconnect(CONNECTION_CLOSED, f"{decision}: the session has ended")
        task = asyncio.current_task()
        assert task is not None, "a decision that may suspend runs in a task"
        if session is not None:
            session.begin_deciding(task)
        try:
            return await self._in_time(session, decision, asked)
        finally:
            if session is not None:
                session.end_deciding(task)
            del task  # a cancelled task refers to this frame, which would refer to the task

    async def _in_time(self, session: Session | None, decision: str, asked: Coroutine[Any, Any, T]) -> T:
        """The decision. Raises CommandError 100 if it is not made in time."""
        deadline = self._deadlines.start()
        try:
            answer = await asked
        except asyncio.CancelledError:
            if not deadline.finish():
                raise  # the session has ended
        except BaseException:
            deadline.finish()
            raise
        else:
            deadline.finish()
            return answer
        finally:
            del deadline  # refers to the task, which refers to this frame if it is cancelled
        self._events.emit(LimitHit("client.decision_timeout", session.client if session is not None else ""))
        detail = f"{decision}: no decision within client.decision_timeout ({self._timeout_s:g} s): try again"
        raise CommandError(INTERNAL, detail)


@contextmanager
def _ending(code: DisconnectCode) -> Iterator[None]:
    """Error 109 becomes a disconnect: SDKs do not ask for another token after an error reply to a refresh."""
    try:
        yield
    except CommandError as error:
        if error.code is TOKEN_EXPIRED:
            raise Disconnect(code, error.detail) from error
        raise
