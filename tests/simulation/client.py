"""Clients that follow the Centrifuge protocol and check every message against the delivery guarantees."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable
from typing import Any

from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import Publication
from beaconfire.session.session import Session
from tests.simulation.broken_guarantee import BrokenGuarantee
from tests.simulation.broker import CHANNELS, LossyBroker
from tests.simulation.transport import PartialWriteTransport
from tests.unit.patching import apply

HISTORY_SIZE = 6


FILTER = {"op": "not", "nodes": [{"key": "kind", "cmp": "eq", "val": "unwanted"}]}
"""The tags filter of clients with a filter. `_passes` does the same."""


def _passes(publication: Publication) -> bool:
    return (publication.tags or {}).get("kind") != "unwanted"


class ChannelState:
    """What one client knows about one channel, over all its connections."""

    def __init__(self, deltas: bool, filtered: bool, max_rate: float | None) -> None:
        """`max_rate` is in publications per second, None for a client that wants all of them."""
        self.deltas = deltas
        self.filtered = filtered
        self.max_rate = max_rate
        self.base: bytes | None = None
        """The last publication of the current subscription. The next patch starts from it."""
        self.position: StreamPosition | None = None
        self.phase = "unsubscribed"  # or "subscribing", "subscribed"
        self.unsubscribing = 0
        self.recovered_from: StreamPosition | None = None
        self.links_lost = 0
        """How many links had been lost when the client sent its last subscribe command."""
        self.was_interrupted = False
        """A link was lost while the subscription was made. Publications after its reading of history may be missing."""
        self.members: dict[str, bool] = {}
        """Whether the last announcement of each client was its join. Empty at the start of a subscription."""


class SimulatedClient:
    """A small SDK. The client remembers positions, recovers after its connection was cut, and raises BrokenGuarantee

    - for a publication that is lost, duplicated, out of order or not equal to what was published,
    - for a wrong number of publications that conflation left out,
    - for a message of a channel before the subscribe reply,
    - for the end of a subscription that history could have continued, unless `expects_gaps`,
    - for two joins or two leaves of a client after each other, unless `expects_lost_announcements`,
    - for `recovered: true` with a missing publication, and for `recovered: false` although history had everything.
    """

    def __init__(
        self,
        name: str,
        rng: random.Random,
        broker: LossyBroker,
        open_session: Callable[[PartialWriteTransport, str], Session],
    ) -> None:
        """`open_session` takes the transport and the name of the client."""
        self.name = name
        self._rng = rng
        self._broker = broker
        self._open_session = open_session
        self.channels = {
            channel: ChannelState(rng.random() < 0.5, rng.random() < 0.5, rng.choice((None,) * 6 + (0.0, 0.5, 20.0)))
            for channel in CHANNELS
        }
        self.expects_gaps = False
        """The simulation may end subscriptions without a reason, or let calls fail."""
        self.expects_lost_announcements = False
        self.session: Session | None = None
        self.transport = PartialWriteTransport(rng)
        self._ids = itertools.count(1)
        self._waiting: dict[int, tuple[str, str]] = {}
        self.received = 0
        self.recovered = 0
        self.unrecovered = 0
        self.patched = 0
        self.filtered = 0
        self.conflated = 0
        self.members_seen = 0
        self.refused = 0

    def connect(self) -> None:
        self.transport = PartialWriteTransport(self._rng)
        self.session = self._open_session(self.transport, self.name)
        self._waiting.clear()
        self.send("connect", "", {"token": self.name})

    def drop_connection(self) -> None:
        """The network fails. Messages on their way are lost."""
        assert self.session is not None
        self.session.on_closed()
        self.transport = PartialWriteTransport(self._rng)
        self._forget_connection()

    def toggle_writable(self) -> None:
        """The connection takes no more data, or takes data again."""
        assert self.session is not None
        self.transport.writable = not self.transport.writable
        if self.transport.writable:
            self.session.on_writable()

    def _forget_connection(self) -> None:
        self.session = None
        for state in self.channels.values():
            state.phase = "unsubscribed"
            state.unsubscribing = 0

    def send(self, method: str, channel: str, params: dict[str, Any]) -> None:
        assert self.session is not None
        number = next(self._ids)
        self._waiting[number] = (method, channel)
        self.session.on_data(json.dumps({"id": number, method: params}).encode(), False)

    def subscribe(self, channel: str) -> None:
        state = self.channels[channel]
        params: dict[str, Any] = {"channel": channel}
        state.recovered_from = state.position
        if state.position is not None:
            params |= {"recover": True, "offset": state.position.offset, "epoch": state.position.epoch}
        if state.deltas:
            params["delta"] = "fossil"
        if state.filtered:
            params["tf"] = FILTER
        if state.max_rate is not None:
            params["conflate"] = {"max_rate": state.max_rate}
        state.phase = "subscribing"
        state.links_lost = self._broker.links_lost
        self.send("subscribe", channel, params)

    def unsubscribe(self, channel: str) -> None:
        self.channels[channel].phase = "unsubscribed"
        self.channels[channel].unsubscribing += 1
        self.send("unsubscribe", channel, {"channel": channel})

    def read(self, count: int) -> None:
        """Reads at most `count` messages."""
        for _ in range(min(count, len(self.transport.inbox))):
            self._on_message(self.transport.inbox.popleft())
        if self.transport.disconnect_code is not None and not self.transport.inbox and self.session is not None:
            self.session.on_closed()
            self._forget_connection()

    def _on_message(self, message: dict[str, Any]) -> None:
        if "push" in message:
            self._on_push(message["push"])
        elif message:
            method, channel = self._waiting.pop(message["id"])
            if "error" in message:
                self._on_error(method, channel, message)
                return
            if method == "subscribe":
                self._on_subscribed(channel, message["subscribe"])
            elif method == "unsubscribe":
                self.channels[channel].unsubscribing -= 1

    def _on_error(self, method: str, channel: str, message: dict[str, Any]) -> None:
        """A subscribe may fail while the link is lost, or because a call of the engine has failed."""
        excused = self.expects_lost_announcements or self.expects_gaps
        if method != "subscribe" or message["error"]["code"] != 100 or not excused:
            raise BrokenGuarantee(f"{self.name}: {method} {channel} failed: {message}")
        self.refused += 1
        if not self.channels[channel].unsubscribing:
            self.channels[channel].phase = "unsubscribed"

    def _on_push(self, push: dict[str, Any]) -> None:
        channel = push["channel"]
        state = self.channels[channel]
        if state.unsubscribing:
            return  # sent before the server received the unsubscribe command
        if "pub" in push:
            if state.phase != "subscribed":
                raise BrokenGuarantee(f"{self.name}: publication in {channel} while {state.phase}: {push}")
            self._on_publication(channel, push["pub"])
        elif "join" in push or "leave" in push:
            if state.phase != "subscribed":
                raise BrokenGuarantee(f"{self.name}: {push} while {state.phase}")
            self._on_member(channel, push)
        elif "unsubscribe" in push:
            assert push["unsubscribe"]["code"] == 2500, push
            state.phase = "unsubscribed"
            self._check_gap(channel)

    def _on_member(self, channel: str, push: dict[str, Any]) -> None:
        joined = "join" in push
        client = (push["join"] if joined else push["leave"])["info"]["client"]
        members = self.channels[channel].members
        if members.get(client) is joined and not self.expects_lost_announcements:
            raise BrokenGuarantee(f"{self.name}: {push} follows another one")
        members[client] = joined
        self.members_seen += 1

    def _check_gap(self, channel: str) -> None:
        """Checks that history does not continue at the position of a subscription that was ended because of a gap."""
        state = self.channels[channel]
        position = state.position
        assert position is not None
        later = [
            publication for publication in self._broker.streams.get(channel, []) if publication.offset > position.offset
        ]
        # After the loss of a stream, announcements of the old epoch may reach subscriptions to the new one.
        excused = self.expects_gaps or state.was_interrupted or channel in self._broker.streams_lost
        top = self._broker.position(channel)
        first = later[0].offset if later else top.offset + 1
        if not excused and position.epoch == top.epoch and position.offset == first - 1:
            raise BrokenGuarantee(f"{self.name}: {channel} was ended at {position}, although history continues there")

    def _on_subscribed(self, channel: str, result: dict[str, Any]) -> None:
        state = self.channels[channel]
        if state.unsubscribing:
            return
        state.phase = "subscribed"
        state.base = None
        state.was_interrupted = state.links_lost != self._broker.links_lost
        state.members.clear()
        if bool(result.get("delta")) is not state.deltas:
            raise BrokenGuarantee(f"{self.name}: deltas of {channel} are not as requested: {result}")
        epoch, offset = result["epoch"], result.get("offset", 0)
        if offset and (channel, epoch, offset) not in self._broker.published:
            raise BrokenGuarantee(f"{self.name}: offset {offset} of {channel} was never published in {epoch}")
        since = state.recovered_from
        publications = result.get("publications", [])
        if since is None:
            state.position = StreamPosition(offset, epoch)
        elif result.get("recovered"):
            self.recovered += 1
            if epoch != since.epoch:
                raise BrokenGuarantee(f"{self.name}: recovered {channel} from another epoch")
            state.position = since
            for publication in publications:
                self._on_publication(channel, publication)
            if not publications:
                self._skip_to(channel, offset + 1, 0)
                state.position = StreamPosition(offset, epoch)
        else:
            self.unrecovered += 1
            if publications:
                raise BrokenGuarantee(f"{self.name}: publications without recovered")
            missed = self._published(channel, since, offset)
            if epoch == since.epoch and len(missed) <= HISTORY_SIZE and offset >= since.offset:
                raise BrokenGuarantee(f"{self.name}: {channel} was not recovered although history had it: {result}")
            state.position = StreamPosition(offset, epoch)

    def _on_publication(self, channel: str, publication: dict[str, Any]) -> None:
        state = self.channels[channel]
        assert state.position is not None
        self.received += 1
        offset, epoch = publication["offset"], state.position.epoch
        if offset <= state.position.offset:
            raise BrokenGuarantee(f"{self.name}: offset {offset} after {state.position}")
        self._skip_to(channel, offset, publication.get("conflated", 0))
        state.position = StreamPosition(offset, epoch)
        published = self._broker.published.get((channel, epoch, offset))
        if published is None:
            raise BrokenGuarantee(
                f"{self.name}: offset {offset} of {channel} was never published in {epoch}: {publication}"
            )
        if self._decode(state, publication) != bytes(published.data):
            raise BrokenGuarantee(f"{self.name}: offset {offset} of {channel} is not what was published: {publication}")
        if state.filtered and not _passes(published):
            raise BrokenGuarantee(f"{self.name}: the filter passed {published}")

    def _skip_to(self, channel: str, offset: int, left_out: int) -> None:
        """Checks that each publication between the position and `offset` was filtered out, or left out and counted."""
        state = self.channels[channel]
        assert state.position is not None
        if self.count_missing(channel, offset - 1) != left_out or (left_out and state.max_rate is None):
            raise BrokenGuarantee(f"{self.name}: offset {offset} after {state.position} with {left_out} left out")
        self.conflated += left_out
        self.filtered += len(self._published(channel, state.position, offset - 1)) - left_out

    def count_missing(self, channel: str, top: int) -> int:
        """How many publications after the position, up to offset `top`, the client wants."""
        state = self.channels[channel]
        assert state.position is not None
        between = self._published(channel, state.position, top)
        return sum(not state.filtered or _passes(publication) for publication in between)

    def _published(self, channel: str, since: StreamPosition, top: int) -> list[Publication]:
        """What was published after a position, up to offset `top`."""
        published = self._broker.published
        offsets = range(since.offset + 1, top + 1)
        return [published[channel, since.epoch, at] for at in offsets if (channel, since.epoch, at) in published]

    def _decode(self, state: ChannelState, publication: dict[str, Any]) -> bytes:
        """The JSON that was published. A patch is applied to the publication before."""
        if not state.deltas:
            return json.dumps(publication["data"]).encode()
        text: bytes = publication["data"].encode()
        if publication.get("delta"):
            self.patched += 1
            if state.base is None:
                raise BrokenGuarantee(f"{self.name}: a patch without a base: {publication}")
            try:
                text = apply(state.base, text)
            except AssertionError as error:
                raise BrokenGuarantee(f"{self.name}: a patch that does not fit: {error}") from None
        state.base = text
        return text
