"""What a subscriber asks to get otherwise than the others: only what passes a filter, or publications as patches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from beaconfire.channels import Namespace
from beaconfire.deltas import FOSSIL
from beaconfire.errors import BAD_PROTOCOL, BAD_REQUEST, INAPPROPRIATE_PROTOCOL, CommandError, Disconnect, PayloadError
from beaconfire.events import LimitHit
from beaconfire.messages import Publication, PublicationPush, SubscribeRequest
from beaconfire.protocols.base import DeltaCodec
from beaconfire.session import Session
from beaconfire.subscription import Subscription, Tailoring
from beaconfire.tags_filter import FilterError, TagsFilter


def check_wishes(request: SubscribeRequest, namespace: Namespace) -> None:
    """Raises CommandError 107 for a filter where none may be had, Disconnect 3501 for deltas of an unknown type."""
    if request.tf is not None and not namespace.options.allow_tags_filter:
        raise CommandError(BAD_REQUEST, "tf: tags filters are not allowed in this channel")
    if request.delta not in ("", FOSSIL):
        raise Disconnect(BAD_PROTOCOL, f"delta {request.delta!r} is unknown")


def tailor(session: Session, request: SubscribeRequest, namespace: Namespace) -> Tailoring | None:
    """None for who gets what everybody gets. Deltas that are not allowed are left out, since they only save bytes.

    Raises CommandError 107 for a filter that cannot be used.
    """
    tags_filter = _compile_filter(session, request)
    codec = session.wire.codec
    deltas = isinstance(codec, DeltaCodec) and request.delta in namespace.options.allowed_delta_types
    if tags_filter is None and not deltas:
        return None
    return Tailoring(tags_filter, codec if deltas and isinstance(codec, DeltaCodec) else None)


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
    return subscription.tailoring is not None and subscription.tailoring.codec is not None


def select(subscription: Subscription, publications: Sequence[Publication]) -> Sequence[Publication]:
    """Those that the subscriber's filter passes. Whether anything is missing must have been decided before."""
    tailoring = subscription.tailoring
    if tailoring is None or tailoring.tags_filter is None:
        return publications
    return [publication for publication in publications if tailoring.passes(publication)]


def express(
    session: Session, subscription: Subscription, epoch: str, publications: Iterable[Publication]
) -> list[Publication]:
    """Publications of the stream as the client is told them next, in order. Raises PayloadError."""
    told = list(publications)
    tailoring = subscription.tailoring
    if tailoring is None or tailoring.codec is None or not told:
        return told
    base, tailoring.base = tailoring.base, told[-1]
    return session.node.patches.express_all(subscription.channel, epoch, told, base, tailoring.codec)


def push_held(session: Session, subscription: Subscription, publications: Sequence[Publication]) -> None:
    """Sends what was held while catching up. A payload that this client cannot get ends the session."""
    try:
        told = express(session, subscription, subscription.epoch, publications)
    except PayloadError as error:
        session.end(INAPPROPRIATE_PROTOCOL, str(error))
        return
    for publication in told:
        session.push(PublicationPush(subscription.channel, publication))
