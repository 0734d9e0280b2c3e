"""The calls of the inner engine that workers request: one function for each request, which returns the reply."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, TypeAlias

from msgspec import Raw, Struct

from beaconfire.engines.hub.channels import HubChannels
from beaconfire.engines.hub.peer import Peer
from beaconfire.engines.port import Broker, MemberChange, PresenceStore
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
)
from beaconfire.engines.wire.values import from_info, to_info, to_published
from beaconfire.model.publication import NO_PAYLOAD


class CallContext(Struct, frozen=True):
    """What the calls use."""

    broker: Broker
    presence: PresenceStore
    channels: HubChannels


async def _ping(context: CallContext, peer: Peer, request: Ping) -> Reply:
    await context.broker.ping()
    return Done(request.id)


async def _attach(context: CallContext, peer: Peer, request: Attach) -> Reply:
    await context.channels.attach(peer, request.channels)
    return Done(request.id)


async def _detach(context: CallContext, peer: Peer, request: Detach) -> Reply:
    context.channels.detach(peer, request.channels)
    return Done(request.id)


async def _publish(context: CallContext, peer: Peer, request: Publish) -> Reply:
    info = request.info
    data = request.data
    return Outcome(
        request.id,
        await context.broker.publish(
            request.channel,
            Raw(data) if data else NO_PAYLOAD,
            request.options,
            None if info is None else from_info(info),
            request.tags,
        ),
    )


async def _announce(context: CallContext, peer: Peer, request: Announce) -> Reply:
    changes = [MemberChange(change.joined, from_info(change.info)) for change in request.changes]
    await context.broker.announce(request.channel, changes)
    return Done(request.id)


async def _history(context: CallContext, peer: Peer, request: ReadHistory) -> Reply:
    page = await context.broker.history(request.channel, request.options, request.limit, request.since, request.reverse)
    return Page(request.id, [to_published(each) for each in page.publications], page.position, page.continues)


async def _positions(context: CallContext, peer: Peer, request: ReadPositions) -> Reply:
    return Positions(request.id, await context.broker.positions(request.channels))


async def _remove_history(context: CallContext, peer: Peer, request: RemoveHistory) -> Reply:
    await context.broker.remove_history(request.channel)
    return Done(request.id)


async def _add_members(context: CallContext, peer: Peer, request: AddMembers) -> Reply:
    await context.presence.add(request.channel, [from_info(info) for info in request.members], request.ttl_s)
    return Done(request.id)


async def _remove_members(context: CallContext, peer: Peer, request: RemoveMembers) -> Reply:
    await context.presence.remove(request.channel, request.clients)
    return Done(request.id)


async def _refresh_members(context: CallContext, peer: Peer, request: RefreshMembers) -> Reply:
    missing = await context.presence.refresh(request.channel, request.clients, request.ttl_s)
    return Names(request.id, list(missing))


async def _read_members(context: CallContext, peer: Peer, request: ReadMembers) -> Reply:
    members = await context.presence.members(request.channel)
    return Members(request.id, [to_info(info) for info in members.values()])


async def _count_members(context: CallContext, peer: Peer, request: CountMembers) -> Reply:
    stats = await context.presence.stats(request.channel)
    return Counts(request.id, stats.num_clients, stats.num_users)


Call: TypeAlias = Callable[[CallContext, Peer, Any], Coroutine[Any, Any, Reply]]
"""Any: each function takes the one type that it is listed for."""

CALLS: Final[Mapping[type[Message], Call]] = {
    Ping: _ping,
    Attach: _attach,
    Detach: _detach,
    Publish: _publish,
    Announce: _announce,
    ReadHistory: _history,
    ReadPositions: _positions,
    RemoveHistory: _remove_history,
    AddMembers: _add_members,
    RemoveMembers: _remove_members,
    RefreshMembers: _refresh_members,
    ReadMembers: _read_members,
    CountMembers: _count_members,
}
"""The requests for the inner engine. All others are for `HubNodes`."""
