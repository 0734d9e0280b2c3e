"""One session's membership of one channel: catching up, then live; and the one way to recover what was missed.

Theory of operation. Between a client's question "what did I miss since here?" and the first live publication there must
be neither a gap nor an overlap, while publications keep arriving. The order is *hold, attach, read, merge*:

1. hold: the subscription joins the hub in the phase CATCHING_UP. Live publications are kept here, not sent.
2. attach: the node listens to the channel at the broker. From now on nothing can pass unseen.
3. read: history since the client's position is read, with the top of the stream at that moment.
4. merge: `go_live(top)` drops what was held up to `top` (it is in the history that was read), checks that the rest
   goes on from there without a hole and in the same epoch, and hands it out; the phase is LIVE.

Leaving out any step loses or doubles publications; the simulation proves it for each. A hole, a foreign epoch or too
much to hold raises Gap: an honest "insufficient state", on which the client starts over with its position. Live, the
same check runs for every publication: `expected` is the only offset that may come next.

A recovery too large for one reply is sent in pieces. After each piece but the last one the subscription is *behind*: it
keeps the position that it has reached and holds no stored publications, because the next read of history has them. Then
steps 1, 3 and 4 are done again from that position (see `commands.catching_up`).
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Protocol

from msgspec import Struct

from beaconfire.channels.namespaces import Namespace
from beaconfire.delivery.conflation import Conflation
from beaconfire.delivery.outbox import Outbox
from beaconfire.delivery.tags_filter import TagsFilter
from beaconfire.model.grants import SubscriptionGrant
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import ClientInfo, Publication
from beaconfire.protocols.port import DeltaCodec, Wire

ANY = -1
"""`Subscription.expected` of one that does not watch its position: every publication is welcome."""

HELD = -2
"""`Subscription.expected` of one that is not live: no publication is delivered."""


HELD_ITEM_BYTES = 256
"""What a held publication costs beside its data, roughly; a flood of tiny ones is a flood as well."""


class Gap(Exception):
    """Publications are missing between what the subscriber has and what comes next. The text says which."""


class Subscriber(Protocol):
    """Whose subscription it is: a session, seen from the hub."""

    @property
    def client(self) -> str: ...

    @property
    def wire(self) -> Wire: ...

    @property
    def outbox(self) -> Outbox: ...

    def on_gap(self, subscription: Subscription, reason: str) -> None:
        """Something is missing; the subscription has ended and must be recovered."""

    def on_undeliverable(self, subscription: Subscription) -> None:
        """A publication cannot be expressed in the session's wire format."""


class SubscriptionPhase(Enum):
    CATCHING_UP = "catching up"
    LIVE = "live"
    ENDED = "ended"


class Held(Struct, frozen=True):
    """A publication that arrived while its subscriber was catching up."""

    publication: Publication
    epoch: str
    delivered: bool
    """False if this subscriber is excluded, or its filter does not pass it: it counts for the position only."""


class SubscriptionOptions(Struct, frozen=True):
    """What this subscription does, worked out once from namespace, grant and request."""

    positioned: bool = False
    recoverable: bool = False
    presence: bool = False
    announces_join_leave: bool = False
    """Its coming and going is announced to the channel."""
    receives_join_leave: bool = False
    server_side: bool = False


class DeliveryStrategy:
    """What one subscription gets otherwise than the others: what passes a filter, as patches, less often, or all."""

    __slots__ = ("base", "codec", "conflation", "tags_filter")

    def __init__(
        self, tags_filter: TagsFilter | None, codec: DeltaCodec | None, conflation: Conflation | None = None
    ) -> None:
        """`codec` is the session's own if it gets patches."""
        self.tags_filter = tags_filter
        self.codec = codec
        self.conflation = conflation
        self.base: Publication | None = None
        """The last publication that the client was given, from which the next patch may start."""

    def passes(self, publication: Publication) -> bool:
        return self.tags_filter is None or self.tags_filter.passes(publication.tags)


class Subscription:
    """State of one membership. The hub reads `expected`, `epoch`, `wire`, `outbox`, `client` for every batch."""

    __slots__ = (
        "_held",
        "_held_bytes",
        "_holds_stored",
        "channel",
        "checked_offset",
        "client",
        "epoch",
        "expected",
        "grant",
        "info",
        "namespace",
        "options",
        "outbox",
        "owner",
        "phase",
        "reached",
        "removed",
        "replied",
        "skip",
        "strategy",
        "wire",
    )

    def __init__(
        self,
        channel: str,
        namespace: Namespace,
        owner: Subscriber,
        options: SubscriptionOptions,
        grant: SubscriptionGrant,
        info: ClientInfo,
        strategy: DeliveryStrategy | None = None,
    ) -> None:
        """`strategy` is None for nearly all: they get what everybody gets."""
        self.channel = channel
        self.namespace = namespace
        self.owner = owner
        # Copied from the owner because fan-out reads them once per delivery.
        self.client = owner.client
        self.wire = owner.wire
        self.outbox = owner.outbox
        self.options = options
        self.grant = grant
        self.info = info
        self.strategy = strategy
        self.phase = SubscriptionPhase.CATCHING_UP
        self.expected = HELD
        self.epoch = ""
        self.checked_offset = 0
        self.replied = False
        self.removed = False
        self.skip = 0
        """How many items of its channel's pending batch were there before it."""
        self.reached: StreamPosition | None = None
        """Up to where a recovery in pieces has come; None if there is none, or it is finished."""
        self._held: list[Held] | None = []
        self._held_bytes = 0
        self._holds_stored = True

    def hold(self, publication: Publication, epoch: str, delivered: bool, limit_bytes: int) -> None:
        """Keeps a publication that arrived while catching up; beyond the limit the next `go_live` finds a gap."""
        if self._held is None or (publication.offset and not self._holds_stored):
            return
        self._held_bytes += len(publication.data) + HELD_ITEM_BYTES
        if self._held_bytes > limit_bytes:
            self._held = None
        else:
            self._held.append(Held(publication, epoch, delivered))

    @property
    def is_catching_up(self) -> bool:
        return self.phase is SubscriptionPhase.CATCHING_UP

    def mark_gap(self) -> None:
        """Something was missed while catching up: `go_live` will find a gap."""
        self._held = None

    def fall_behind(self, reached: StreamPosition) -> None:
        """The recovery goes on later, from `reached`. Until `hold_again` stored publications are not held.

        What is not stored stays held: history will not have it.
        """
        self.reached = reached
        self.epoch = reached.epoch
        self._holds_stored = False
        if self._held is not None:
            self._held = [held for held in self._held if not held.publication.offset]
            self._held_bytes = sum(len(held.publication.data) + HELD_ITEM_BYTES for held in self._held)

    def hold_again(self) -> None:
        """To be called before history is read on: what is published from now on may not be in what is read."""
        self._holds_stored = True

    def go_live(self, top: StreamPosition | None) -> list[Publication]:
        """Ends catching up: `top` is the position read from history, None for a subscription without position.

        Returns what was held and is to be sent right after the reply, in order. Raises Gap, and stays held.
        """
        if self._held is None:
            raise Gap(f"publications in {self.channel!r} were missed, or too many came, while catching up")
        if top is None:
            publications = [held.publication for held in self._held if held.delivered]
            expected = ANY
        else:
            publications, expected = _merge(self._held, top)
            self.epoch = top.epoch
        self._held = None
        self.reached = None
        self.expected = expected
        self.phase = SubscriptionPhase.LIVE
        return publications

    def advance(self, offset: int, epoch: str) -> bool:
        """Moves a live, positioned subscription over one publication; False if it had that one already.

        Raises Gap for a hole or a foreign epoch: the caller ends the subscription.
        """
        if epoch != self.epoch:
            raise Gap(f"the stream's epoch changed from {self.epoch!r} to {epoch!r}")
        if offset > self.expected:
            raise Gap(f"offset {offset} came where {self.expected} was expected")
        if offset < self.expected:
            return False
        self.expected += 1
        return True

    @property
    def position(self) -> StreamPosition | None:
        """Up to where a positioned subscription was given everything, or did not want it; None for others, and before
        the reply to its subscribe."""
        if self.expected <= 0:
            return self.reached if self.replied else None
        conflation = self.strategy.conflation if self.strategy is not None else None
        owed_since = conflation.since if conflation is not None else None
        return StreamPosition(self.expected - 1 if owed_since is None else owed_since, self.epoch)

    def check(self, top: StreamPosition) -> None:
        """Compares a live, positioned subscription with the top of the stream. Raises Gap if something is missing.

        What was published just now may still be on its way, so falling behind counts only if the position has not
        reached what the check before this one saw.
        """
        if top.epoch != self.epoch:
            raise Gap(f"the stream's epoch is {top.epoch!r}, the subscription's {self.epoch!r}")
        if self.expected <= self.checked_offset:
            raise Gap(f"offset {self.checked_offset} never came; {self.expected} is expected")
        self.checked_offset = top.offset

    def end(self) -> None:
        self.phase = SubscriptionPhase.ENDED
        self.expected = HELD
        self.reached = None
        self._held = None
        if self.strategy is not None and self.strategy.conflation is not None:
            self.strategy.conflation.end()


def _merge(held: Sequence[Held], top: StreamPosition) -> tuple[list[Publication], int]:
    """What of `held` comes after `top`, and the offset expected next. Raises Gap for a hole or a foreign epoch."""
    publications = []
    expected = top.offset + 1
    for item in held:
        offset = item.publication.offset
        if offset == 0:  # published without history: it has no place in the order
            if item.delivered:
                publications.append(item.publication)
            continue
        if item.epoch != top.epoch:
            raise Gap(f"the stream's epoch changed from {top.epoch!r} to {item.epoch!r} while catching up")
        if offset < expected:
            continue
        if offset > expected:
            raise Gap(f"offset {offset} arrived while catching up where {expected} was expected")
        expected += 1
        if item.delivered:
            publications.append(item.publication)
    return publications, expected
