"""Messages between nodes: control messages, and surveys whose answers are merged.

A control message goes to every node, the sender included, and each node applies it to its own sessions. So the server
API does not need to know which node a user is connected to. A survey asks every node and merges the answers.
"""

from __future__ import annotations

import fnmatch
from typing import Protocol, TypeAlias

import msgspec
from msgspec import Struct

from beaconfire.base.errors import EngineUnavailable
from beaconfire.engines.port import ControlBus
from beaconfire.model.grants import SubscriptionOverride
from beaconfire.model.position import StreamPosition
from beaconfire.node.forwarding import Forwarded, Forwarding, ForwardingAnswer, ForwardingMessage

SURVEY_TIMEOUT_S = 5.0


class Selector(Struct, frozen=True, omit_defaults=True):
    """Selects all sessions of a `user`, or the one with this `client` id or `session` id. Every given field must match.

    `session` is the session id of the connect result, or a client id.
    """

    user: str = ""
    client: str = ""
    session: str = ""


class SubscribeSessions(Struct, frozen=True, tag=True, omit_defaults=True):
    """Subscribe these sessions to a channel, server-side. Payloads are JSON text."""

    who: Selector
    channel: str
    info: bytes = b""
    data: bytes = b""
    expire_at_unix_s: float = 0.0
    since: StreamPosition | None = None
    override: SubscriptionOverride | None = None


class UnsubscribeSessions(Struct, frozen=True, tag=True, omit_defaults=True):
    """An empty `channel` is every channel."""

    who: Selector
    channel: str = ""


class DisconnectSessions(Struct, frozen=True, tag=True, omit_defaults=True):
    who: Selector
    code: int
    reason: str
    whitelist: tuple[str, ...] = ()
    """Client ids that stay."""


class RefreshSessions(Struct, frozen=True, tag=True, omit_defaults=True):
    """Changes when these sessions expire; 0 is never. With `expired` they end now. `info` None keeps the info."""

    who: Selector
    expired: bool = False
    expire_at_unix_s: float = 0.0
    info: bytes | None = None


class MessageSessions(Struct, frozen=True, tag=True, omit_defaults=True):
    """Send this payload to these sessions, outside of any channel."""

    who: Selector
    data: bytes


class HistoryRemoved(Struct, frozen=True, tag=True):
    """The history of this channel was removed: no node may use a page that it read before."""

    channel: str


SessionsMessage: TypeAlias = (
    SubscribeSessions | UnsubscribeSessions | DisconnectSessions | RefreshSessions | MessageSessions
)
ControlMessage: TypeAlias = SessionsMessage | HistoryRemoved


class ChannelsSurvey(Struct, frozen=True, tag=True):
    """Asks for the channels with subscribers. `pattern` is a glob; an empty one matches all."""

    pattern: str = ""


class NodeSurvey(Struct, frozen=True, tag=True):
    pass


class ConnectionsSurvey(Struct, frozen=True, tag=True):
    """Asks for connections: of one user and in one channel if given, at most `limit` of each node."""

    user: str = ""
    channel: str = ""
    limit: int = 1000


Survey: TypeAlias = ChannelsSurvey | NodeSurvey | ConnectionsSurvey


class NodeInfo(Struct, frozen=True):
    """One node as the server API shows it. `uptime` is whole seconds."""

    uid: str
    name: str
    version: str
    num_clients: int
    num_users: int
    num_channels: int
    num_subs: int
    uptime: int


class ConnectionInfo(Struct, frozen=True):
    """One connection as the server API shows it. `meta` is JSON text or empty."""

    client: str
    user: str
    transport: str
    protocol: str
    channels: list[str]
    connected_at_ms: int
    app_name: str = ""
    app_version: str = ""
    meta: bytes = b""


class LocalControl(Protocol):
    """Applies messages and answers surveys for the sessions of one node."""

    def apply(self, message: ControlMessage) -> None: ...

    def channel_counts(self) -> dict[str, int]: ...

    def node_info(self) -> NodeInfo: ...

    def connection_infos(self, survey: ConnectionsSurvey) -> list[ConnectionInfo]: ...


class Cluster:
    """Sends control messages and surveys to all nodes, and handles those of other nodes."""

    def __init__(self, control: ControlBus, local: LocalControl, uid: str, forwarding: Forwarding) -> None:
        """`uid` is the unique id of this node."""
        self._control = control
        self._local = local
        self._uid = uid
        self._forwarding = forwarding
        self._messages = msgspec.msgpack.Decoder(ControlMessage | ForwardingMessage)
        self._surveys = msgspec.msgpack.Decoder(Survey)

    async def start(self) -> None:
        await self._control.start(self._uid, self)

    async def stop(self) -> None:
        await self._control.stop()

    async def send(self, message: ControlMessage) -> None:
        """Applies `message` on every node, at most once."""
        await self._control.broadcast(msgspec.msgpack.encode(message))

    async def channels(self, pattern: str) -> dict[str, int]:
        """The number of subscribers of each channel, over all nodes. Raises EngineUnavailable if a node does not
        answer."""
        totals: dict[str, int] = {}
        for answer in await self._ask_all(ChannelsSurvey(pattern)):
            for channel, count in msgspec.msgpack.decode(answer, type=dict[str, int]).items():
                totals[channel] = totals.get(channel, 0) + count
        return totals

    async def nodes(self) -> list[NodeInfo]:
        """The nodes that answer in time."""
        return [msgspec.msgpack.decode(answer, type=NodeInfo) for answer in await self._ask(NodeSurvey())]

    async def connections(self, survey: ConnectionsSurvey) -> list[ConnectionInfo]:
        """The connections of all nodes. Raises EngineUnavailable if a node does not answer."""
        found: list[ConnectionInfo] = []
        for answer in await self._ask_all(survey):
            found += msgspec.msgpack.decode(answer, type=list[ConnectionInfo])
        return found

    async def _ask_all(self, survey: Survey) -> list[bytes]:
        """The answers of all live nodes. Raises EngineUnavailable if one of them does not answer in time: without it
        the answers would look like those of the whole."""
        live = len(await self._control.nodes())
        answers = await self._ask(survey)
        if len(answers) < live:
            live = len(await self._control.nodes())  # a node that has ended meanwhile has no connections any more
        if len(answers) < live:
            raise EngineUnavailable(f"{len(answers)} of {live} nodes have answered within {SURVEY_TIMEOUT_S:g} s")
        return answers

    async def _ask(self, survey: Survey) -> list[bytes]:
        return await self._control.survey(msgspec.msgpack.encode(survey), SURVEY_TIMEOUT_S)

    # From the control bus

    def on_control(self, message: bytes) -> None:
        decoded = self._messages.decode(message)
        if isinstance(decoded, Forwarded | ForwardingAnswer):
            self._forwarding.on_message(decoded)
        else:
            self._local.apply(decoded)

    def on_survey(self, request: bytes) -> bytes:
        survey = self._surveys.decode(request)
        if isinstance(survey, ChannelsSurvey):
            counts = self._local.channel_counts()
            if survey.pattern:
                counts = {name: n for name, n in counts.items() if fnmatch.fnmatchcase(name, survey.pattern)}
            return msgspec.msgpack.encode(counts)
        if isinstance(survey, NodeSurvey):
            return msgspec.msgpack.encode(self._local.node_info())
        return msgspec.msgpack.encode(self._local.connection_infos(survey))
