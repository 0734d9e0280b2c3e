"""The calls of the inner engine that workers request: one row for each request."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

from msgspec import Struct

from beaconfire.engines.hub.channels import HubChannels
from beaconfire.engines.hub.peer import Peer
from beaconfire.engines.migration import NO_MIGRATION, Migration
from beaconfire.engines.port import Broker, HistoryPage, MemberChange, PresenceStore
from beaconfire.engines.wire.messages import (
    AddMembers,
    Announce,
    Attach,
    CountMembers,
    Counts,
    Detach,
    Done,
    Members,
    Message,
    MigrationState,
    Names,
    Outcome,
    Page,
    Ping,
    Positions,
    Publish,
    ReadHistory,
    ReadMembers,
    ReadPositions,
    RefreshMembers,
    RemoveHistory,
    RemoveMembers,
    Reply,
    SteerMigration,
)
from beaconfire.engines.wire.values import from_info, to_info, to_published
from beaconfire.model.publication import to_payload


class CallContext(Struct, frozen=True):
    """What the calls use."""

    broker: Broker
    presence: PresenceStore
    channels: HubChannels
    migration: Migration = NO_MIGRATION


Running: TypeAlias = Coroutine[Any, Any, Any]


def _publish(context: CallContext, peer: Peer, request: Publish) -> Running:
    info = request.info
    return context.broker.publish(
        request.channel,
        to_payload(request.data),
        request.options,
        None if info is None else from_info(info),
        request.tags,
    )


def _announce(context: CallContext, peer: Peer, request: Announce) -> Running:
    changes = [MemberChange(change.joined, from_info(change.info)) for change in request.changes]
    return context.broker.announce(request.channel, changes)


def _history(context: CallContext, peer: Peer, request: ReadHistory) -> Running:
    return context.broker.history(request.channel, request.options, request.limit, request.since, request.reverse)


def _page(id: int, page: HistoryPage) -> Reply:
    return Page(id, [to_published(each) for each in page.publications], page.position, page.continues)


def _add_members(context: CallContext, peer: Peer, request: AddMembers) -> Running:
    return context.presence.add(request.channel, [from_info(info) for info in request.members], request.ttl_s)


def _steer_migration(context: CallContext, peer: Peer, request: SteerMigration) -> Running:
    match request.call:
        case "status":
            return context.migration.status()
        case "set_read_percent":
            return context.migration.set_read_percent(request.read_percent)
        case "verify":
            return context.migration.verify()


def _done(id: int, result: object) -> Reply:
    return Done(id)


class Call(NamedTuple):
    """One request. Any: each function takes the one type that it is listed for."""

    start: Callable[[CallContext, Peer, Any], Running]
    """Starts the call. Must not raise."""
    reply: Callable[[int, Any], Reply]
    """Makes the reply from the id of the request and the result of the call."""


CALLS: Final[Mapping[type[Message], Call]] = {
    Ping: Call(lambda context, peer, request: context.broker.ping(), _done),
    Attach: Call(lambda context, peer, request: context.channels.attach(peer, request.channels), _done),
    Detach: Call(lambda context, peer, request: context.channels.detach(peer, request.channels), _done),
    Publish: Call(_publish, Outcome),
    Announce: Call(_announce, _done),
    ReadHistory: Call(_history, _page),
    ReadPositions: Call(lambda context, peer, request: context.broker.positions(request.channels), Positions),
    RemoveHistory: Call(lambda context, peer, request: context.broker.remove_history(request.channel), _done),
    AddMembers: Call(_add_members, _done),
    RemoveMembers: Call(
        lambda context, peer, request: context.presence.remove(request.channel, request.clients), _done
    ),
    RefreshMembers: Call(
        lambda context, peer, request: context.presence.refresh(request.channel, request.clients, request.ttl_s),
        lambda id, missing: Names(id, list(missing)),
    ),
    ReadMembers: Call(
        lambda context, peer, request: context.presence.members(request.channel),
        lambda id, members: Members(id, [to_info(info) for info in members.values()]),
    ),
    CountMembers: Call(
        lambda context, peer, request: context.presence.stats(request.channel),
        lambda id, stats: Counts(id, stats.num_clients, stats.num_users),
    ),
    SteerMigration: Call(_steer_migration, MigrationState),
}
"""The requests for the inner engine. All others are for `HubNodes`."""
