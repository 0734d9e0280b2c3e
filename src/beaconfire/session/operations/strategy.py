"""The delivery strategy that a subscribe request asks for: a filter, patches, or only the newest publication."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from beaconfire.base.clock import Clock
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
from beaconfire.delivery.hub import Hub
from beaconfire.delivery.patches import FOSSIL, Patches
from beaconfire.delivery.strategy import DeliveryStrategy
from beaconfire.delivery.subscription import Subscription
from beaconfire.delivery.tags_filter import FilterError, TagsFilter, TagsFilters
from beaconfire.model.events import EventSink, LimitHit
from beaconfire.model.publication import Publication
from beaconfire.model.pushes import PublicationPush
from beaconfire.model.requests import SubscriptionRequest
from beaconfire.protocols.port import DeltaCodec
from beaconfire.session.session import Session


def check_strategy(request: SubscriptionRequest, namespace: Namespace) -> None:
    """Raises CommandError 107 for a filter that the namespace does not allow and for a rate out of range, and
    Disconnect 3501 for an unknown type of deltas."""
    if request.tags_filter is not None and not namespace.options.allow_tags_filter:
        raise CommandError(BAD_REQUEST, "tags_filter: tags filters are not allowed in this channel")
    if request.delta not in ("", FOSSIL):
        raise Disconnect(BAD_PROTOCOL, f"delta {request.delta!r} is unknown")
    rate = request.conflate.max_rate if request.conflate is not None else 0
    if rate != 0 and not RATE_MIN <= rate <= RATE_MAX:
        raise CommandError(BAD_REQUEST, f"conflate.max_rate: expected 0, or {RATE_MIN} to {RATE_MAX:g}, got {rate:g}")


def has_patches(subscription: Subscription) -> bool:
    return subscription.strategy is not None and subscription.strategy.codec is not None


def is_conflated(subscription: Subscription) -> bool:
    return subscription.strategy is not None and subscription.strategy.conflation is not None


class Strategies:
    """Makes delivery strategies, and applies them to publications that are read from history or were held."""

    def __init__(self, filters: TagsFilters, patches: Patches, hub: Hub, clock: Clock, events: EventSink) -> None:
        self._filters = filters
        self._patches = patches
        self._hub = hub
        self._clock = clock
        self._events = events

    def create(self, session: Session, request: SubscriptionRequest, namespace: Namespace) -> DeliveryStrategy | None:
        """The strategy that the request asks for, or None if the subscription gets every publication as it is.

        Deltas that the namespace does not allow are ignored, because they only save bytes. Raises CommandError 107 for
        an invalid filter.
        """
        tags_filter = self._compile_filter(session, request)
        codec = session.wire.codec
        delta_codec = (
            codec if isinstance(codec, DeltaCodec) and request.delta in namespace.options.allowed_delta_types else None
        )
        conflation = Conflation(request.conflate.max_rate) if request.conflate is not None else None
        if tags_filter is None and delta_codec is None and conflation is None:
            return None
        return DeliveryStrategy(tags_filter, delta_codec, conflation)

    def _compile_filter(self, session: Session, request: SubscriptionRequest) -> TagsFilter | None:
        if request.tags_filter is None:
            return None
        try:
            return self._filters.compile(request.tags_filter)
        except FilterError as error:
            if error.limit:
                self._events.emit(LimitHit(error.limit, session.client))
            raise CommandError(BAD_REQUEST, str(error)) from error

    def select(self, subscription: Subscription, publications: Sequence[Publication]) -> Sequence[Publication]:
        """The missed publications that this subscription wants: those that pass its filter, and only the newest of
        them if it conflates. The caller must have decided before whether publications are missing."""
        strategy = subscription.strategy
        if strategy is None:
            return publications
        if strategy.tags_filter is not None:
            publications = [publication for publication in publications if strategy.passes(publication)]
        if strategy.conflation is None or not publications:
            return publications
        strategy.conflation.sent(self._clock.now_s())
        left_out = len(publications) - 1
        return [replace(publications[-1], conflated=left_out)] if left_out else publications

    def patch(self, subscription: Subscription, epoch: str, publications: Iterable[Publication]) -> list[Publication]:
        """The publications as the client gets them next, in order: as patches if it wants patches.

        Raises PayloadError.
        """
        whole = list(publications)
        strategy = subscription.strategy
        if strategy is None or strategy.codec is None or not whole:
            return whole
        base, strategy.base = strategy.base, whole[-1]
        return self._patches.encode_all(subscription.channel, epoch, whole, base, strategy.codec)

    def push_held(self, session: Session, subscription: Subscription, publications: Sequence[Publication]) -> None:
        """Sends the publications that were held while the subscription caught up.

        A conflated subscription gets the newest of them, when its rate allows it. A payload that the client's encoding
        cannot express ends the session.
        """
        strategy = subscription.strategy
        if strategy is None or strategy.conflation is None or not publications:
            self.push_missed(session, subscription, publications)
            return
        channel, epoch = subscription.channel, subscription.epoch
        items = [Item(PublicationPush(channel, held), held.offset, epoch, ()) for held in publications]
        try:
            self._hub.hold_newest(subscription, strategy.conflation, Newest.of(items))
        except PayloadError as error:
            session.end(INAPPROPRIATE_PROTOCOL, str(error))

    def push_missed(self, session: Session, subscription: Subscription, publications: Sequence[Publication]) -> None:
        """Sends publications that `select` has chosen. A payload that the client's encoding cannot express ends the
        session."""
        try:
            patched = self.patch(subscription, subscription.epoch, publications)
        except PayloadError as error:
            session.end(INAPPROPRIATE_PROTOCOL, str(error))
            return
        for publication in patched:
            session.push(PublicationPush(subscription.channel, publication))
