"""What long polling answers when connecting takes its time: who may decide may have to ask somebody first."""

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
from beaconfire.model.identity import Identity
from beaconfire.protocols.centrifuge.json_codec import JsonCodec
from beaconfire.protocols.centrifuge.unidirectional_codec import UnidirectionalCodec
from beaconfire.protocols.port import Codec
from beaconfire.session.traits import SessionTraits
from beaconfire.transports.polling import Poll, PollCommands
from beaconfire.transports.request_checks import RequestChecks
from tests.unit.kit import RECOVERABLE, World, settle

PATIENCE_S = 5.0
NEVER_S = 0.05
"""Long enough for everything that needs no one to let it go on."""


class Door:
    """An endpoint on a world, asked as a server would."""

    def __init__(
        self,
        world: World,
        kind: type[Poll] | type[PollCommands],
        patience_s: float = PATIENCE_S,
        answer_max: int = 524288,
    ) -> None:
        self.world = world
        numbers = itertools.count(1)
        listens = kind is Poll
        codec: Codec = UnidirectionalCodec() if listens else JsonCodec()
        traits = SessionTraits(unidirectional=listens, per_request=True)
        arrivals = world.node.sessions(traits, lambda: f"caller{next(numbers)}")
        checks = RequestChecks(["*"], lambda: None, world.recorder)
        self._endpoint = kind(
            checks, 65536, answer_max, patience_s, lambda t: arrivals.open_session(t, world.wire(codec))
        )

    async def ask(self, **request: Any) -> tuple[int, bytes]:
        """Status and body. The world takes its turns meanwhile."""
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
        asking = asyncio.create_task(self._endpoint(scope, receive, send))
        while not asking.done():
            self.world.turn()
            await asyncio.sleep(0)
        return sent[0]["status"], sent[1]["body"]


def play(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(scenario())


def slow_world(channel: ChannelOptions = RECOVERABLE) -> World:
    """One whose verifier lets nobody through yet."""
    world = World(channel)
    world.tokens.connections.known["t"] = Identity(user="ann")
    world.stops.hold("verify")
    return world


@pytest.mark.parametrize("wait", [0, 0.001])
def test_no_answer_before_connecting_is_done(wait: float) -> None:
    """However short the client wants to wait: an answer without its positions would make it lose them."""

    async def scenario() -> None:
        world = slow_world()
        asking = asyncio.create_task(Door(world, Poll).ask(token="t", subs={"news": {}}, wait=wait))
        await settle()
        await asyncio.wait({asking}, timeout=NEVER_S)
        assert not asking.done()
        world.stops.release("verify")
        status, body = await asking
        assert status == 200
        answer = json.loads(body)
        assert answer["messages"][0]["connect"]["subs"]["news"]["recoverable"] is True
        assert answer["subs"] == {"news": {"recover": True, "offset": 0, "epoch": "epoch1"}}

    play(scenario)


@pytest.mark.parametrize("kind", [Poll, PollCommands])
def test_connecting_that_takes_too_long_is_told(kind: type[Poll] | type[PollCommands]) -> None:
    """With 503, which says that asking again may help; the session that was on its way leaves nothing."""

    async def scenario() -> None:
        world = slow_world()
        more: dict[str, Any] = {"commands": [{"rpc": {}}]} if kind is PollCommands else {"wait": 0}
        status, body = await Door(world, kind, NEVER_S).ask(token="t", subs={"news": {}}, **more)
        assert status == 503
        assert b"took too long" in body
        world.stops.release("verify")
        await settle()
        assert (world.node.hub.statistics().subscriptions, len(world.node.registry)) == (0, 0)

    play(scenario)


@pytest.mark.parametrize("kind", [Poll, PollCommands])
def test_who_polls_is_told_apart_by_its_name(kind: type[Poll] | type[PollCommands]) -> None:
    """As what an SDK says of itself when it connects."""

    async def scenario() -> None:
        world = World(RECOVERABLE)
        more: dict[str, Any] = {"commands": [{"rpc": {}}]} if kind is PollCommands else {"wait": 0}
        assert (await Door(world, kind).ask(name="js", version="1", **more))[0] == 200
        [event] = world.recorder.of(SessionConnected)
        assert (event.name, event.version) == ("js", "1")

    play(scenario)


def test_a_channel_without_a_latest_message_is_no_news() -> None:
    """One that keeps the latest only calls nobody recovered while there is none. Whoever knows that waits for one."""

    async def scenario() -> None:
        latest = ChannelOptions(
            allow_subscribe_for_client=True,
            allow_subscribe_for_anonymous=True,
            history_size=1,
            history_ttl=Seconds(60),
            force_recovery=True,
            force_recovery_mode="cache",
        )
        world = World(latest)
        door = Door(world, Poll)
        subs = json.loads((await door.ask(subs={"news": {}}))[1])["subs"]
        asking = asyncio.create_task(door.ask(subs=subs))
        await asyncio.wait({asking}, timeout=NEVER_S)
        assert not asking.done()
        world.publish("news", "first")
        assert json.loads((await asking)[1])["messages"][1]["pub"]["data"] == "first"
        elsewhere = {"news": {"recover": True, "offset": 0, "epoch": "gone"}}
        assert (await asyncio.wait_for(door.ask(subs=elsewhere), PATIENCE_S))[0] == 200

    play(scenario)


@pytest.mark.parametrize("entry", [{"recover": True, "offset": None, "epoch": "gone"}, {"recover": None, "offset": 1}])
def test_what_only_the_session_understands_breaks_nobody(entry: dict[str, Any]) -> None:
    """It takes null for missing. Whoever sends that is answered; those who are written to in the same turn are, too."""

    async def scenario() -> None:
        world = World(RECOVERABLE)
        world.tokens.connections.known["t"] = Identity(user="ann")
        world.publish("news", "old")
        status, body = await Door(world, Poll).ask(token="t", subs={"news": entry})
        assert status == 200
        assert "recovered" not in json.loads(body)["messages"][0]["connect"]["subs"]["news"]

    play(scenario)


@pytest.mark.parametrize("text", [b"[" * 5000, b'{"subs":{"a":' + b"[" * 5000, b'{"token":"\xff"}', b"{"])
def test_what_is_no_question_is_refused(text: bytes) -> None:
    """With 400, however it is broken: what anyone may send is no fault of the server."""

    async def scenario() -> None:
        assert (await Door(World(RECOVERABLE), Poll).post(text))[0] == 400

    play(scenario)


def test_an_answer_that_is_full_goes_out_and_the_next_one_goes_on() -> None:
    """Everything is told once and in order, and no answer is much larger than it may be."""

    async def scenario() -> None:
        world = World(structs.replace(RECOVERABLE, history_size=100), reply_max_size=Size(1000))
        world.tokens.connections.known["t"] = Identity(user="ann")
        world.publish("news", *["x" * 200] * 60)
        door = Door(world, Poll, answer_max=2000)
        subs: dict[str, Any] = {"news": {"recover": True, "offset": 0, "epoch": "epoch1"}}
        found: list[int] = []
        while len(found) < 60:
            status, body = await door.ask(token="t", subs=subs)
            assert status == 200
            assert len(body) < 2000 + 3 * 1000
            answer = json.loads(body)
            first, *others = answer["messages"]
            news = [*first["connect"]["subs"]["news"].get("publications", []), *(push["pub"] for push in others)]
            assert news
            found += [publication["offset"] for publication in news]
            subs = answer["subs"]
            assert subs["news"]["offset"] == found[-1]
        assert found == list(range(1, 61))

    play(scenario)


def test_commands_for_which_there_is_no_room_are_not_done() -> None:
    """Each has error 111 as its reply, which says that it can be sent again; those before it have been done."""

    async def scenario() -> None:
        world = World(RECOVERABLE)
        world.tokens.connections.known["t"] = Identity(user="ann")
        world.publish("news", "x" * 300)
        commands: list[dict[str, Any]] = [{"history": {"channel": "news", "limit": 1}}] * 10
        commands.append({"publish": {"channel": "news", "data": "too late"}})
        door = Door(world, PollCommands, answer_max=1000)
        status, body = await door.ask(token="t", commands=commands)
        assert status == 200
        replies = json.loads(body)["replies"]
        codes = [reply.get("error", {"code": 0})["code"] for reply in replies]
        done = codes.count(0)
        assert codes == [0] * done + [111] * (11 - done)
        assert 1 < done < 5
        assert [reply["id"] for reply in replies] == list(range(2, 13))
        assert replies[-1]["error"]["temporary"] is True
        assert "poll.max_response_size" in world.recorder.limits()
        assert world.memory.broker.statistics().publications == 1

    play(scenario)


def test_commands_recover_nothing() -> None:
    """What the client missed comes with its polls, so it is neither read nor gathered for its commands."""

    async def scenario() -> None:
        world = World(RECOVERABLE)
        world.tokens.connections.known["t"] = Identity(user="ann")
        world.publish("news", *["x" * 300] * 5)
        subs = {"news": {"recover": True, "offset": 0, "epoch": "epoch1"}}
        status, _ = await Door(world, PollCommands).ask(token="t", subs=subs, commands=[{"rpc": {}}])
        assert status == 200
        assert world.recorder.of(RecoveryFinished) == []

    play(scenario)


def test_the_latest_that_is_owed_when_an_answer_is_full_is_in_it() -> None:
    """The positions of an answer say that the client has it, so the next poll would not ask for it."""

    async def scenario() -> None:
        world = World(RECOVERABLE)
        world.tokens.connections.known["t"] = Identity(user="ann")
        door = Door(world, Poll, answer_max=1000)
        subs = json.loads((await door.ask(token="t", subs={"news": {}, "sport": {}}, wait=0))[1])["subs"]
        subs["news"]["conflate"] = {"max_rate": 0}
        asking = asyncio.create_task(door.ask(token="t", subs=subs))
        await settle()
        world.publish("sport", "x" * 2000)
        world.turn()  # the answer is full
        world.publish("news", "first", "latest")
        world.turn()  # so this is owed
        answer = json.loads((await asking)[1])
        told = [message["pub"]["data"] for message in answer["messages"] if message.get("channel") == "news"]
        assert (told, answer["subs"]["news"]["offset"]) in ((["latest"], 2), ([], 0))

    play(scenario)


def test_commands_are_done_however_much_the_connect_result_holds() -> None:
    """It is not in the answer, so it takes no room there: else the client would be told to try again for ever."""

    async def scenario() -> None:
        cache = structs.replace(RECOVERABLE, force_recovery_mode="cache", auto_cache_recover=True)
        world = World(cache)
        world.tokens.connections.known["t"] = Identity(user="ann")
        world.publish("news", "x" * 2000)
        door = Door(world, PollCommands, answer_max=1000)
        status, body = await door.ask(token="t", subs={"news": {}}, commands=[{"presence_stats": {"channel": "news"}}])
        assert status == 200
        [reply] = json.loads(body)["replies"]
        assert reply["error"]["code"] == 108  # done, and presence is off

    play(scenario)
