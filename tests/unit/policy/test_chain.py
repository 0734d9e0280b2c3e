"""A chain of policies: no permission hides a refusal, in no order."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

import pytest
from msgspec import Raw
from msgspec.structs import replace

from beaconfire.base.errors import INVALID_TOKEN, PERMISSION_DENIED, CommandError, Disconnect
from beaconfire.channels.namespaces import Namespaces
from beaconfire.channels.options import ChannelNameOptions
from beaconfire.model.grants import SubscriptionGrant
from beaconfire.model.identity import Identity
from beaconfire.model.publication import NO_PAYLOAD
from beaconfire.model.requests import ConnectionRequest, SubscriptionRequest
from beaconfire.policy.chain import PolicyChain
from beaconfire.policy.no_opinion import NoOpinion
from beaconfire.policy.port import (
    DECISIONS,
    ConnectionAttempt,
    EndedSession,
    EndedSubscription,
    Policy,
    PublicationAttempt,
    Via,
)
from tests.fakes.transport import HANDSHAKE
from tests.unit.kit import OPEN, run
from tests.unit.policy.fakes import AnsweringPolicy, EndingsRecorder, FakeCaller

NAMESPACE = Namespaces(OPEN, {}, ChannelNameOptions(), 1.0).resolve("news")
CALLER = FakeCaller("c1", Identity(user="ann"))
DATA = Raw(b"1")
PUBLICATION = PublicationAttempt(CALLER, Via.COMMAND, "news", NAMESPACE, DATA)

Question = Callable[[Policy], Coroutine[Any, Any, object]]
QUESTIONS: Final[dict[str, Question]] = {
    "connect": lambda policy: policy.connect(ConnectionAttempt(ConnectionRequest(), "c1", HANDSHAKE)),
    "refresh": lambda policy: policy.refresh(CALLER, "token"),
    "subscribe": lambda policy: policy.subscribe(CALLER, SubscriptionRequest("news"), NAMESPACE, Via.COMMAND, None),
    "sub_refresh": lambda policy: policy.sub_refresh(CALLER, "news", "token"),
    "publish": lambda policy: policy.publish(PUBLICATION),
    "presence": lambda policy: policy.presence(CALLER, "news", NAMESPACE, True),
    "history": lambda policy: policy.history(CALLER, "news", NAMESPACE, True),
    "rpc": lambda policy: policy.rpc(CALLER, "echo", DATA),
    "message": lambda policy: policy.message(CALLER, DATA),
}
PERMISSIONS: Final[dict[str, object]] = {
    "connect": Identity(user="ann"),
    "refresh": Identity(user="ann", expire_at_unix_s=5),
    "subscribe": SubscriptionGrant(),
    "sub_refresh": SubscriptionGrant(expire_at_unix_s=5),
    "publish": DATA,
    "presence": True,
    "history": True,
    "rpc": NO_PAYLOAD,
    "message": True,
}
"""An answer that permits, for each decision. The empty payload permits as well."""

FIRST_ANSWER_COUNTS = ("rpc", "message")
every_decision = pytest.mark.parametrize("decision", DECISIONS)


def permitting() -> AnsweringPolicy:
    return AnsweringPolicy(PERMISSIONS.__getitem__)


def refusing(error: Exception) -> AnsweringPolicy:
    def refuse(decision: str) -> object:
        raise error

    return AnsweringPolicy(refuse)


def ask(decision: str, *policies: Policy) -> object:
    return run(QUESTIONS[decision](PolicyChain(policies)))


def test_a_chain_is_a_policy() -> None:
    """So a chain may be part of a chain. mypy checks the assignment."""
    policy: Policy = PolicyChain([PolicyChain([NoOpinion()])])
    assert run(policy.rpc(CALLER, "echo", DATA)) is None


def test_every_decision_is_tested_here() -> None:
    """A new decision of the port must be added to these tests."""
    assert set(QUESTIONS) == set(PERMISSIONS) == set(DECISIONS)


@every_decision
def test_no_policy_has_an_opinion(decision: str) -> None:
    """Then the chain has none either: it does not permit. An empty chain permits nothing."""
    assert ask(decision, NoOpinion(), NoOpinion()) is None
    assert ask(decision) is None


@every_decision
@pytest.mark.parametrize("position", range(3))
def test_one_permission_suffices_if_no_policy_refuses(decision: str, position: int) -> None:
    """Whatever its position: a policy without an opinion changes nothing."""
    policies: list[Policy] = [NoOpinion(), NoOpinion()]
    policies.insert(position, permitting())
    assert ask(decision, *policies) == PERMISSIONS[decision]


@pytest.mark.parametrize("decision", [each for each in DECISIONS if each not in FIRST_ANSWER_COUNTS])
@pytest.mark.parametrize("position", range(4))
@pytest.mark.parametrize(
    "error", [CommandError(PERMISSION_DENIED), Disconnect(INVALID_TOKEN), ValueError("a defect of the policy")]
)
def test_no_permission_hides_a_refusal(decision: str, position: int, error: Exception) -> None:
    """Neither an earlier nor a later permission. A policy that fails has not permitted either."""
    policies: list[Policy] = [permitting(), NoOpinion(), permitting()]
    policies.insert(position, refusing(error))
    with pytest.raises(type(error)) as raised:
        ask(decision, *policies)
    assert raised.value is error


@pytest.mark.parametrize("decision", FIRST_ANSWER_COUNTS)
def test_a_refusal_of_a_call_ends_the_chain(decision: str) -> None:
    """A later policy cannot answer the call instead, nor run code for it."""
    later = permitting()
    with pytest.raises(CommandError):
        ask(decision, NoOpinion(), refusing(CommandError(PERMISSION_DENIED)), later)
    assert later.asked == []


@pytest.mark.parametrize("decision", FIRST_ANSWER_COUNTS)
def test_the_first_answer_to_a_call_counts(decision: str) -> None:
    """A call has one result, so later policies are not asked: they would run the call a second time."""
    answering, later = permitting(), AnsweringPolicy(lambda _: Raw(b'"later"'))
    assert ask(decision, NoOpinion(), answering, later) == PERMISSIONS[decision]
    assert (len(answering.asked), later.asked) == (1, [])


@pytest.mark.parametrize(
    ("decision", "answers"),
    [
        ("connect", [Identity(user="first"), Identity(user="second")]),
        ("refresh", [Identity(user="first"), Identity(user="second")]),
        ("subscribe", [SubscriptionGrant(info=Raw(b"1")), SubscriptionGrant(info=Raw(b"2"))]),
        ("sub_refresh", [SubscriptionGrant(info=Raw(b"1")), SubscriptionGrant(info=Raw(b"2"))]),
        ("publish", [Raw(b"2"), Raw(b"3")]),
    ],
)
def test_a_later_permission_replaces_an_earlier_one(decision: str, answers: list[object]) -> None:
    """In the order of the chain. A later policy without an opinion leaves it."""
    for ordered in itertools.permutations(answers):
        policies = [AnsweringPolicy(lambda _, answer=answer: answer) for answer in ordered]  # type: ignore[misc]  # a lambda with a default
        assert ask(decision, *policies, NoOpinion()) is ordered[-1]


@pytest.mark.parametrize("decision", ["connect", "refresh", "subscribe", "sub_refresh"])
def test_an_answer_keeps_the_token_of_the_answer_before(decision: str) -> None:
    """So the token can be revoked although a policy has replaced what it grants. A policy may name another token."""
    permission: Any = PERMISSIONS[decision]
    of_token = replace(permission, issued_at_unix_s=7.0, token_id="t")
    other = replace(permission, issued_at_unix_s=9.0)
    answered: Any = ask(decision, AnsweringPolicy(lambda _: of_token), AnsweringPolicy(lambda _: permission))
    assert answered == of_token
    assert ask(decision, AnsweringPolicy(lambda _: of_token), AnsweringPolicy(lambda _: other)) is other


@pytest.mark.parametrize("decision", ["subscribe", "sub_refresh"])
def test_an_answer_stays_for_the_client_of_the_token(decision: str) -> None:
    """A policy that replaces the grant does not make it valid for other sessions of the user."""
    of_token = SubscriptionGrant(issued_at_unix_s=7.0, client="c1")
    answered: Any = ask(decision, AnsweringPolicy(lambda _: of_token), AnsweringPolicy(lambda _: SubscriptionGrant()))
    assert answered.client == "c1"


def test_data_that_a_policy_changed_reaches_the_next() -> None:
    """All other fields of the attempt stay. A policy that permits the data unchanged, or has no opinion, passes it
    on."""
    changed, final = Raw(b'"changed"'), Raw(b'"final"')
    changing, looking = AnsweringPolicy(lambda _: changed), AnsweringPolicy(lambda _: None)
    last = AnsweringPolicy(lambda _: final)
    attempt = PublicationAttempt(CALLER, Via.COMMAND, "news", NAMESPACE, DATA, {"a": "b"}, True)
    chain = PolicyChain([NoOpinion(), changing, looking, last])
    assert run(chain.publish(attempt)) is final
    expected = PublicationAttempt(CALLER, Via.COMMAND, "news", NAMESPACE, changed, {"a": "b"}, True)
    assert changing.asked == [("publish", attempt)]
    assert looking.asked == last.asked == [("publish", expected)]


def test_a_publication_that_no_policy_changes_is_not_copied() -> None:
    """Every publish passes here, so nothing is allocated for it."""
    looking = AnsweringPolicy(lambda _: None)
    assert run(PolicyChain([permitting(), looking]).publish(PUBLICATION)) is DATA
    assert looking.asked[0][1] is PUBLICATION


def test_each_policy_sees_the_grant_of_those_before_it() -> None:
    """The first policy sees the grant of the token or of the server API, if there is one."""
    token, first, second = (SubscriptionGrant(info=Raw(text)) for text in (b"0", b"1", b"2"))
    policies = [AnsweringPolicy(lambda _, answer=answer: answer) for answer in (None, first, None, second)]  # type: ignore[misc]  # a lambda with a default
    looking = AnsweringPolicy(lambda _: None)
    chain = PolicyChain([*policies, looking])
    for proposed in (None, token):
        for policy in (*policies, looking):
            policy.asked.clear()
        granted = run(chain.subscribe(CALLER, SubscriptionRequest("news"), NAMESPACE, Via.TOKEN, proposed))
        assert granted is second
        seen = [policy.asked[0][1] for policy in (*policies, looking)]
        assert seen == [proposed, proposed, first, first, second]


def test_each_policy_sees_the_identity_of_those_before_it() -> None:
    """So it may refuse a user whose token an earlier policy has verified, or add to the identity."""
    given, first, second = Identity(user="given"), Identity(user="first"), Identity(user="second")
    policies = [AnsweringPolicy(lambda _, answer=answer: answer) for answer in (None, first, None, second)]  # type: ignore[misc]  # a lambda with a default
    looking = AnsweringPolicy(lambda _: None)
    chain = PolicyChain([*policies, looking])
    for proposed in (None, given):
        for policy in (*policies, looking):
            policy.asked.clear()
        attempt = ConnectionAttempt(ConnectionRequest(token="t"), "c1", HANDSHAKE, proposed)
        assert run(chain.connect(attempt)) is second
        seen = [policy.asked[0][1] for policy in (*policies, looking)]
        assert [each.proposed for each in seen] == [proposed, proposed, first, first, second]
        assert all(replace(each, proposed=proposed) == attempt for each in seen)
    assert run(PolicyChain([looking]).connect(attempt)) is given


def test_a_grant_about_which_no_policy_has_an_opinion_stays() -> None:
    """The chain returns what was proposed."""
    proposed = SubscriptionGrant(info=Raw(b"1"))
    chain = PolicyChain([NoOpinion(), NoOpinion()])
    assert run(chain.subscribe(CALLER, SubscriptionRequest("news"), NAMESPACE, Via.SERVER_API, proposed)) is proposed


@pytest.mark.parametrize("decision", ["presence", "history"])
def test_false_is_a_refusal_in_any_order(decision: str) -> None:
    """A handler that returns whether its user may read must not be overruled by a policy that permits."""
    refusing, permitting = AnsweringPolicy(lambda _: False), AnsweringPolicy(lambda _: True)
    for policies in ([refusing, permitting], [permitting, refusing]):
        assert run(QUESTIONS[decision](PolicyChain(policies))) is False
    assert run(QUESTIONS[decision](PolicyChain([permitting, NoOpinion()]))) is True


def test_a_chain_suspends_where_any_policy_does() -> None:
    """A decision that no policy lists runs in one step."""
    chain = PolicyChain(
        [EndingsRecorder(frozenset({"rpc"})), NoOpinion(), EndingsRecorder(frozenset({"rpc", "connect"}))]
    )
    assert chain.suspending == {"rpc", "connect"}
    assert PolicyChain([NoOpinion()]).suspending == PolicyChain([]).suspending == frozenset()


def test_endings_reach_only_the_policies_that_want_them() -> None:
    """In the order of the chain, with equal contents."""
    told, also_told, not_told = EndingsRecorder(), EndingsRecorder(), EndingsRecorder()
    not_told.wants_endings = False
    subscriptions = [EndedSubscription("c1", Identity(), "news", 2500)]
    sessions = [EndedSession("c1", Identity(), 3001, "shutdown")]
    chain = PolicyChain([told, not_told, NoOpinion(), also_told])
    assert chain.wants_endings
    run(chain.unsubscribed(subscriptions))
    run(chain.disconnected(sessions))
    assert told.ended == also_told.ended == [subscriptions, sessions]
    assert not_told.ended == []
    assert not PolicyChain([not_told, NoOpinion()]).wants_endings


class FailingListener(NoOpinion):
    """Wants endings, and fails with a text."""

    wants_endings = True

    def __init__(self, text: str) -> None:
        self._text = text

    async def unsubscribed(self, ended: Sequence[EndedSubscription]) -> None:
        raise ValueError(self._text)

    async def disconnected(self, ended: Sequence[EndedSession]) -> None:
        raise ValueError(self._text)


def test_endings_reach_the_policies_after_one_that_fails() -> None:
    """Endings are no decision, so a failure must not hide them. Every failure is raised in the end."""
    told = EndingsRecorder()
    sessions = [EndedSession("c1", Identity(), 3001, "shutdown")]
    with pytest.raises(ValueError, match="first"):
        run(PolicyChain([FailingListener("first"), told]).disconnected(sessions))
    with pytest.raises(ExceptionGroup) as failures:
        run(PolicyChain([FailingListener("first"), FailingListener("second"), told]).unsubscribed([]))
    assert [str(error) for error in failures.value.exceptions] == ["first", "second"]
    assert told.ended == [sessions, []]
