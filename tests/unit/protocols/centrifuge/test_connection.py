"""The connection object: order of commands, pongs, commands that suspend, and the terms of the operations."""

from __future__ import annotations

import asyncio
import json
from typing import Any, get_args

import pytest
from msgspec import Raw, structs

from beaconfire.base.units import Seconds
from beaconfire.model.events import CommandHandled
from beaconfire.model.identity import Identity
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import Publication
from beaconfire.model.requests import Conflate, ConnectionRequest, FilterNode, SubscriptionRequest
from beaconfire.model.results import SubscriptionStart
from beaconfire.policy.port import DECISIONS
from beaconfire.protocols.centrifuge.connection import (
    _ROWS,
    CentrifugeConnection,
    connection_request,
    field_names,
    subscribe_result,
    subscription_request,
)
from beaconfire.protocols.centrifuge.requests import (
    Command,
    ConnectRequest,
    HistoryRequest,
    PingRequest,
    PresenceRequest,
    PresenceStatsRequest,
    PublishRequest,
    RefreshRequest,
    Request,
    RPCRequest,
    SendRequest,
    SubRefreshRequest,
    SubscribeRequest,
    UnsubscribeRequest,
)
from beaconfire.protocols.centrifuge.results import SubscribeResult
from beaconfire.protocols.port import CommandOrder, ProtocolConnection
from beaconfire.transports.traits import Pings, SessionTraits
from tests.unit.kit import OPEN, RECOVERABLE, HarnessClient, NodeHarness, settle


def send_frame(client: HarnessClient, *commands: dict[str, Any]) -> None:
    """Sends several commands in one frame."""
    client.send_text("\n".join(map(json.dumps, commands)))


def publish(number: int, data: object, channel: str = "news") -> dict[str, Any]:
    return {"id": number, "publish": {"channel": channel, "data": data}}


PONG: dict[str, Any] = {}


def connection_of(client: HarnessClient) -> CentrifugeConnection:
    """mypy checks that it implements the port."""
    protocol: ProtocolConnection = client.session.protocol
    assert isinstance(protocol, CentrifugeConnection)
    return protocol


# --- reading frames ---------------------------------------------------------------------------------------------------


def test_commands_of_a_frame_run_in_order_up_to_the_end_of_the_session() -> None:
    """A command that ends the session is the last one. Those before it have had their effect."""
    harness = NodeHarness(RECOVERABLE)
    client = harness.connect("ann")
    send_frame(client, publish(10, "first"), {"id": 11, "ping": {}}, publish(12, "never"))
    assert client.disconnect_code == 3501
    assert harness.memory.broker.statistics().publications == 1


@pytest.mark.parametrize("frame", ["nonsense", "", '{"id":1,"publish":[]}', "{}\nnonsense"])
def test_a_frame_that_is_no_message_ends_the_session(frame: str) -> None:
    """With 3501, and none of its commands is run."""
    harness = NodeHarness(RECOVERABLE)
    client = harness.connect("ann")
    client.send_text(json.dumps(publish(10, "x")) + "\n" + frame if frame.endswith("nonsense") else frame)
    assert client.disconnect_code == 3501
    assert harness.memory.broker.statistics().publications == 0


def test_a_pong_is_handled_while_commands_wait() -> None:
    """Wherever it is in the frame. A slow command must not make the client look dead."""

    async def scenario() -> None:
        harness = NodeHarness(RECOVERABLE)
        client = harness.connect("ann")
        harness.advance_time(26)
        assert {} in client.receive()
        release = harness.calls.hold("history")
        send_frame(client, {"id": 10, "history": {"channel": "news"}}, publish(11, "x"), PONG)
        await settle()
        assert client.receive() == []
        harness.advance_time(9)
        assert client.disconnect_code == 0
        release()
        await settle()
        assert [message["id"] for message in client.receive() if "id" in message] == [10, 11]

    asyncio.run(scenario())


def test_a_pong_nobody_asked_for_ends_the_session_before_the_commands_of_its_frame() -> None:
    """The commands are not run, because pongs are handled first."""
    harness = NodeHarness(RECOVERABLE)
    client = harness.connect("ann")
    send_frame(client, publish(10, "x"), PONG, publish(11, "y"))
    assert client.disconnect_code == 3501
    assert harness.memory.broker.statistics().publications == 0


def test_pongs_of_a_session_with_pings_of_the_transport_end_it() -> None:
    """Its client has got no ping of the protocol."""
    harness = NodeHarness(OPEN)
    client = harness.open_session(SessionTraits(Pings.TRANSPORT))
    assert "ping" not in client.request("connect")
    send_frame(client, PONG)
    assert client.disconnect_code == 3501


def test_a_frame_over_the_rate_limit_is_not_run() -> None:
    """The commands count before they run."""
    harness = NodeHarness(RECOVERABLE, message_rate_limit=5)
    client = harness.connect("ann")
    send_frame(client, *(publish(number, "x") for number in range(10, 20)))
    assert client.disconnect_code == 3013
    send_one = NodeHarness(RECOVERABLE, byte_rate_limit=200)
    client = send_one.connect("ann")
    send_frame(client, publish(10, "x" * 300))
    assert client.disconnect_code == 3013
    assert harness.memory.broker.statistics().publications == 0
    assert send_one.memory.broker.statistics().publications == 0


# --- the table of commands --------------------------------------------------------------------------------------------


def test_decisions_of_commands_are_decisions_of_the_port() -> None:
    """A command without a decision never suspends."""
    assert set(_ROWS) == set(get_args(Request))
    assert {row.decision for row in _ROWS.values()} == {"", *DECISIONS}


@pytest.mark.parametrize("kind", [kind for kind, row in _ROWS.items() if row.topic])
def test_a_channel_is_required(kind: type) -> None:
    """3501 otherwise. The reason names the command."""
    harness = NodeHarness(OPEN, debug_reasons=True)
    client = harness.connect("ann")
    row = _ROWS[kind]
    assert client.request_code(row.method) == 3501
    assert client.transport.closed is not None
    assert client.transport.closed[1] == f"bad request: {row.topic}: channel must not be empty"
    assert row.method.startswith(row.topic)


@pytest.mark.parametrize("kind", [kind for kind in _ROWS if kind is not ConnectRequest])
def test_the_first_command_must_be_connect(kind: type) -> None:
    """Every other command ends the session, and has no effect."""
    harness = NodeHarness(RECOVERABLE)
    client = harness.open_session()
    send_frame(client, {"id": 1, _ROWS[kind].method: {"channel": "news", "data": 1}})
    assert client.disconnect_code == 3501
    assert harness.memory.broker.statistics().publications == 0
    [event] = harness.recorder.of(CommandHandled)
    assert (event.method, event.error) == (_ROWS[kind].method, 3501)


CHANNEL_REQUESTS: list[Request] = [
    SubscribeRequest("news"),
    PublishRequest("news", Raw(b"1")),
    PresenceRequest("news"),
    PresenceStatsRequest("news"),
    HistoryRequest("news"),
    SubRefreshRequest("news", "token"),
]
STEPS: list[Request] = [UnsubscribeRequest("news"), PingRequest()]
CALLS: list[Request] = [RPCRequest(method="echo"), SendRequest(), RefreshRequest("token")]


def never_suspends(client: HarnessClient, request: Request) -> bool:
    return connection_of(client).never_suspends(Command(1, request))


def test_commands_suspend_only_with_their_decision() -> None:
    """A command that never suspends runs without a task."""
    client = NodeHarness(OPEN).connect("ann")
    operations = client.harness.node.operations
    for request in (*CHANNEL_REQUESTS, *STEPS, *CALLS, ConnectRequest()):
        operations.suspending = frozenset()
        assert never_suspends(client, request)
        decision = _ROWS[type(request)].decision
        operations.suspending = frozenset({decision} - {""})
        assert never_suspends(client, request) == (decision == "")
        operations.suspending = frozenset(DECISIONS) - {decision}
        assert never_suspends(client, request)


def test_a_connect_with_many_channels_suspends() -> None:
    """It lets other work run in between."""
    client = NodeHarness(OPEN).open_session()
    many = {f"news{number}": SubscribeRequest() for number in range(1000)}
    assert not never_suspends(client, ConnectRequest(subs=many))


@pytest.mark.parametrize("publishes_overlap", [True, False])
def test_only_rpc_runs_beside_other_commands(publishes_overlap: bool) -> None:
    """Later commands rely on the effects of all others. Publishes overlap if they keep their order anyway."""
    harness = NodeHarness(OPEN)
    harness.node.operations.publishes_overlap = publishes_overlap
    connection = connection_of(harness.connect("ann"))
    for request in (*CHANNEL_REQUESTS, *STEPS, *CALLS, ConnectRequest()):
        order = connection.order(Command(1, request))
        if isinstance(request, RPCRequest):
            assert order is CommandOrder.BESIDE
        elif isinstance(request, PublishRequest) and publishes_overlap:
            assert order is CommandOrder.OVERLAPPING
        else:
            assert order is CommandOrder.ALONE


# --- the terms of the operations --------------------------------------------------------------------------------------


def test_subscribe_request_in_the_terms_of_the_operations() -> None:
    """Every field. A position counts only with `recover`, and of `flag` only the bit of value 2."""
    tags_filter, conflate = FilterNode(key="k", cmp="ex"), Conflate(2.0)
    request = SubscribeRequest(
        "news", "t", True, "e", 5, Raw(b"1"), True, True, True, "fossil", tags_filter, conflate, flag=2
    )
    assert subscription_request("news", request) == SubscriptionRequest(
        "news", "t", Raw(b"1"), StreamPosition(5, "e"), True, True, True, True, "fossil", tags_filter, conflate
    )
    assert subscription_request("news", SubscribeRequest(epoch="e", offset=5)) == SubscriptionRequest("news")
    assert subscription_request("news", SubscribeRequest(recover=True)).since == StreamPosition(0, "")
    for flag in (0, 1, 4, 5, 8):
        assert not subscription_request("news", SubscribeRequest(flag=flag)).reject_unrecovered
    for flag in (2, 3, 6, -1):
        assert subscription_request("news", SubscribeRequest(flag=flag)).reject_unrecovered


def test_connect_request_in_the_terms_of_the_operations() -> None:
    """Every field. The channel of an entry of `subs` is its key."""
    request = ConnectRequest(
        "t", Raw(b"1"), {"news": SubscribeRequest("other", "s")}, name="js", version="5", headers={"x-a": "b"}
    )
    assert connection_request(request) == ConnectionRequest(
        "t", Raw(b"1"), {"news": SubscriptionRequest("news", "s")}, "js", "5", {"x-a": "b"}
    )
    assert connection_request(ConnectRequest()) == ConnectionRequest()


def test_subscription_in_the_terms_of_the_protocol() -> None:
    """Every field, with a position and without."""
    publications = [Publication(Raw(b"1"), offset=6)]
    start = SubscriptionStart("news", StreamPosition(5, "e"), True, True, True, publications, True, 60, Raw(b"2"))
    assert subscribe_result(start) == SubscribeResult(
        expires=True,
        ttl=60,
        recoverable=True,
        epoch="e",
        publications=publications,
        recovered=True,
        offset=5,
        positioned=True,
        data=Raw(b"2"),
        was_recovering=True,
        delta=True,
    )
    assert subscribe_result(SubscriptionStart("news")) == SubscribeResult()
    assert subscribe_result(SubscriptionStart("news", StreamPosition(0, ""))) == SubscribeResult(positioned=True)


def test_errors_have_the_field_names_of_the_protocol() -> None:
    """The client sent `tf`, so an error about it names `tf`."""
    assert field_names("tags_filter.nodes[0].cmp: unknown") == "tf.nodes[0].cmp: unknown"
    client = NodeHarness(structs.replace(OPEN, allow_tags_filter=True), debug_reasons=True).connect("ann")
    reply = client.request_reply("subscribe", channel="news", tf={"cmp": "nix", "key": "k"})
    assert "tf.cmp" in reply["error"]["message"]
    assert "tags_filter" not in reply["error"]["message"]


def test_other_types_of_subscriptions_are_refused() -> None:
    """Only stream subscriptions exist."""
    client = NodeHarness(OPEN).connect("ann")
    assert client.request_code("subscribe", channel="news", type=1) == 103
    assert client.request_code("subscribe", channel="news", type=0) == 0


def test_the_reply_to_a_refresh_has_the_time_to_the_next() -> None:
    """And the client id and the version of the server, as in the reply to connect."""
    harness = NodeHarness(OPEN)
    client = harness.connect("ann", expire_at_unix_s=harness.clock.unix_s() + 10, client_refresh=True)
    expire_at_unix_s = harness.clock.unix_s() + 60
    longer = Identity(user="ann", expire_at_unix_s=expire_at_unix_s, client_refresh=True)
    harness.tokens.connections.known["longer"] = longer
    result = client.request("refresh", token="longer")
    version = harness.node.operations.node.product
    assert result == {"client": client.id, "version": version, "expires": True, "ttl": 60}


def test_ping_interval_is_rounded_up() -> None:
    """0 would mean that the server sends no pings."""
    harness = NodeHarness(OPEN, ping_interval=Seconds(0.2), pong_timeout=Seconds(0.1))
    result = harness.open_session().request("connect")
    assert (result["ping"], result["pong"]) == (1, True)
    unanswered = harness.open_session(SessionTraits(Pings.UNANSWERED)).request("connect")
    assert (unanswered["ping"], unanswered.get("pong", False)) == (1, False)
