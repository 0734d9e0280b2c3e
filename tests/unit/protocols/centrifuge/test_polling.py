"""The connections of sessions that last as long as one HTTP request."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from msgspec import Raw

from beaconfire.base.errors import EXPIRED, PERMISSION_DENIED, SHUTDOWN, UNKNOWN_CHANNEL, CommandError
from beaconfire.model.identity import Identity
from beaconfire.model.results import ConnectionStart
from beaconfire.policy.no_opinion import NoOpinion
from beaconfire.policy.port import Caller
from beaconfire.protocols.centrifuge.json_codec import JsonCodec
from beaconfire.protocols.centrifuge.polling import CommandsConnection, PollConnection
from beaconfire.protocols.centrifuge.unidirectional_codec import UnidirectionalCodec
from beaconfire.transports.traits import Pings, SessionTraits
from tests.unit.kit import RECOVERABLE, HarnessClient, NodeHarness, settle

TRAITS = SessionTraits(Pings.UNANSWERED, per_request=True)


class PollHarness:
    """A poll on a node, and what its connection hands over."""

    def __init__(self, harness: NodeHarness) -> None:
        self.starts: list[ConnectionStart] = []
        self.packed_at_start: list[int] = []
        """How many frames had been made when the connection handed over its start."""
        codec, operations = UnidirectionalCodec(), harness.node.operations
        self._wire = harness.wire(codec)
        sessions = harness.node.sessions(
            TRAITS, lambda session: PollConnection(session, operations, codec, self._on_start), lambda: "client1"
        )
        self.client = HarnessClient(harness, sessions, codec)

    def _on_start(self, start: ConnectionStart) -> None:
        self.starts.append(start)
        self.packed_at_start.append(self._wire.packed)


class CommandsHarness:
    """A session for commands on a node, and the replies that its connection hands over."""

    def __init__(self, harness: NodeHarness) -> None:
        self.replies: list[tuple[dict[str, Any], CommandError | None, object]] = []
        codec, operations = JsonCodec(), harness.node.operations
        sessions = harness.node.sessions(
            TRAITS, lambda session: CommandsConnection(session, operations, codec, self._on_reply), lambda: "client1"
        )
        self.client = HarnessClient(harness, sessions, codec)

    def _on_reply(self, message: bytes, error: CommandError | None, ref: object) -> None:
        self.replies.append((json.loads(message) if message else {}, error, ref))


def harness_with_ann() -> NodeHarness:
    harness = NodeHarness(RECOVERABLE)
    harness.tokens.connections.known["t"] = Identity(user="ann")
    return harness


# --- polls


def test_a_poll_hands_over_its_start_before_the_connect_message() -> None:
    """Once, with the subscriptions and their publications."""
    harness = harness_with_ann()
    position = harness.publish("news", "old", "new")
    poll = PollHarness(harness)
    poll.client.send_text(
        json.dumps({"token": "t", "subs": {"news": {"recover": True, "offset": 1, "epoch": "epoch1"}}})
    )
    [start] = poll.starts
    assert poll.packed_at_start == [0]
    [subscription] = start.subscriptions
    assert (start.client, subscription.channel, subscription.recovered) == ("client1", "news", True)
    assert [publication.data for publication in subscription.publications] == [Raw(b'"new"')]
    [message] = poll.client.receive()
    assert message["connect"]["subs"]["news"]["publications"] == [{"data": "new", "offset": position.offset}]
    harness.publish("news", "live")
    assert [message["pub"]["data"] for message in poll.client.receive()] == ["live"]
    assert len(poll.starts) == 1


def test_a_refused_poll_has_no_start() -> None:
    """The session ends instead."""
    poll = PollHarness(NodeHarness())
    poll.client.send_text('{"token":"unknown"}')
    assert (poll.starts, poll.client.receive()) == ([], [])
    assert poll.client.disconnect_code == 3500


def test_a_poll_sends_no_pings() -> None:
    """However long it waits. It expects no pongs either."""
    harness = NodeHarness()
    poll = PollHarness(harness)
    poll.client.send_text("{}")
    assert len(poll.client.receive()) == 1
    harness.advance_time(100)
    assert (poll.client.receive(), poll.client.disconnect_code) == ([], 0)


# --- commands


def test_replies_are_handed_over_and_not_sent() -> None:
    """With the error of a failed command, and in the step in which the command runs."""
    harness = harness_with_ann()
    commands = CommandsHarness(harness)
    commands.client.send("connect", token="t", subs={"news": {}})
    commands.client.send("publish", channel="news", data=1)
    commands.client.send("history", channel="nowhere:x")
    (connect, _, _), *others, (failed, error, ref) = commands.replies
    assert connect["connect"]["client"] == "client1"
    assert others == [({"id": 2, "publish": {}}, None, 2)]
    assert failed["error"]["code"] == UNKNOWN_CHANNEL.code
    assert error is not None
    assert (error.code, ref) == (UNKNOWN_CHANNEL, 3)
    [push] = commands.client.receive()
    assert push["push"]["pub"]["data"] == 1


class MessageHandler(NoOpinion):
    """Handles each message, or refuses it."""

    def __init__(self, refuses: bool) -> None:
        self.refuses = refuses

    async def message(self, caller: Caller, data: Raw) -> bool | None:
        if self.refuses:
            raise CommandError(PERMISSION_DENIED)
        return True


@pytest.mark.parametrize("refuses", [False, True])
def test_the_end_of_a_command_without_a_reply_is_reported(refuses: bool) -> None:
    """With an empty message. The receiver would wait for a reply otherwise, until its timeout."""
    harness = NodeHarness(RECOVERABLE, policy=MessageHandler(refuses))
    harness.tokens.connections.known["t"] = Identity(user="ann")
    commands = CommandsHarness(harness)
    commands.client.send("connect", token="t")
    commands.client.send("send", data=1)
    commands.client.send("publish", channel="news", data=1)
    assert commands.replies[1:] == [({}, None, None), ({"id": 3, "publish": {}}, None, 3)]


def test_a_failed_connect_is_a_reply() -> None:
    """The session does not end: the error tells the receiver of the reply that no further command can be run."""
    harness = NodeHarness()
    harness.tokens.connections.known["t"] = Identity(user="ann", expire_at_unix_s=1)
    commands = CommandsHarness(harness)
    commands.client.send("connect", token="t")
    [(reply, error, ref)] = commands.replies
    assert error is not None
    assert (error.code, ref, reply["id"]) == (EXPIRED, 1, 1)
    assert commands.client.disconnect_code == 0


def test_handed_over_replies_are_counted() -> None:
    """The metrics of sent messages include them."""
    harness = NodeHarness()
    before = harness.node.statistics()
    commands = CommandsHarness(harness)
    commands.client.send("connect")
    [(reply, _, _)] = commands.replies
    after = harness.node.statistics()
    assert after.messages_out_total - before.messages_out_total == 1
    assert after.writes_total - before.writes_total == 1
    assert after.bytes_out_total - before.bytes_out_total == len(json.dumps(reply, separators=(",", ":")))


def test_no_reply_is_handed_over_after_the_end() -> None:
    """Of a command that was suspended when the session ended."""

    async def scenario() -> None:
        harness = harness_with_ann()
        commands = CommandsHarness(harness)
        commands.client.send("connect", token="t")
        release = harness.calls.hold("history")
        commands.client.send("history", channel="news", limit=1)
        await settle()
        commands.client.session.end(SHUTDOWN)
        release()
        await settle()
        assert [ref for _, _, ref in commands.replies] == [1]

    asyncio.run(scenario())


def test_commands_get_no_pings() -> None:
    """The client waits for a response and could not answer."""
    harness = NodeHarness()
    commands = CommandsHarness(harness)
    commands.client.send("connect")
    harness.advance_time(100)
    assert (commands.client.receive(), commands.client.disconnect_code) == ([], 0)


def test_a_command_without_a_reply_that_ends_the_session_is_not_reported() -> None:
    """The end of the session is the outcome of the request."""
    commands = CommandsHarness(harness_with_ann())
    commands.client.send("connect", token="t")
    commands.client.send_text('{"send":{"data":1}}')
    assert commands.client.disconnect_code == 3508
    assert [ref for _, _, ref in commands.replies] == [1]
