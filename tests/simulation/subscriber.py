"""What a client knows about one channel, and the checks of everything that it receives there."""

from __future__ import annotations

import json
import random
from typing import Any, NamedTuple

from beaconfire.model.events import ChannelHealed
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import Publication
from tests.fakes.events import EventRecorder
from tests.simulation.broken_guarantee import BrokenGuarantee
from tests.simulation.broker import StreamStore
from tests.unit.patching import apply

HISTORY_SIZE = 6

FILTER = {"op": "not", "nodes": [{"key": "kind", "cmp": "eq", "val": "unwanted"}]}
"""The tags filter of clients with a filter. `_passes` does the same."""


def _passes(publication: Publication) -> bool:
    return (publication.tags or {}).get("kind") != "unwanted"


class Wishes(NamedTuple):
    """How a client wants a channel to be delivered. `max_rate` is in publications per second, None for all of them."""

    deltas: bool = False
    filtered: bool = False
    max_rate: float | None = None


class Counts:
    """How often things happened to a client. A simulation without events would prove nothing."""

    def __init__(self) -> None:
        self.received = 0
        self.recovered = 0
        self.unrecovered = 0
        self.patched = 0
        self.filtered = 0
        self.conflated = 0
        self.members_seen = 0
        self.refused = 0
        self.answered = 0
        """Successful replies to publish, history, presence and rpc."""
        self.server_side = 0
        """Subscriptions that the server or the connect request has made."""


class Excuses:
    """What the simulation may do, so that clients accept its consequences. Shared by all clients."""

    def __init__(self, recorder: EventRecorder) -> None:
        self._recorder = recorder
        self.gaps = False
        """Subscriptions may be ended without a reason."""
        self.failures = False
        """Calls of the engine may fail."""
        self.lost_announcements = False
        """Links and announcements may get lost."""
        self.lost_newest = False
        """A failover has lost publications."""
        self.lost_replies = False
        """A link may be lost during a publish, whose outcome is not known then."""
        self.refusals = False
        """Handlers may refuse, and may not answer in time."""
        self.control = False
        """The server may subscribe, unsubscribe and disconnect clients."""

    def now(self) -> int:
        """The number of events so far."""
        return len(self._recorder.events)

    def gap_since(self, start: int) -> bool:
        """Whether a node has found a channel whose missed publications were not all in history."""
        events = self._recorder.events[start:]
        return any(isinstance(event, ChannelHealed) and not event.bridged for event in events)


class SubscribedChannel:
    """One channel of one client, over all its connections. Raises BrokenGuarantee: see `SimulatedClient`."""

    def __init__(
        self, client: str, channel: str, rng: random.Random, store: StreamStore, excuses: Excuses, counts: Counts
    ) -> None:
        """`client` is the name of the client."""
        self.name = f"{client}, channel {channel}"
        self.channel = channel
        self.counts = counts
        self._store = store
        self._excuses = excuses
        self.wishes = Wishes(rng.random() < 0.5, rng.random() < 0.5, rng.choice((None,) * 6 + (0.0, 0.5, 20.0)))
        self.by_connect = rng.random() < 0.2
        """The client asks for this subscription in its connect requests."""
        self.delivery = Wishes()
        """How the current subscription is delivered."""
        self.base: bytes | None = None
        """The last publication of the current subscription. The next patch starts from it."""
        self.position: StreamPosition | None = None
        self.is_live = False
        self.was_live = False
        """The client has been subscribed on this connection."""
        self.is_asked = False
        """A subscribe command or the connect command is not answered yet."""
        self.asked_after = 0
        """When the client sent that command: see `Excuses.now`."""
        self.unsubscribing = 0
        self.recovered_from: StreamPosition | None = None
        self.members: dict[str, bool] = {}
        """Whether the last announcement of each client was its join. Empty at the start of a subscription."""

    @property
    def is_free(self) -> bool:
        """The client may subscribe."""
        return not (self.is_live or self.is_asked or self.unsubscribing)

    def forget_connection(self) -> None:
        self.is_live = self.was_live = self.is_asked = False
        self.unsubscribing = 0

    def ask(self, by_connect: bool = False) -> dict[str, Any]:
        """The parameters of a subscribe command, or of the entry in a connect command, which is about to be sent."""
        params: dict[str, Any] = {}
        self.recovered_from = self.position
        if self.position is not None:
            params |= {"recover": True, "offset": self.position.offset, "epoch": self.position.epoch}
        if self.wishes.deltas and not by_connect:
            params["delta"] = "fossil"
        if self.wishes.filtered:
            params["tf"] = FILTER
        if self.wishes.max_rate is not None:
            params["conflate"] = {"max_rate": self.wishes.max_rate}
        self.is_asked = True
        self.asked_after = self._excuses.now()
        return params

    # Replies

    def on_subscribed(self, result: dict[str, Any], by_connect: bool = False) -> None:
        self.is_asked = False
        if self.unsubscribing:
            return
        self._start(self.wishes._replace(deltas=False) if by_connect else self.wishes)
        if bool(result.get("delta")) is not self.delivery.deltas:
            raise BrokenGuarantee(f"{self.name}: deltas are not as requested: {result}")
        epoch, offset = result["epoch"], result.get("offset", 0)
        self._check_published(epoch, offset)
        since = self.recovered_from
        publications = result.get("publications", [])
        if since is None:
            self.position = StreamPosition(offset, epoch)
        elif result.get("recovered"):
            self.counts.recovered += 1
            if epoch != since.epoch:
                raise BrokenGuarantee(f"{self.name}: recovered from another epoch")
            self.position = since
            for publication in publications:
                self.on_publication(publication)
            if not publications:
                if (self.channel, epoch, offset) not in self._store.lost:
                    self._check_not_lost(since)  # otherwise the client may still be told
                self._skip_to(offset + 1, 0)
                self.position = StreamPosition(offset, epoch)
        else:
            self.counts.unrecovered += 1
            if publications:
                raise BrokenGuarantee(f"{self.name}: publications without recovered")
            missed = self._published(since, offset)
            # After a loss, history is shorter than its size.
            known = epoch == since.epoch and not self._store.has_lost_after(self.channel, StreamPosition(0, epoch))
            if known and len(missed) <= HISTORY_SIZE and offset >= since.offset:
                raise BrokenGuarantee(f"{self.name}: was not recovered although history had it: {result}")
            self.position = StreamPosition(offset, epoch)

    def _start(self, delivery: Wishes) -> None:
        self.delivery = delivery
        self.is_live = self.was_live = True
        self.base = None
        self.members.clear()

    def _check_not_lost(self, position: StreamPosition) -> None:
        """A client with a publication that was lost must be told, and must not go on."""
        if self._store.is_lost(self.channel, position):
            raise BrokenGuarantee(f"{self.name}: goes on from {position}, which was lost")

    def _check_published(self, epoch: str, offset: int) -> None:
        key = (self.channel, epoch, offset)
        if offset and key not in self._store.published and key not in self._store.lost:
            raise BrokenGuarantee(f"{self.name}: offset {offset} was never published in {epoch}")

    # Pushes

    def on_push(self, push: dict[str, Any]) -> None:
        if self.unsubscribing:
            return  # sent before the server received the unsubscribe command
        if "subscribe" in push:
            self._on_server_subscribed(push["subscribe"])
        elif "unsubscribe" in push:
            self._on_unsubscribed(push["unsubscribe"]["code"])
        elif not self.is_live:
            raise BrokenGuarantee(f"{self.name}: {push} without a subscription")
        elif "pub" in push:
            self.on_publication(push["pub"])
        else:
            self._on_member(push)

    def _on_server_subscribed(self, start: dict[str, Any]) -> None:
        """The server has subscribed the client. Its recovery does not concern the client's earlier position."""
        if self.is_live or not self._excuses.control:
            raise BrokenGuarantee(f"{self.name}: unexpected subscribe push: {start}")
        self.counts.server_side += 1
        self._start(Wishes())
        self._check_published(start["epoch"], start.get("offset", 0))
        self.position = StreamPosition(start.get("offset", 0), start["epoch"])

    def _on_unsubscribed(self, code: int) -> None:
        if code == 2500:
            self._check_gap()
        elif code != 2000 or not self._excuses.control:
            raise BrokenGuarantee(f"{self.name}: unexpected unsubscribe push with code {code}")
        self.is_live = False

    def _on_member(self, push: dict[str, Any]) -> None:
        joined = "join" in push
        client = (push["join"] if joined else push["leave"])["info"]["client"]
        if self.members.get(client) is joined and not self._excuses.lost_announcements:
            raise BrokenGuarantee(f"{self.name}: {push} follows another one")
        self.members[client] = joined
        self.counts.members_seen += 1

    def _check_gap(self) -> None:
        """Checks that history does not continue at the position of a subscription that was ended because of a gap."""
        if self.position is None or not self.is_live:
            raise BrokenGuarantee(f"{self.name}: a gap without a subscription")
        if not self.may_have_gap():
            raise BrokenGuarantee(f"{self.name}: was ended at {self.position}, although history continues there")

    def may_have_gap(self) -> bool:
        """Whether the server may end the subscription of this connection because of a gap: history does not continue
        at its position, or did not while the subscription was made, or the simulation has caused a gap."""
        # After the loss of a stream, announcements of the old epoch may reach subscriptions to the new one.
        excuses = self._excuses
        if excuses.gaps or excuses.failures or self.channel in self._store.streams_lost:
            return True
        if self.is_asked and excuses.gap_since(self.asked_after):
            return True
        position, top = self.position, self._store.position(self.channel)
        if position is None or not self.was_live:
            return False
        later = (
            publication.offset
            for publication in self._store.streams.get(self.channel, [])
            if publication.offset > position.offset
        )
        first = next(later, 0)
        before = self._store.predecessors.get((self.channel, top.epoch, first), first - 1) if first else top.offset
        # The server may have sent lost publications that the client has not received.
        lost = self._store.has_lost_after(self.channel, position)
        return lost or position.epoch != top.epoch or position.offset < before

    # Publications

    def on_publication(self, publication: dict[str, Any]) -> None:
        assert self.position is not None
        self.counts.received += 1
        offset, epoch = publication["offset"], self.position.epoch
        if offset <= self.position.offset:
            raise BrokenGuarantee(f"{self.name}: offset {offset} after {self.position}")
        key = (self.channel, epoch, offset)
        if key not in self._store.lost:
            self._check_not_lost(self.position)
        self._skip_to(offset, publication.get("conflated", 0))
        self.position = StreamPosition(offset, epoch)
        published = self._store.published.get(key) or self._store.lost.get(key)
        if published is None:
            raise BrokenGuarantee(f"{self.name}: offset {offset} was never published in {epoch}: {publication}")
        if self._decode(publication) != bytes(published.data):
            raise BrokenGuarantee(f"{self.name}: offset {offset} is not what was published: {publication}")
        if self.delivery.filtered and not _passes(published):
            raise BrokenGuarantee(f"{self.name}: the filter passed {published}")

    def _skip_to(self, offset: int, left_out: int) -> None:
        """Checks that each publication between the position and `offset` was filtered out, or left out and counted."""
        assert self.position is not None
        # What was left out may have been lost since.
        counts = self.delivery.max_rate is None or not self._store.has_lost_after(self.channel, self.position)
        if (counts and self.count_missing(offset - 1) != left_out) or (left_out and self.delivery.max_rate is None):
            raise BrokenGuarantee(f"{self.name}: offset {offset} after {self.position} with {left_out} left out")
        self.counts.conflated += left_out
        self.counts.filtered += len(self._published(self.position, offset - 1)) - left_out

    def count_missing(self, top: int) -> int:
        """How many publications after the position, up to offset `top`, the client wants."""
        assert self.position is not None
        between = self._published(self.position, top)
        return sum(not self.delivery.filtered or _passes(publication) for publication in between)

    def is_complete(self) -> bool:
        """The client has everything that it wants."""
        position, top = self.position, self._store.position(self.channel)
        if position is None or position.epoch != top.epoch or self._store.is_lost(self.channel, position):
            return False
        return position.offset <= top.offset and not self.count_missing(top.offset)

    def _published(self, since: StreamPosition, top: int) -> list[Publication]:
        """What was published after a position, up to offset `top`. What was lost counts only before a publication that
        was lost as well."""
        published = self._store.published
        if self._store.is_lost(self.channel, since._replace(offset=top + 1)):
            published = published | self._store.lost
        keys = ((self.channel, since.epoch, offset) for offset in range(since.offset + 1, top + 1))
        return [published[key] for key in keys if key in published]

    def check_history(self, result: dict[str, Any]) -> None:
        """Checks a page of history: in order, and as published."""
        epoch, last = result["epoch"], 0
        for publication in result.get("publications", []):
            key = (self.channel, epoch, publication["offset"])
            published = self._store.published.get(key) or self._store.lost.get(key)
            if published is None or json.dumps(publication["data"]).encode() != bytes(published.data):
                raise BrokenGuarantee(f"{self.name}: history has {publication}, published: {published}")
            if publication["offset"] <= last:
                raise BrokenGuarantee(f"{self.name}: history is out of order: {result}")
            last = publication["offset"]

    def _decode(self, publication: dict[str, Any]) -> bytes:
        """The JSON that was published. A patch is applied to the publication before."""
        if not self.delivery.deltas:
            return json.dumps(publication["data"]).encode()
        text: bytes = publication["data"].encode()
        if publication.get("delta"):
            self.counts.patched += 1
            if self.base is None:
                raise BrokenGuarantee(f"{self.name}: a patch without a base: {publication}")
            try:
                text = apply(self.base, text)
            except AssertionError as error:
                raise BrokenGuarantee(f"{self.name}: a patch that does not fit: {error}") from None
        self.base = text
        return text
