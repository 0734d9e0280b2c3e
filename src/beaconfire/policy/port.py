"""The port for decisions: whether a client may connect, subscribe, publish, read or call a method.

Every decision goes through a policy, whatever the way in: a command of a client, `subs` of a connect, a token, or the
server API (`Via`). Policies form a chain (`policy.chain`). Each policy has one of three answers:

* it *permits*, by returning the identity, the grant or the data;
* it has *no opinion*, by returning None; a request without any permission is refused;
* it *refuses*, by raising CommandError, or Disconnect to end the session as well. About reading presence and history,
  False is a refusal, too. All policies of the chain are asked, so a permission never hides a refusal. Only an rpc and
  a message are answered by the first policy that handles them.

Any other exception is reported, and the client gets error 100. A policy may suspend only in the decisions that it
lists in `suspending`. Such a decision has a deadline, `client.decision_timeout`, and is cancelled when the session
ends. After the decision, the session checks again what it relies on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Final, Protocol

from msgspec import Raw, Struct

from beaconfire.channels.namespaces import Namespace
from beaconfire.model.grants import SubscriptionGrant
from beaconfire.model.handshake import Handshake
from beaconfire.model.identity import Identity
from beaconfire.model.requests import ConnectionRequest, SubscriptionRequest

DECISIONS: Final = (
    "connect",
    "refresh",
    "subscribe",
    "sub_refresh",
    "publish",
    "presence",
    "history",
    "rpc",
    "message",
)
"""The names of the decisions, for `Policy.suspending`."""

TICKET_DECISIONS: Final = ("connect", "refresh", "subscribe", "sub_refresh")
"""The decisions that a resume ticket holds. A client that returns with a ticket does not cause them again."""


class Via(Enum):
    """The way by which a request came in."""

    COMMAND = "command"
    """A command of the client."""
    CONNECT = "connect"
    """`subs` of a connect request."""
    TOKEN = "token"
    """The channels of a connection token, or the personal channel of a user."""
    SERVER_API = "server_api"
    """The server API."""


class Caller(Protocol):
    """The session for which a decision is made."""

    @property
    def client(self) -> str:
        """The client id."""

    @property
    def identity(self) -> Identity: ...


class ConnectionAttempt(Struct, frozen=True):
    """A client that wants to connect: its request, its client id, and the HTTP request of its connection.

    `proposed` is the identity so far: of the policies before this one in the chain, for example of a verified token.
    """

    request: ConnectionRequest
    client: str
    handshake: Handshake
    proposed: Identity | None = None


class PublicationAttempt(Struct, frozen=True):
    """A publication that somebody wants to publish.

    `caller` is None for the server API. `subscribed` is true if the caller's session is subscribed to the channel.
    """

    caller: Caller | None
    via: Via
    channel: str
    namespace: Namespace
    data: Raw
    tags: Mapping[str, str] | None = None
    subscribed: bool = False


class EndedSubscription(Struct, frozen=True):
    """A subscription that has ended. `code` is 0 if the client unsubscribed or its session ended."""

    client: str
    identity: Identity
    channel: str
    code: int


class EndedSession(Struct, frozen=True):
    """A connected session that has ended, with the code and the reason of the disconnect."""

    client: str
    identity: Identity
    code: int
    reason: str


class Policy(Protocol):
    """Decisions about clients. For the three answers and their order see the module.

    `policy.no_opinion.NoOpinion` implements all of it: a subclass overrides what it decides.
    """

    @property
    def suspending(self) -> frozenset[str]:
        """The decisions (see `DECISIONS`) that may suspend, the same at each call. All others finish in one step.

        A decision that awaits anything must be listed. Otherwise the connection of the client ends with an internal
        error, which names the method that has suspended.
        """

    @property
    def decides_for_server_api(self) -> bool:
        """Whether `publish` is called for the server API. If no policy wants that, all its publications are
        permitted. Read once."""

    @property
    def wants_endings(self) -> bool:
        """Whether `unsubscribed` and `disconnected` are called. Both may suspend."""

    @property
    def ticket_version(self) -> str | None:
        """Names the rules of `TICKET_DECISIONS` of this policy. A ticket of other rules is refused, so an application
        changes the version when its rules change. Empty if the policy makes none of these decisions. None if its
        decisions are not for tickets: then no client of the server gets one. Read once."""

    async def connect(self, attempt: ConnectionAttempt) -> Identity | None:
        """The identity of the client. A returned identity replaces `attempt.proposed`."""

    async def refresh(self, caller: Caller, token: str) -> Identity | None:
        """The identity of the same user with a later expiry."""

    async def subscribe(
        self,
        caller: Caller,
        request: SubscriptionRequest,
        namespace: Namespace,
        via: Via,
        proposed: SubscriptionGrant | None,
    ) -> SubscriptionGrant | None:
        """The permission to subscribe to `request.channel`.

        `proposed` is the grant so far: of a token, of the server API, or of the policies before this one in the chain.
        A returned grant replaces it. With `Via.TOKEN` and `Via.SERVER_API` there always is one.
        """

    async def sub_refresh(self, caller: Caller, channel: str, token: str) -> SubscriptionGrant | None:
        """The permission for a subscription that exists, with a later expiry."""

    async def publish(self, attempt: PublicationAttempt) -> Raw | None:
        """The data to publish: `attempt.data` or changed data, which the next policy of the chain gets."""

    async def presence(self, caller: Caller, channel: str, namespace: Namespace, subscribed: bool) -> bool | None:
        """True if the caller may see who is in the channel, False if not. `subscribed` as in `PublicationAttempt`."""

    async def history(self, caller: Caller, channel: str, namespace: Namespace, subscribed: bool) -> bool | None:
        """True if the caller may read history, False if not. `subscribed` as in `PublicationAttempt`."""

    async def rpc(self, caller: Caller, method: str, data: Raw) -> Raw | None:
        """The data of the result."""

    async def message(self, caller: Caller, data: Raw) -> bool | None:
        """True if the message, which has no reply, was handled."""

    async def unsubscribed(self, ended: Sequence[EndedSubscription]) -> None:
        """Subscriptions have ended, in this order. The next call is made after this one has finished."""

    async def disconnected(self, ended: Sequence[EndedSession]) -> None:
        """Sessions have ended, in this order. The next call is made after this one has finished."""
