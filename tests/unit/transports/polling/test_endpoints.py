"""Long polling: slow connects, full responses, and the positions in responses."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from msgspec import structs

from beaconfire.base.units import Seconds, Size
from beaconfire.channels.options import ChannelOptions
from beaconfire.model.events import RecoveryFinished, SessionConnected
from beaconfire.model.handshake import Handshake
from beaconfire.model.identity import Identity
from beaconfire.protocols.centrifuge.json_codec import JsonCodec
from beaconfire.protocols.centrifuge.polling import CommandsConnection, OnReply, OnStart, PollConnection
from beaconfire.protocols.centrifuge.unidirectional_codec import UnidirectionalCodec
from beaconfire.protocols.port import ProtocolConnection
from beaconfire.session.factory import SessionFactory
from beaconfire.session.session import Session
from beaconfire.transports.endpoint_table import COMMANDS, POLL, EndpointRow
from beaconfire.transports.polling import Poll, PollCommands, PollWire
from beaconfire.transports.polling.commands_transport import OpenCommands
from beaconfire.transports.polling.poll_transport import OpenPoll
from beaconfire.transports.port import Receiver, Transport
from beaconfire.transports.request_checks import RequestChecks
from tests.unit.kit import RECOVERABLE, NodeHarness, settle

TIMEOUT_S = 5.0
IDLE_S = 0.05
"""Long enough for all work that waits for no event."""


class PollClient:
    """Calls an endpoint of a `NodeHarness` as an ASGI server would."""

    def __init__(
        self,
        harness: NodeHarness,
        kind: type[Poll] | type[PollCommands],
        timeout_s: float = TIMEOUT_S,
        response_max: int = 524288,
    ) -> None:
        self.harness = harness
        self._numbers = itertools.count(1)
        checks = RequestChecks(["*"], lambda: None, harness.recorder)
        self._endpoint: Poll | PollCommands
        if kind is Poll:
            self._endpoint = Poll(checks, 65536, response_max, timeout_s, self._poll_opener())
        else:
            self._endpoint = PollCommands(checks, 65536, response_max, timeout_s, self._commands_opener())

    def _poll_opener(self) -> OpenPoll:
        codec, operations = UnidirectionalCodec(), self.harness.node.operations
        wire = PollWire(codec)

        def open_session(transport: Transport, handshake: Handshake, on_start: OnStart) -> Receiver:
            sessions = self._sessions(POLL, lambda session: PollConnection(session, operations, codec, on_start))
            return sessions.open_session(transport, wire, handshake)

        return open_session

    def _commands_opener(self) -> OpenCommands:
        codec, operations = JsonCodec(), self.harness.node.operations
        wire = PollWire(codec)

        def open_session(transport: Transport, handshake: Handshake, on_reply: OnReply) -> Receiver:
            sessions = self._sessions(
                COMMANDS, lambda session: CommandsConnection(session, operations, codec, on_reply)
            )
            return sessions.open_session(transport, wire, handshake)

        return open_session

    def _sessions(self, row: EndpointRow, make_protocol: Callable[[Session], ProtocolConnection]) -> SessionFactory:
        return self.harness.node.sessions(row.traits, make_protocol, lambda: f"caller{next(self._numbers)}")

    async def request(self, **request: Any) -> tuple[int, bytes]:
        """Sends a request and returns status and body. Runs the scheduled callbacks meanwhile."""
        return await self.post(json.dumps(request).encode())

    async def post(self, text: bytes) -> tuple[int, bytes]:
        body = [{"type": "http.request", "body": text}]
        sent: list[Any] = []

        async def receive() -> Any:
            if body:
                return body.pop()
            return await asyncio.Event().wait()

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/", "headers": [], "query_string": b""}
        response = asyncio.create_task(self._endpoint(scope, receive, send))
        while not response.done():
            self.harness.run_scheduled()
            await asyncio.sleep(0)
        return sent[0]["status"], sent[1]["body"]


def run_scenario(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(scenario())


def harness_with_slow_verifier(channel: ChannelOptions = RECOVERABLE) -> NodeHarness:
    """A harness whose token verifier waits until the test releases it."""
    harness = NodeHarness(channel)
    harness.tokens.connections.known["t"] = Identity(user="ann")
    harness.calls.hold("verify")
    return harness


@pytest.mark.parametrize("wait", [0, 0.001])
def test_response_waits_for_the_connect_result(wait: float) -> None:
    """For any wait of the client: with a response without positions, the client would lose its positions."""

    async def scenario() -> None:
        harness = harness_with_slow_verifier()
        response = asyncio.create_task(PollClient(harness, Poll).request(token="t", subs={"news": {}}, wait=wait))
        await settle()
        await asyncio.wait({response}, timeout=IDLE_S)
        assert not response.done()
        harness.calls.release("verify")
        status, body = await response
        assert status == 200
        decoded = json.loads(body)
        assert decoded["messages"][0]["connect"]["subs"]["news"]["recoverable"] is True
        assert decoded["subs"] == {"news": {"recover": True, "offset": 0, "epoch": "epoch1"}}

    run_scenario(scenario)


@pytest.mark.parametrize("kind", [Poll, PollCommands])
def test_slow_connect_gets_503(kind: type[Poll] | type[PollCommands]) -> None:
    """After which the client may repeat the request. No session or subscription remains."""

    async def scenario() -> None:
        harness = harness_with_slow_verifier()
        more: dict[str, Any] = {"commands": [{"rpc": {}}]} if kind is PollCommands else {"wait": 0}
        status, body = await PollClient(harness, kind, IDLE_S).request(token="t", subs={"news": {}}, **more)
        assert status == 503
        assert b"took too long" in body
        harness.calls.release("verify")
        await settle()
        assert (harness.node.hub.statistics().subscriptions, len(harness.node.registry)) == (0, 0)

    run_scenario(scenario)


@pytest.mark.parametrize("kind", [Poll, PollCommands])
def test_name_and_version_of_the_sdk_are_passed_on(kind: type[Poll] | type[PollCommands]) -> None:
    """As in a connect request."""

    async def scenario() -> None:
        harness = NodeHarness(RECOVERABLE)
        more: dict[str, Any] = {"commands": [{"rpc": {}}]} if kind is PollCommands else {"wait": 0}
        assert (await PollClient(harness, kind).request(name="js", version="1", **more))[0] == 200
        [event] = harness.recorder.of(SessionConnected)
        assert (event.name, event.version) == ("js", "1")

    run_scenario(scenario)


def test_empty_channel_in_cache_mode_is_not_news() -> None:
    """An empty channel in cache mode reports `recovered` as false. A client at its position waits for a publication."""

    async def scenario() -> None:
        latest = ChannelOptions(
            allow_subscribe_for_client=True,
            allow_subscribe_for_anonymous=True,
            history_size=1,
            history_ttl=Seconds(60),
            force_recovery=True,
            force_recovery_mode="cache",
        )
        harness = NodeHarness(latest)
        client = PollClient(harness, Poll)
        subs = json.loads((await client.request(subs={"news": {}}))[1])["subs"]
        response = asyncio.create_task(client.request(subs=subs))
        await asyncio.wait({response}, timeout=IDLE_S)
        assert not response.done()
        harness.publish("news", "first")
        assert json.loads((await response)[1])["messages"][1]["pub"]["data"] == "first"
        elsewhere = {"news": {"recover": True, "offset": 0, "epoch": "gone"}}
        assert (await asyncio.wait_for(client.request(subs=elsewhere), TIMEOUT_S))[0] == 200

    run_scenario(scenario)


@pytest.mark.parametrize("entry", [{"recover": True, "offset": None, "epoch": "gone"}, {"recover": None, "offset": 1}])
def test_position_with_null_is_left_to_the_session(entry: dict[str, Any]) -> None:
    """The session treats null as missing. The poll must not fail during fan-out, which would affect other clients."""

    async def scenario() -> None:
        harness = NodeHarness(RECOVERABLE)
        harness.tokens.connections.known["t"] = Identity(user="ann")
        harness.publish("news", "old")
        status, body = await PollClient(harness, Poll).request(token="t", subs={"news": entry})
        assert status == 200
        assert "recovered" not in json.loads(body)["messages"][0]["connect"]["subs"]["news"]

    run_scenario(scenario)


@pytest.mark.parametrize("text", [b"[" * 5000, b'{"subs":{"a":' + b"[" * 5000, b'{"token":"\xff"}', b"{"])
def test_invalid_body_is_refused(text: bytes) -> None:
    """With 400 for all kinds of malformed JSON, not with 500."""

    async def scenario() -> None:
        assert (await PollClient(NodeHarness(RECOVERABLE), Poll).post(text))[0] == 400

    run_scenario(scenario)


def test_full_response_is_continued_by_the_next_poll() -> None:
    """Every publication is sent once and in order, and no response is much larger than the limit."""

    async def scenario() -> None:
        harness = NodeHarness(structs.replace(RECOVERABLE, history_size=100), reply_max_size=Size(1000))
        harness.tokens.connections.known["t"] = Identity(user="ann")
        harness.publish("news", *["x" * 200] * 60)
        client = PollClient(harness, Poll, response_max=2000)
        subs: dict[str, Any] = {"news": {"recover": True, "offset": 0, "epoch": "epoch1"}}
        found: list[int] = []
        while len(found) < 60:
            status, body = await client.request(token="t", subs=subs)
            assert status == 200
            assert len(body) < 2000 + 3 * 1000
            decoded = json.loads(body)
            first, *pushes = decoded["messages"]
            news = [*first["connect"]["subs"]["news"].get("publications", []), *(push["pub"] for push in pushes)]
            assert news
            found += [publication["offset"] for publication in news]
            subs = decoded["subs"]
            assert subs["news"]["offset"] == found[-1]
        assert found == list(range(1, 61))

    run_scenario(scenario)


def test_commands_after_a_full_response_are_not_run() -> None:
    """Each gets error 111, after which it can be sent again. Earlier commands have been run."""

    async def scenario() -> None:
        harness = NodeHarness(RECOVERABLE)
        harness.tokens.connections.known["t"] = Identity(user="ann")
        harness.publish("news", "x" * 300)
        commands: list[dict[str, Any]] = [{"history": {"channel": "news", "limit": 1}}] * 10
        commands.append({"publish": {"channel": "news", "data": "too late"}})
        client = PollClient(harness, PollCommands, response_max=1000)
        status, body = await client.request(token="t", commands=commands)
        assert status == 200
        replies = json.loads(body)["replies"]
        codes = [reply.get("error", {"code": 0})["code"] for reply in replies]
        run_count = codes.count(0)
        assert codes == [0] * run_count + [111] * (11 - run_count)
        assert 1 < run_count < 5
        assert [reply["id"] for reply in replies] == list(range(2, 13))
        assert replies[-1]["error"]["temporary"] is True
        assert "poll.max_response_size" in harness.recorder.limits()
        assert harness.memory.broker.statistics().publications == 1

    run_scenario(scenario)


def test_slow_command_needs_no_pongs() -> None:
    """A client that waits for a response cannot answer pings, so the session must not wait for a pong."""

    async def scenario() -> None:
        harness = NodeHarness(RECOVERABLE)
        harness.tokens.connections.known["t"] = Identity(user="ann")
        release = harness.calls.hold("history")
        client = PollClient(harness, PollCommands)
        response = asyncio.create_task(
            client.request(token="t", commands=[{"history": {"channel": "news", "limit": 1}}])
        )
        await settle()
        harness.advance_time(40)  # longer than ping_interval and pong_timeout together
        release()
        status, body = await response
        assert (status, "history" in json.loads(body)["replies"][0]) == (200, True)

    run_scenario(scenario)


def test_commands_after_a_failed_connect_are_not_run() -> None:
    """The body is the error reply to connect, whatever the text of the error contains."""

    async def scenario() -> None:
        harness = NodeHarness(RECOVERABLE)
        harness.tokens.connections.known["t"] = Identity(user="ann", expire_at_unix_s=1)
        status, body = await PollClient(harness, PollCommands).request(
            token="t", commands=[{"publish": {"channel": "news", "data": 1}}]
        )
        assert status == 401
        assert body.startswith(b'{"id":1,"error":{"code":110,')
        assert harness.memory.broker.statistics().publications == 0

    run_scenario(scenario)


def test_pushes_are_no_replies() -> None:
    """Publications of the commands themselves arrive with the polls."""

    async def scenario() -> None:
        harness = NodeHarness(RECOVERABLE)
        harness.tokens.connections.known["t"] = Identity(user="ann")
        command = {"publish": {"channel": "news", "data": "x" * 600}}
        client = PollClient(harness, PollCommands, response_max=1000)
        status, body = await client.request(token="t", subs={"news": {}}, commands=[command] * 5)
        assert (status, body) == (
            200,
            b'{"replies":[%b]}' % b",".join(b'{"id":%d,"publish":{}}' % number for number in range(2, 7)),
        )

    run_scenario(scenario)


def test_commands_request_does_not_recover() -> None:
    """Polls recover missed publications, so a commands request neither reads nor collects them."""

    async def scenario() -> None:
        harness = NodeHarness(RECOVERABLE)
        harness.tokens.connections.known["t"] = Identity(user="ann")
        harness.publish("news", *["x" * 300] * 5)
        subs = {"news": {"recover": True, "offset": 0, "epoch": "epoch1"}}
        status, _ = await PollClient(harness, PollCommands).request(token="t", subs=subs, commands=[{"rpc": {}}])
        assert status == 200
        assert harness.recorder.of(RecoveryFinished) == []

    run_scenario(scenario)


def test_full_response_contains_held_conflated_publications() -> None:
    """If the positions of the response cover a held publication, the next poll would not recover it."""

    async def scenario() -> None:
        harness = NodeHarness(RECOVERABLE)
        harness.tokens.connections.known["t"] = Identity(user="ann")
        client = PollClient(harness, Poll, response_max=1000)
        subs = json.loads((await client.request(token="t", subs={"news": {}, "sport": {}}, wait=0))[1])["subs"]
        subs["news"]["conflate"] = {"max_rate": 0}
        response = asyncio.create_task(client.request(token="t", subs=subs))
        await settle()
        harness.publish("sport", "x" * 2000)
        harness.run_scheduled()  # the response is full
        harness.publish("news", "first", "latest")
        harness.run_scheduled()  # so this publication is held
        decoded = json.loads((await response)[1])
        received = [message["pub"]["data"] for message in decoded["messages"] if message.get("channel") == "news"]
        assert (received, decoded["subs"]["news"]["offset"]) in ((["latest"], 2), ([], 0))

    run_scenario(scenario)


def test_large_connect_result_does_not_fill_the_response() -> None:
    """The response does not contain it. Otherwise the client would get error 111 for ever."""

    async def scenario() -> None:
        cache = structs.replace(RECOVERABLE, force_recovery_mode="cache", auto_cache_recover=True)
        harness = NodeHarness(cache)
        harness.tokens.connections.known["t"] = Identity(user="ann")
        harness.publish("news", "x" * 2000)
        client = PollClient(harness, PollCommands, response_max=1000)
        status, body = await client.request(
            token="t", subs={"news": {}}, commands=[{"presence_stats": {"channel": "news"}}]
        )
        assert status == 200
        [reply] = json.loads(body)["replies"]
        assert reply["error"]["code"] == 108  # the command was run, and presence is off

    run_scenario(scenario)
