"""The messages between the engine of a worker process (`engines.remote`) and the hub (`engines.hub`).

Each message is one msgpack array: a number that names its type, then its fields. A worker sends `Hello` first; the hub
answers with `Welcome`, or with `Refused` and the end of the connection. These three never change, so that two versions
understand each other's refusal. Any change of another message changes `PROTOCOL`.

After `Welcome` a worker sends requests, each with an `id` of its own, without waiting for replies. The hub answers each
request with one reply of the same `id`, in any order. Announcements and control messages of the hub have no `id`.
Everything that the hub writes to one worker stays in order: an announcement that was made before a reply arrives before
that reply.

Payloads are msgpack binaries, which each receiver copies out of what it has received. So a payload never keeps the
other messages of the same read in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal, TypeAlias

import msgspec
from msgspec import Struct

from beaconfire.engines.migration import MigrationStatus
from beaconfire.engines.port import Durability, HistoryOptions, PublishOptions, PublishOutcome
from beaconfire.model.position import StreamPosition

PROTOCOL: Final = 1
"""The version of the messages."""


class Message(Struct, array_like=True, gc=False):
    """One message. None of them refers to itself, so the garbage collector need not look at them."""


# The first messages


class Hello(Message, tag=0):
    """`node` is the uid of the node if its control bus is started, otherwise empty. `version` is Beaconfire's."""

    protocol: int
    node: str
    version: str


class Welcome(Message, tag=1):
    """`instance` names one start of the hub. The other fields are those of the hub's engine."""

    protocol: int
    instance: str
    version: str
    engine: str
    durabilities: tuple[Durability, ...]
    keeps_order: bool


class Refused(Message, tag=2):
    """The hub does not serve this worker, and closes the connection."""

    reason: str


# Parts of messages


class Info(Message):
    """A `ClientInfo`."""

    user: str
    client: str
    conn_info: bytes
    chan_info: bytes


class Published(Message):
    """A `Publication` in a page of history."""

    data: bytes
    info: Info | None
    offset: int
    tags: dict[str, str] | None
    epoch: str


class Change(Message):
    """A `MemberChange`."""

    joined: bool
    info: Info


# Requests of a worker. Each is a call of the same name in `engines.port`.


class Request(Message):
    """`id` is a number that no other request of the connection has. The link sets it."""

    id: int


class Ping(Request, tag=10):
    pass


class Attach(Request, tag=11):
    channels: Sequence[str]


class Detach(Request, tag=12):
    channels: Sequence[str]


class Publish(Request, tag=13):
    channel: str
    data: bytes
    options: PublishOptions
    info: Info | None
    tags: dict[str, str] | None


class Announce(Request, tag=14):
    channel: str
    changes: list[Change]


class ReadHistory(Request, tag=15):
    channel: str
    options: HistoryOptions
    limit: int
    since: StreamPosition | None
    reverse: bool


class ReadPositions(Request, tag=16):
    channels: dict[str, HistoryOptions]


class RemoveHistory(Request, tag=17):
    channel: str


class AddMembers(Request, tag=20):
    channel: str
    members: list[Info]
    ttl_s: float


class RemoveMembers(Request, tag=21):
    channel: str
    clients: Sequence[str]


class RefreshMembers(Request, tag=22):
    channel: str
    clients: Sequence[str]
    ttl_s: float


class ReadMembers(Request, tag=23):
    channel: str


class CountMembers(Request, tag=24):
    channel: str


class StartControl(Request, tag=30):
    node: str


class StopControl(Request, tag=31):
    pass


class Broadcast(Request, tag=32):
    message: bytes


class Send(Request, tag=33):
    node: str
    message: bytes


class Survey(Request, tag=34):
    """The hub asks the other nodes only. The worker adds the answer of its own node."""

    request: bytes
    timeout_s: float


class ReadNodes(Request, tag=35):
    pass


class SteerMigration(Request, tag=37):
    """A call of `engines.migration`. `read_percent` is for `set_read_percent` only."""

    call: Literal["status", "set_read_percent", "verify"]
    read_percent: float = 0.0


class SurveyAnswer(Message, tag=36):
    """The answer of this node to `SurveyQuestion`. It has no reply."""

    survey: int
    answer: bytes


# Replies of the hub


class Reply(Message):
    """`id` is that of the request."""

    id: int


class Done(Reply, tag=50):
    """The call has returned None."""


class Failed(Reply, tag=51):
    """The call has raised a `CommandError`. `kind` is its class."""

    kind: Literal["command", "unavailable", "not_replicated", "storage_full"]
    code: int
    message: str
    temporary: bool
    detail: str


class Unexpected(Reply, tag=52):
    """The call has raised `OutOfSequence`."""

    producer: str
    seq: int
    expected: int


class Outcome(Reply, tag=53):
    outcome: PublishOutcome


class Page(Reply, tag=54):
    publications: list[Published]
    position: StreamPosition
    continues: bool


class Positions(Reply, tag=55):
    positions: dict[str, StreamPosition]


class Names(Reply, tag=56):
    """Client ids without an entry, or uids of nodes."""

    names: list[str]


class Members(Reply, tag=57):
    members: list[Info]


class Counts(Reply, tag=58):
    num_clients: int
    num_users: int


class Sent(Reply, tag=59):
    is_live: bool


class Answers(Reply, tag=60):
    answers: list[bytes]


class MigrationState(Reply, tag=61):
    status: MigrationStatus


# What the hub sends without a request


class Announced(Message, tag=80):
    """See `BrokerEvents.on_publication`. The fields of the publication are not in a `Published`, which would cost both
    ends one more object for each announcement."""

    channel: str
    data: bytes
    info: Info | None
    offset: int
    tags: dict[str, str] | None
    publication_epoch: str
    epoch: str
    previous: int
    exclude: Sequence[str]
    delta: bool


class Joined(Message, tag=81):
    channel: str
    info: Info


class Left(Message, tag=82):
    channel: str
    info: Info


class LinkDown(Message, tag=83):
    """The engine of the hub has lost its link: see `BrokerEvents.on_link_down`."""

    channels: list[str] | None


class LinkUp(Message, tag=84):
    channels: list[str] | None


class Control(Message, tag=85):
    """A broadcast, or a message to this node."""

    message: bytes


class SurveyQuestion(Message, tag=86):
    survey: int
    request: bytes


BrokerRequest: TypeAlias = Ping | Attach | Detach | Publish | Announce | ReadHistory | ReadPositions | RemoveHistory
PresenceRequest: TypeAlias = AddMembers | RemoveMembers | RefreshMembers | ReadMembers | CountMembers
ControlRequest: TypeAlias = StartControl | StopControl | Broadcast | Send | Survey | ReadNodes
FromWorker: TypeAlias = Hello | BrokerRequest | PresenceRequest | ControlRequest | SteerMigration | SurveyAnswer

AnyReply: TypeAlias = (
    Done | Failed | Unexpected | Outcome | Page | Positions | Names | Members | Counts | Sent | Answers | MigrationState
)
FromHub: TypeAlias = (
    Welcome | Refused | AnyReply | Announced | Joined | Left | LinkDown | LinkUp | Control | SurveyQuestion
)

encode: Final = msgspec.msgpack.Encoder().encode
decode_from_worker: Final[Callable[[bytes | memoryview], list[FromWorker]]] = msgspec.msgpack.Decoder(
    list[FromWorker]
).decode
"""Both decoders raise ValueError for anything but one array of messages of their type."""
decode_from_hub: Final[Callable[[bytes | memoryview], list[FromHub]]] = msgspec.msgpack.Decoder(list[FromHub]).decode
