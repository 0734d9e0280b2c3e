"""The hub process: has the engine of all workers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import signal

from msgspec import structs

from beaconfire import __version__
from beaconfire.base.clock import SystemClock
from beaconfire.base.timers import Timers
from beaconfire.config import Config
from beaconfire.engines.hub import EngineHub, HubSocket
from beaconfire.engines.options import EMBEDDED, EngineOptions
from beaconfire.model.events import EventDispatcher, NodeStatistics
from beaconfire.observe.health import Health
from beaconfire.observe.logs import LogSink
from beaconfire.observe.metrics import MetricsSink
from beaconfire.server.engines import engine_problem, make_engine, with_engine
from beaconfire.server.process_setup import prepare, run_in_loop, storage_problems, tune_garbage_collector
from beaconfire.server.ticks import Ticks, make_runtime
from beaconfire.server.workers.channel import Channel
from beaconfire.server.workers.own_figures import OwnFigures
from beaconfire.server.workers.private_socket import serve_private
from beaconfire.server.workers.seat import Seat, figures_socket


def run_hub(config: Config, seat: Seat) -> int:
    """Serves the engine until a signal, or until the supervisor and all workers have ended. Returns the exit code."""
    listening = HubSocket(seat.hub_socket)
    prepare(config, seat.name)
    return run_in_loop(config, _serve(config, seat, listening))


async def _serve(config: Config, seat: Seat, listening: HubSocket) -> int:
    clock = SystemClock()
    timers, log, metrics, health = Timers(clock), LogSink(None, clock), MetricsSink(), Health()
    events = EventDispatcher(metrics, log)
    runtime = make_runtime(clock, timers)
    if config.engine.type not in EMBEDDED:
        config = structs.replace(config, engine=EngineOptions())  # no worker uses the engine of the hub
    engine = make_engine(config, runtime, events)
    hub = EngineHub(engine, runtime, events, secrets.token_hex(8), __version__)
    ticks = Ticks(clock, timers, events, engine, log.tick)
    metrics.set_statistics_source(lambda: with_engine(NodeStatistics(), engine))  # no clients, only the engine
    health.add_check("engine", lambda: engine_problem(engine))
    stop = _stop_on_signals()
    orphaned = asyncio.Event()
    with storage_problems(config):
        await hub.start(listening)
    ticks.start()
    health.started()
    figures = OwnFigures(seat, metrics, health)
    private = await serve_private(figures.answers(), figures_socket(seat.folder, os.getpid()))
    tune_garbage_collector()
    channel = Channel(seat, {}, orphaned.set)
    await channel.open()
    channel.report_ready()
    await _until_stopped(stop, orphaned, hub, float(config.server.shutdown_timeout))
    private.close()
    await hub.stop()
    if orphaned.is_set():
        shutil.rmtree(seat.folder, ignore_errors=True)  # what the supervisor would have done
    ticks.stop()
    log.flush()
    return 0


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def _until_stopped(stop: asyncio.Event, orphaned: asyncio.Event, hub: EngineHub, timeout_s: float) -> None:
    """Returns after a signal. After the end of the supervisor, the workers drain, and need the engine for that."""
    loop = asyncio.get_running_loop()
    waiting = [loop.create_task(event.wait()) for event in (stop, orphaned)]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
    if orphaned.is_set() and not stop.is_set():
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await hub.wait_until_unused()
