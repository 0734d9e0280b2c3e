"""What a subscriber asks to get otherwise than the others: what passes a filter, as patches, or only the latest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from beaconfire.base.errors import (
    BAD_PROTOCOL,
    BAD_REQUEST,
    INAPPROPRIATE_PROTOCOL,
    CommandError,
    Disconnect,
    PayloadError,
)
from beaconfire.channels.namespaces import Namespace
from beaconfire.delivery.batch import Item, Newest
from beaconfire.delivery.conflation import RATE_MAX, RATE_MIN, Conflation
from beaconfire.delivery.patches import FOSSIL
from beaconfire.delivery.subscription import DeliveryStrategy, Subscription
from beaconfire.delivery.tags_filter import FilterError, TagsFilter
from beaconfire.model.events import LimitHit
from beaconfire.model.publication import Publication
from beaconfire.model.pushes import PublicationPush
from beaconfire.model.requests import SubscribeRequest
from beaconfire.protocols.port import DeltaCodec
from beaconfire.session.session import Session


def check_strategy_request(request: SubscribeRequest, namespace: Namespace) -> None:
    """Raises CommandError 107 for a filter where none may be had or a rate out of its range, and Disconnect 3501 for
    deltas of an unknown type."""
    if request.tf is not None and not namespace.options.allow_tags_filter:
        raise CommandError(BAD_REQUEST, "tf: tags filters are not allowed in this channel")
    if request.delta not in ("", FOSSIL):
        raise Disconnect(BAD_PROTOCOL, f"delta {request.delta!r} is unknown")
    rate = request.conflate.max_rate if request.conflate is not None else 0
    if rate != 0 and not RATE_MIN <= rate <= RATE_MAX:
        raise CommandError(BAD_REQUEST, f"conflate.max_rate: expected 0, or {RATE_MIN} to {RATE_MAX:g}, got {rate:g}")


def choose_strategy(session: Session, request: SubscribeRequest, namespace: Namespace) -> DeliveryStrategy | None:
    """None for who gets what everybody gets. Deltas that are not allowed are left out, since they only save bytes.

    Raises CommandError 107 for a filter that cannot be used.
    """
    tags_filter = _compile_filter(session, request)
    codec = session.wire.codec
    deltas = isinstance(codec, DeltaCodec) and request.delta in namespace.options.allowed_delta_types
    conflation = Conflation(request.conflate.max_rate) if request.conflate is not None else None
    if tags_filter is None and not deltas and conflation is None:
        return None
    return DeliveryStrategy(tags_filter, codec if deltas and isinstance(codec, DeltaCodec) else None, conflation)


def _compile_filter(session: Session, request: SubscribeRequest) -> TagsFilter | None:
    if request.tf is None:
        return None
    try:
        return session.node.filters.compile(request.tf)
    except FilterError as error:
        if error.limit:
            session.node.events.emit(LimitHit(error.limit, session.client))
        raise CommandError(BAD_REQUEST, str(error)) from error


def gets_patches(subscription: Subscription) -> bool:
    return subscription.strategy is not None and subscription.strategy.codec is not None


def conflates(subscription: Subscription) -> bool:
    return subscription.strategy is not None and subscription.strategy.conflation is not None


def select(session: Session, subscription: Subscription, publications: Sequence[Publication]) -> Sequence[Publication]:
    """Of what was missed, what the subscriber wants: what its filter passes, the latest of it for one who conflates.

    Whether anything is missing must have been decided before.
    """
    strategy = subscription.strategy
    if strategy is None:
        return publications
    if strategy.tags_filter is not None:
        publications = [publication for publication in publications if strategy.passes(publication)]
    if strategy.conflation is None or not publications:
        return publications
    strategy.conflation.told(session.node.clock.now_s())
    left_out = len(publications) - 1
    return [replace(publications[-1], conflated=left_out)] if left_out else publications


def express(
    session: Session, subscription: Subscription, epoch: str, publications: Iterable[Publication]
) -> list[Publication]:
    """Publications of the stream as the client is told them next, in order. Raises PayloadError."""
    told = list(publications)
    strategy = subscription.strategy
    if strategy is None or strategy.codec is None or not told:
        return told
    base, strategy.base = strategy.base, told[-1]
    return session.node.patches.express_all(subscription.channel, epoch, told, base, strategy.codec)


def push_held(session: Session, subscription: Subscription, publications: Sequence[Publication]) -> None:
    """Sends what was held while catching up; to one who conflates the newest is told in its time. A payload that this
    client cannot get ends the session."""
    strategy = subscription.strategy
    if strategy is None or strategy.conflation is None or not publications:
        push_missed(session, subscription, publications)
        return
    try:
        session.node.hub.owe(subscription, strategy.conflation, Newest.of(_items(subscription, publications)))
    except PayloadError as error:
        session.end(INAPPROPRIATE_PROTOCOL, str(error))


def push_missed(session: Session, subscription: Subscription, publications: Sequence[Publication]) -> None:
    """Sends what `select` has chosen, now. A payload that this client cannot get ends the session."""
    try:
        told = express(session, subscription, subscription.epoch, publications)
    except PayloadError as error:
        session.end(INAPPROPRIATE_PROTOCOL, str(error))
        return
    for publication in told:
        session.push(PublicationPush(subscription.channel, publication))


def _items(subscription: Subscription, publications: Sequence[Publication]) -> list[Item]:
    channel, epoch = subscription.channel, subscription.epoch
    return [Item(PublicationPush(channel, publication), publication.offset, epoch, ()) for publication in publications]
