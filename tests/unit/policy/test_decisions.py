"""Asking the policy on behalf of a session: requests without a permission, deadlines, and the end of the session."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

import pytest
from msgspec import Raw

from beaconfire.base.clock import ManualClock
from beaconfire.base.errors import CONNECTION_CLOSED, CommandError, Disconnect
from beaconfire.base.timers import Timers
from beaconfire.channels.namespaces import Namespaces
from beaconfire.channels.options import ChannelNameOptions
from beaconfire.model.events import LimitHit
from beaconfire.model.grants import SubscriptionGrant
from beaconfire.model.requests import ConnectionRequest, SubscriptionRequest
from beaconfire.policy.no_opinion import NoOpinion
from beaconfire.policy.port import Caller, Policy, PublicationAttempt, Via
from beaconfire.session.operations.decisions import Decisions
from beaconfire.session.revocations import Revocations
from beaconfire.session.session import Session
from tests.fakes.events import EventRecorder
from tests.unit.kit import OPEN, NodeHarness, run, settle
from tests.unit.policy.fakes import AnsweringPolicy
from tests.unit.policy.test_chain import PERMISSIONS

NAMESPACE = Namespaces(OPEN, {}, ChannelNameOptions(), 1.0).resolve("news")
DATA = Raw(b"1")

Ask = Callable[[Decisions, Session], Coroutine[Any, Any, object]]


def publication(session: Session | None) -> PublicationAttempt:
    return PublicationAttempt(session, Via.COMMAND, "news", NAMESPACE, DATA)


ASK: Final[dict[str, Ask]] = {
    "connect": lambda decisions, session: decisions.connect(session, ConnectionRequest()),
    "refresh": lambda decisions, session: decisions.refresh(session, "token"),
    "subscribe": lambda decisions, session: decisions.subscribe(
        session, SubscriptionRequest("news"), NAMESPACE, Via.COMMAND
    ),
    "sub_refresh": lambda decisions, session: decisions.sub_refresh(session, "news", "token"),
    "publish": lambda decisions, session: decisions.publish(session, publication(session)),
    "presence": lambda decisions, session: decisions.may_see_presence(session, "news", NAMESPACE, True),
    "history": lambda decisions, session: decisions.may_read_history(session, "news", NAMESPACE, True),
    "rpc": lambda decisions, session: decisions.rpc(session, "echo", DATA),
    "message": lambda decisions, session: decisions.message(session, DATA),
}


TIMEOUT_S = 60.0


def decisions_of(policy: Policy, recorder: EventRecorder | None = None, timers: Timers | None = None) -> Decisions:
    if timers is None:
        timers = Timers(ManualClock())
    events = recorder or EventRecorder()
    return Decisions(policy, Revocations(timers.clock, events), TIMEOUT_S, timers, events)


def new_session() -> Session:
    """A session that has sent nothing yet."""
    return NodeHarness().open_session().session


def connected_session() -> Session:
    return NodeHarness().connect("ann").session


def session_for(decision: str) -> Session:
    """A session for which this decision may be asked."""
    return new_session() if decision == "connect" else connected_session()


@pytest.mark.parametrize(
    ("decision", "code"),
    [
        ("connect", 101),
        ("refresh", 103),
        ("subscribe", 103),
        ("sub_refresh", 103),
        ("publish", 103),
        ("rpc", 108),
        ("message", 3508),
    ],
)
def test_a_request_without_a_permission_is_refused(decision: str, code: int) -> None:
    """If no policy has an opinion. The detail says what is missing."""
    with pytest.raises((CommandError, Disconnect)) as raised:
        run(ASK[decision](decisions_of(NoOpinion()), session_for(decision)))
    assert isinstance(raised.value, CommandError | Disconnect)
    assert (raised.value.code.code, bool(raised.value.detail)) == (code, True)


def test_reading_without_a_permission_is_not_permitted() -> None:
    """The operations choose the error."""
    for decision in ("presence", "history"):
        assert run(ASK[decision](decisions_of(NoOpinion()), session_for(decision))) is False


@pytest.mark.parametrize(("method", "code"), [("", 108), ("echo", 108), ("unknown:echo", 104)])
def test_rpc_without_handlers_is_an_error(method: str, code: int) -> None:
    """108 for any method, 104 for an unknown namespace of methods (section 13)."""
    with pytest.raises(CommandError) as raised:
        run(decisions_of(NoOpinion()).rpc(connected_session(), method, DATA))
    assert raised.value.code.code == code


@pytest.mark.parametrize("decision", ASK)
def test_a_permission_is_passed_on(decision: str) -> None:
    """The identity, the grant or the data of the policy. A message has no result."""
    answer = run(ASK[decision](decisions_of(AnsweringPolicy(PERMISSIONS.__getitem__)), session_for(decision)))
    assert answer == (PERMISSIONS[decision] if decision != "message" else None)


def test_a_proposed_grant_needs_no_further_permission() -> None:
    """Of a connection token or of the server API. A policy may replace the grant, or refuse."""
    proposed, other = SubscriptionGrant(info=Raw(b"1")), SubscriptionGrant(info=Raw(b"2"))
    session, request = connected_session(), SubscriptionRequest("news")

    def granted(policy: Policy) -> SubscriptionGrant:
        return run(decisions_of(policy).subscribe(session, request, NAMESPACE, Via.SERVER_API, proposed))

    assert granted(NoOpinion()) is proposed
    assert granted(AnsweringPolicy(lambda _: other)) is other


def test_the_policy_of_connect_gets_the_request_the_client_id_and_the_handshake() -> None:
    """Handlers decide by headers, cookies and addresses."""
    policy, session = AnsweringPolicy(PERMISSIONS.__getitem__), new_session()
    request, handshake = ConnectionRequest(token="t"), session.handshake
    run(decisions_of(policy).connect(session, request))
    [(_, attempt)] = policy.asked
    assert (attempt.request, attempt.client) == (request, session.client)
    assert attempt.handshake is handshake is not None


# --- decisions that suspend -------------------------------------------------------------------------------------------


class SlowPolicy(NoOpinion):
    """Waits for the test before it answers an rpc or a publication."""

    suspending = frozenset({"rpc", "publish"})

    def __init__(self) -> None:
        self.resume = asyncio.Event()
        self.cancelled = 0
        self.error: Exception | None = None

    async def _wait(self) -> Raw:
        try:
            await self.resume.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        return DATA

    async def rpc(self, caller: Caller, method: str, data: Raw) -> Raw | None:
        return await self._wait()

    async def publish(self, attempt: PublicationAttempt) -> Raw | None:
        return await self._wait()


async def pass_time(timers: Timers, clock: ManualClock, seconds: float) -> None:
    """Lets the decisions begin, advances the clock, and lets what is due finish."""
    await settle()
    clock.advance(seconds)
    timers.run_due()
    await settle()


def test_a_slow_decision_is_awaited() -> None:
    """Its answer counts, and nothing of it stays in the session."""

    async def scenario() -> None:
        policy, session = SlowPolicy(), connected_session()
        asking = asyncio.create_task(decisions_of(policy).rpc(session, "echo", DATA))
        await settle()
        assert session._deciding == {asking: None}
        policy.resume.set()
        assert await asking is DATA
        assert session._deciding is None

    asyncio.run(scenario())


@pytest.mark.parametrize("decision", ["rpc", "publish"])
def test_a_decision_has_a_deadline(decision: str) -> None:
    """Then it is cancelled, the client gets error 100, which is temporary, and the limit is counted. The detail names
    the setting."""

    async def scenario() -> None:
        policy, session, recorder, clock = SlowPolicy(), connected_session(), EventRecorder(), ManualClock()
        timers = Timers(clock)
        asking = asyncio.ensure_future(ASK[decision](decisions_of(policy, recorder, timers), session))
        await pass_time(timers, clock, TIMEOUT_S - 0.5)
        assert not asking.done()
        await pass_time(timers, clock, 0.5)
        with pytest.raises(CommandError, match=r"client\.decision_timeout") as raised:
            await asking
        assert (raised.value.code.code, raised.value.code.temporary) == (100, True)
        assert policy.cancelled == 1
        assert recorder.of(LimitHit) == [LimitHit("client.decision_timeout", session.client)]
        assert session._deciding is None

    asyncio.run(scenario())


def test_decisions_for_the_server_api_have_a_deadline() -> None:
    """There is no session whose limit could be named."""

    async def scenario() -> None:
        recorder, clock = EventRecorder(), ManualClock()
        timers = Timers(clock)
        asking = asyncio.ensure_future(decisions_of(SlowPolicy(), recorder, timers).publish(None, publication(None)))
        await pass_time(timers, clock, TIMEOUT_S)
        with pytest.raises(CommandError):
            await asking
        assert recorder.of(LimitHit) == [LimitHit("client.decision_timeout", "")]

    asyncio.run(scenario())


def test_a_timeout_of_the_policy_itself_is_its_failure() -> None:
    """Like any other exception. It is not counted as the limit of the server."""

    async def scenario() -> None:
        policy, session, recorder = SlowPolicy(), connected_session(), EventRecorder()
        policy.error = TimeoutError("the database did not answer")
        policy.resume.set()
        with pytest.raises(TimeoutError, match="the database"):
            await decisions_of(policy, recorder).rpc(session, "echo", DATA)
        assert recorder.of(LimitHit) == []
        assert session._deciding is None

    asyncio.run(scenario())


def test_the_end_of_the_session_cancels_its_decisions() -> None:
    """All of them. Decisions for other sessions and for the server API continue."""

    async def scenario() -> None:
        policy, ending, other = SlowPolicy(), connected_session(), connected_session()
        decisions = decisions_of(policy)
        cancelled = [asyncio.create_task(decisions.rpc(ending, "echo", DATA)) for _ in range(2)]
        continued = [
            asyncio.create_task(decisions.rpc(other, "echo", DATA)),
            asyncio.create_task(decisions.publish(None, publication(None))),
        ]
        await settle()
        ending.end(CONNECTION_CLOSED)
        await asyncio.wait(cancelled)
        assert [task.cancelled() for task in cancelled] == [True, True]
        assert policy.cancelled == 2
        policy.resume.set()
        assert await asyncio.gather(*continued) == [DATA, DATA]

    asyncio.run(scenario())


def test_decisions_that_never_suspend_need_no_task() -> None:
    """They run without a running event loop, so commands can run in one step."""
    assert (
        run(decisions_of(AnsweringPolicy(PERMISSIONS.__getitem__)).rpc(connected_session(), "echo", DATA)) is not None
    )
