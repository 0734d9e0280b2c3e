"""The subscription of one session to one channel: first catching up, then live.

Theory of operation. A client subscribes with its position and must get every publication after this position exactly
once, while publishers keep publishing. The steps are *hold, attach, read, merge*:

1. hold: the subscription is added to the hub in the phase CATCHING_UP. It holds live publications and sends none.
2. attach: the node attaches to the channel at the broker. From now on every publication reaches the hub.
3. read: history after the client's position is read, with the top of the stream at that moment. The channel learns
   the position, so that a link that is lost from now on is healed from there (`place`).
4. merge: `go_live(top)` drops held publications up to `top`, because the history that was read contains them. It checks
   that the other held publications continue from `top` without a missing offset and in the same epoch, and returns
   them. The phase is LIVE.

If any step were left out, publications would be lost or delivered twice: the simulation shows that for each step. A
missing offset, another epoch, or too many bytes to hold raise `Gap`. The client is then told that its state is
insufficient, and subscribes again with its position. In the phase LIVE the same check runs for every publication:
each publication names its predecessor in the stream, and the subscription must have seen that one (`seen`). Offsets
rise, but not necessarily by one.

A recovery that is too large for one reply is sent in pieces. After each piece except the last one, the subscription is
*behind*: it keeps the position that it has reached, and does not hold stored publications, because the next read of
history contains them. Steps 1, 3 and 4 are then repeated from that position (see `operations.recover_in_pieces`).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from enum import Enum
from typing import Protocol

from msgspec import Struct

from beaconfire.channels.namespaces import Namespace
from beaconfire.delivery.item import Item
from beaconfire.delivery.outbox import Outbox
from beaconfire.delivery.plain import PLAIN
from beaconfire.delivery.strategy import DeliveryStrategy
from beaconfire.model.grants import SubscriptionGrant
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import ClientInfo
from beaconfire.protocols.port import Wire

ANY = -1
"""`Subscription.seen` of a subscription without a position: any publication may come next."""

HELD = -2
"""`Subscription.seen` of a subscription that is not live: no publication is delivered."""

NEVER = sys.maxsize
"""`Subscription.whole_number` of a subscription that never gets a whole batch."""

HELD_ITEM_BYTES = 256
"""Roughly what a held publication costs in addition to its data. Many tiny publications count as well."""


class Gap(Exception):
    """Publications are missing between the subscription's position and the next publication. The text says which."""


class Subscriber(Protocol):
    """The part of a session that its subscriptions and the hub use."""

    @property
    def client(self) -> str: ...

    @property
    def wire(self) -> Wire: ...

    @property
    def outbox(self) -> Outbox: ...

    def on_gap(self, subscription: Subscription, reason: str) -> None:
        """Publications are missing. The subscription has ended, and the client must recover."""

    def on_undeliverable(self, subscription: Subscription) -> None:
        """The session's encoding cannot express a publication."""


class LiveChannel(Protocol):
    """The part of `channel.LocalChannel` that a subscription uses."""

    def on_read(self, position: StreamPosition) -> None:
        """A subscription has history up to this position of the stream, and needs what comes after it."""

    def undelivered(self, subscription: Subscription) -> Sequence[Item]:
        """What the hub was given for this subscription and has not handed to it yet, in order."""


class SubscriptionPhase(Enum):
    CATCHING_UP = "catching up"
    LIVE = "live"
    ENDED = "ended"


class Held(Struct, frozen=True):
    """A publication that came while its subscription was catching up."""

    item: Item
    delivered: bool
    """False if the subscription does not get the publication, because its client is excluded. The publication then only
    moves the position."""


class SubscriptionOptions(Struct, frozen=True):
    """The effective options of a subscription, computed once from namespace, grant and request."""

    positioned: bool = False
    recoverable: bool = False
    presence: bool = False
    announces_join_leave: bool = False
    """The join and the leave of this subscription are announced in the channel."""
    receives_join_leave: bool = False
    """The client gets the joins and leaves of other subscriptions."""
    server_side: bool = False
    of_protocol: bool = False
    """The protocol of the session has made the subscription. The server API does not end it."""


class Subscription:
    """The hub reads `seen`, `epoch`, `whole_number`, `wire` and `outbox` for every batch.

    `seen` is the offset up to which the subscription has every publication, or `ANY` or `HELD`. `number` counts the
    subscriptions of the channel in the order in which they were added. `whole_number` is the same number if the
    subscription may get whole batches, because its strategy is plain, and else `NEVER`. The hub sets both.
    """

    __slots__ = (
        "_held",
        "_held_bytes",
        "_holds_stored",
        "channel",
        "client",
        "epoch",
        "grant",
        "info",
        "local",
        "namespace",
        "number",
        "options",
        "outbox",
        "owner",
        "phase",
        "reached",
        "removed",
        "replied",
        "seen",
        "strategy",
        "whole_number",
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
        strategy: DeliveryStrategy = PLAIN,
    ) -> None:
        """`strategy` belongs to this subscription alone, unless it is `PLAIN`."""
        self.channel = channel
        self.namespace = namespace
        self.owner = owner
        # Copied from the owner, because fan-out reads these attributes once per delivery.
        self.client = owner.client
        self.wire = owner.wire
        self.outbox = owner.outbox
        self.options = options
        self.grant = grant
        self.info = info
        self.strategy = strategy
        self.phase = SubscriptionPhase.CATCHING_UP
        self.seen = HELD
        self.epoch = ""
        self.replied = False
        self.removed = False
        self.local: LiveChannel | None = None
        """The channel of the hub while the subscription is in the hub."""
        self.number = 0
        self.whole_number = NEVER
        self.reached: StreamPosition | None = None
        """The end of the last piece of a recovery in pieces. None if no piece is left."""
        self._held: list[Held] | None = []
        self._held_bytes = 0
        self._holds_stored = True

    def hold(self, item: Item, delivered: bool, limit_bytes: int) -> None:
        """Holds a publication that came while catching up. Beyond the limit, the next `go_live` raises `Gap`."""
        if self._held is None or (item.offset and not self._holds_stored):
            return
        self._held_bytes += _held_bytes(item)
        if self._held_bytes > limit_bytes:
            self._held = None
        else:
            self._held.append(Held(item, delivered))

    @property
    def is_catching_up(self) -> bool:
        return self.phase is SubscriptionPhase.CATCHING_UP

    @property
    def is_positioned(self) -> bool:
        """The subscription is live and moves on in one epoch, from offset to offset."""
        return self.seen >= 0

    def report_undeliverable(self) -> None:
        """The session's encoding cannot express a publication."""
        self.owner.on_undeliverable(self)

    def mark_gap(self) -> None:
        """Publications were missed while catching up: `go_live` will raise `Gap`."""
        self._held = None

    def fall_behind(self, reached: StreamPosition) -> None:
        """The recovery continues later, from `reached`. Until `hold_again`, stored publications are not held.

        Publications without an offset stay held, because history does not contain them.
        """
        self.reached = reached
        self.epoch = reached.epoch
        self._holds_stored = False
        if self._held is not None:
            self._held = [held for held in self._held if not held.item.offset]
            self._held_bytes = sum(_held_bytes(held.item) for held in self._held)

    def hold_again(self) -> None:
        """Call this method before the next read of history, which may not contain later publications."""
        self._holds_stored = True

    def place(self, top: StreamPosition) -> bool:
        """Call this method when history was read. `top` is the top of the stream in this page.

        Returns False if what was announced meanwhile does not continue from `top`, because the link was lost during the
        read and announcements were missed. Then history must be read again.
        """
        local = self.local
        if local is None or self._held is None:
            return True  # the subscription has ended, or `go_live` will raise `Gap`
        try:
            _merge([*self._held, *(Held(item, True) for item in local.undelivered(self))], top)
        except Gap:
            return False
        local.on_read(top)
        return True

    def go_live(self, top: StreamPosition | None) -> list[Item]:
        """Makes the subscription live. `top` is the top of the stream, None for a subscription without a position.

        Returns the held publications to deliver right after the reply, in order. Raises `Gap`, and then the
        subscription is still catching up.
        """
        if self._held is None:
            raise Gap(f"publications in {self.channel!r} were missed, or too many came, while catching up")
        if top is None:
            items = [held.item for held in self._held if held.delivered]
            seen = ANY
        else:
            items, seen = _merge(self._held, top)
            self.epoch = top.epoch
            if self.local is not None:
                self.local.on_read(top if seen == top.offset else StreamPosition(seen, top.epoch))
        self._held = None
        self.reached = None
        self.seen = seen
        self.phase = SubscriptionPhase.LIVE
        return items

    def advance(self, item: Item) -> bool:
        """Moves the position of a live subscription by one publication. False for a publication it has already.

        Raises `Gap` for a missing publication or another epoch. The caller must then end the subscription.
        """
        seen = _advance(self.seen, self.epoch, item)
        moved = seen > self.seen
        self.seen = seen
        return moved

    @property
    def position(self) -> StreamPosition | None:
        """The client has received every publication up to here, except those that it does not want.

        None before the subscribe reply, and for a subscription without a position.
        """
        if self.seen < 0:
            return self.reached if self.replied else None
        held_since = self.strategy.held_since
        return StreamPosition(self.seen if held_since is None else held_since, self.epoch)

    def end(self) -> None:
        """Ends the subscription: nothing is delivered any more, and held publications are dropped. Idempotent."""
        self.phase = SubscriptionPhase.ENDED
        self.seen = HELD
        self.reached = None
        self._held = None
        self.strategy.end(self)


def _held_bytes(item: Item) -> int:
    return len(item.publication.data) + HELD_ITEM_BYTES


def _merge(held: Sequence[Held], top: StreamPosition) -> tuple[list[Item], int]:
    """The held publications after `top`, and the offset of the last stored one. Raises `Gap`."""
    items = []
    seen = top.offset
    for item, delivered in ((entry.item, entry.delivered) for entry in held):
        if item.offset:
            before, seen = seen, _advance(seen, top.epoch, item)
            delivered = delivered and seen > before
        # A publication without an offset has no place in the order, so history cannot contain it.
        if delivered:
            items.append(item)
    return items, seen


def _advance(seen: int, epoch: str, item: Item) -> int:
    """The offset up to which everything is there after this publication. `seen` is the offset before it.

    `seen` may be the offset directly before that of the publication, although the predecessor has a lower one: where a
    reader does not know the predecessor, it begins there. Raises `Gap` if the predecessor is missing, if the stream
    does not contain the publication at `seen` any more, because the engine has lost it, and for another epoch.
    """
    if item.epoch != epoch:
        raise Gap(f"the stream's epoch changed from {epoch!r} to {item.epoch!r}")
    if item.offset <= seen:
        return seen
    if item.previous > seen:
        raise Gap(f"offset {item.offset} came after {seen}, but its predecessor {item.previous} did not")
    if item.previous < seen < item.offset - 1:
        raise Gap(f"the engine has lost offset {seen}: {item.offset} follows {item.previous}")
    return item.offset
