"""The delivery strategy that a subscribe request asks for: a filter, patches, or only the newest publication."""

from __future__ import annotations

from collections.abc import Sequence

from beaconfire.base.errors import (
    BAD_PROTOCOL,
    BAD_REQUEST,
    INAPPROPRIATE_PROTOCOL,
    CommandError,
    Disconnect,
    PayloadError,
)
from beaconfire.channels.namespaces import Namespace
from beaconfire.delivery.conflated import RATE_MAX, RATE_MIN, Conflated
from beaconfire.delivery.filtered import Filtered
from beaconfire.delivery.patched import Patched
from beaconfire.delivery.patches import FOSSIL
from beaconfire.delivery.plain import PLAIN
from beaconfire.delivery.strategy import DeliveryStrategy, StrategyContext
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


class Strategies:
    """Makes the delivery strategies of subscriptions."""

    def __init__(self, filters: TagsFilters, context: StrategyContext, events: EventSink) -> None:
        self._filters = filters
        self._context = context
        self._events = events

    def create(self, session: Session, request: SubscriptionRequest, namespace: Namespace) -> DeliveryStrategy:
        """The strategy that the request asks for.

        Deltas that the namespace does not allow are ignored, because they only save bytes. Raises CommandError 107 for
        an invalid filter.
        """
        tags_filter = self._compile_filter(session, request)
        strategy: DeliveryStrategy = PLAIN
        codec = session.wire.codec
        # The type of the codec is checked last, because the check of a protocol class is slow.
        if request.delta in namespace.options.allowed_delta_types and isinstance(codec, DeltaCodec):
            strategy = Patched(codec, self._context)
        if request.conflate is not None:
            strategy = Conflated(strategy, request.conflate.max_rate, self._context)
        if tags_filter is not None:
            strategy = Filtered(strategy, tags_filter, self._context)
        return strategy

    def _compile_filter(self, session: Session, request: SubscriptionRequest) -> TagsFilter | None:
        if request.tags_filter is None:
            return None
        try:
            return self._filters.compile(request.tags_filter)
        except FilterError as error:
            if error.limit:
                self._events.emit(LimitHit(error.limit, session.client))
            raise CommandError(BAD_REQUEST, str(error)) from error


def push_missed(session: Session, subscription: Subscription, publications: Sequence[Publication]) -> None:
    """Sends publications that the strategy of the subscription has selected. A payload that the client's encoding
    cannot express ends the session."""
    try:
        encoded = subscription.strategy.encode(subscription.channel, subscription.epoch, publications)
    except PayloadError as error:
        session.end(INAPPROPRIATE_PROTOCOL, str(error))
        return
    for publication in encoded:
        session.push(PublicationPush(subscription.channel, publication))
