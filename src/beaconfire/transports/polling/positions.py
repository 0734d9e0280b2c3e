"""The positions of a client that polls: in its request, in the channels when it has connected, and in the response."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import Raw, Struct

from beaconfire.model.results import ConnectionStart, SubscriptionStart


class ClientPosition(Struct, frozen=True):
    """The client's position in a channel, from its request."""

    recover: bool = False
    offset: int = 0
    epoch: str = ""


_read_position: Final = msgspec.json.Decoder(ClientPosition).decode


def client_positions(subs: Mapping[str, Raw]) -> dict[str, ClientPosition]:
    """The client's position by channel, for the entries of `subs` that contain a valid one.

    The session accepts more forms (null counts as missing); such an entry has no position here.
    """
    positions = {}
    for channel, entry in subs.items():
        try:
            positions[channel] = _read_position(entry)
        except msgspec.DecodeError:
            continue
    return positions


def has_news(start: ConnectionStart, positions: Mapping[str, ClientPosition]) -> bool:
    """Whether the connect message contains anything that a client at these positions does not have.

    A channel that cannot be recovered has no position. In such a channel, only publications during the poll are news.
    """
    return any(
        subscription.recoverable and _is_news(subscription, positions.get(subscription.channel))
        for subscription in start.subscriptions
    )


def _is_news(subscription: SubscriptionStart, position: ClientPosition | None) -> bool:
    """Whether a recoverable channel has news for a client at this position.

    A channel in cache mode without any publication reports `recovered` as false. So a subscription that was not
    recovered is news only if the client's position differs from the channel's.
    """
    if subscription.publications or position is None:
        return True
    offset, epoch = subscription.position or (0, "")
    return not (subscription.recovered or position == ClientPosition(True, offset, epoch))


def next_subs(start: ConnectionStart, positions: Mapping[str, tuple[int, str]]) -> dict[str, object]:
    """The `subs` for the next request: every channel, with its position if the channel has one.

    `positions` are those that the response has reached, as `Receiver.positions` returns them.
    """
    subs: dict[str, object] = {subscription.channel: {} for subscription in start.subscriptions}
    for channel, (offset, epoch) in positions.items():
        subs[channel] = {"recover": True, "offset": offset, "epoch": epoch}
    return subs
