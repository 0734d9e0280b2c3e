"""Checks of what the nodes and the engine keep, at moments when no call is on its way."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NoReturn

from beaconfire.model.events import Subscribed
from tests.simulation.broken_guarantee import BrokenGuarantee
from tests.simulation.broker import CHANNELS

if TYPE_CHECKING:
    from tests.simulation.base import AnySimulation


async def check_presence(simulation: AnySimulation) -> None:
    """Presence is the subscribers of all nodes. Subscriptions that are being made may be present already."""
    for channel in CHANNELS:
        present = set(await simulation.presence.members(channel))
        subscriptions = simulation.nodes.subscriptions(channel)
        expected = {
            subscription.client
            for subscription in subscriptions
            if subscription.replied and subscription.options.presence
        }
        if not expected <= present <= {subscription.client for subscription in subscriptions}:
            raise BrokenGuarantee(f"present in {channel}: {present}, subscribed: {expected}")


async def is_presence_right(simulation: AnySimulation) -> bool:
    try:
        await check_presence(simulation)
    except BrokenGuarantee:
        return False
    return True


def check_members(simulation: AnySimulation) -> None:
    """Each client has seen the joins of those who came after it, and the leaves of those who have gone."""
    if simulation.loses_announcements or not simulation.has_members:
        return
    started = {(event.client, event.channel): n for n, event in enumerate(simulation.recorder.of(Subscribed))}
    for client in simulation.clients:
        assert client.session is not None
        for channel, state in client.channels.items():
            subscribed = {subscription.client for subscription in simulation.nodes.subscriptions(channel)}
            if unfinished := [name for name in subscribed if (name, channel) not in started]:
                raise BrokenGuarantee(f"in {channel} without a subscribe reply: {unfinished}")
            own = started[client.session.client, channel]
            later = {name for name in subscribed if started[name, channel] >= own}
            present = {name for name, joined in state.members.items() if joined}
            if not later <= present <= subscribed:
                raise BrokenGuarantee(f"{state.name} has {subscribed}, {later} came later, announced: {state.members}")


def check_control(simulation: AnySimulation) -> None:
    """Each disconnect of a user has reached the user's session, whatever node it came from."""
    if not simulation.loses_announcements:
        for session in simulation.disconnecting:
            if not session.has_ended():
                raise BrokenGuarantee(f"{session.client} was not disconnected by a control message")


def check_refused(simulation: AnySimulation) -> None:
    """Nothing was published that a handler has refused."""
    if simulation.handlers is not None:
        published = {bytes(publication.data) for publication in simulation.store.published.values()}
        if not published.isdisjoint(simulation.handlers.refused):
            raise BrokenGuarantee(f"published although refused: {published & simulation.handlers.refused}")


def check_detached(simulation: AnySimulation) -> None:
    """Without sessions, no channel has subscribers, and every channel is detached in the end but the internal one."""
    for each in simulation.nodes.all:
        attached = each.attached - {each.node.work.revocation_stream.channel}
        if attached:
            raise BrokenGuarantee(f"{each.uid} is attached to {attached} without subscribers")


async def check_nothing_left(simulation: AnySimulation) -> None:
    """After the nodes have stopped: no session, no subscription, no presence entry, no decision, no task."""
    for each in simulation.nodes.all:
        figures = each.node.statistics()
        left = (figures.connections, figures.sessions, figures.subscriptions, len(each.node.work.lanes))
        if any(left):
            raise BrokenGuarantee(f"{each.uid} has stopped with open, sessions, subscriptions, lanes: {left}")
    for channel in CHANNELS:
        if present := await simulation.presence.members(channel):
            raise BrokenGuarantee(f"present in {channel} after the end: {set(present)}")
    if simulation.handlers is not None and simulation.handlers.running:
        raise BrokenGuarantee(f"decisions go on after the end: {simulation.handlers.running}")
    if tasks := asyncio.all_tasks() - {asyncio.current_task()}:
        raise BrokenGuarantee(f"tasks are left: {tasks}")


def report_unsettled(simulation: AnySimulation) -> NoReturn:
    clients = {
        client.name: {
            channel: (state.is_live, state.is_asked, state.unsubscribing, state.position)
            for channel, state in client.channels.items()
        }
        for client in simulation.clients
    }
    waiting = {client.name: client.waiting for client in simulation.clients}
    tops = {channel: simulation.store.position(channel) for channel in CHANNELS}
    raise BrokenGuarantee(f"the simulation does not settle: {clients}, streams: {tops}, without reply: {waiting}")
