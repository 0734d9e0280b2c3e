"""A worker process: serves the clients of its slot, with the engine of the hub."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Any

from starlette.routing import Router

from beaconfire.base.errors import EngineUnavailable
from beaconfire.config import Config
from beaconfire.observe import logs
from beaconfire.server.app import App
from beaconfire.server.process import Server, prepare, run_in_loop, serve
from beaconfire.server.workers.channel import Channel
from beaconfire.server.workers.private_http import serve_private
from beaconfire.server.workers.seat import Seat, figures_socket


def run_worker(config: Config, seat: Seat) -> int:
    """Serves until the supervisor or a signal ends the worker. Returns the exit code."""
    prepare(config, seat.name)
    return run_in_loop(config, _serve(config, seat))


async def _serve(config: Config, seat: Seat) -> int:
    app = App(config, seat=seat)
    try:
        await app.start()
    except EngineUnavailable as error:
        logs.get_logger().error("worker_without_hub", detail=error.detail)
        return 1
    assert seat.slot is not None
    return await serve(app, WorkerServer(app, seat), _sockets(seat, seat.slot))


def _sockets(seat: Seat, slot: int) -> list[socket.socket]:
    """The listening sockets of a slot, with descriptors of their own, so that closing them ends nothing elsewhere."""
    return [socket.socket(fileno=os.dup(number)) for number in seat.listening[slot]]


class WorkerServer(Server):
    """The server of a worker. The supervisor tells it to accept the connections of another slot as well, and to hand
    its clients over to its successor."""

    def __init__(self, app: App, seat: Seat) -> None:
        super().__init__(app)
        self._seat = seat
        self._adopted: dict[int, list[Any]] = {}
        """The listeners of other slots."""
        self._is_listening = True
        commands = {"retire": self._retire, "adopt": self._adopt, "release": self._release}
        self._channel = Channel(seat, commands, self.begin_stop)

    async def on_started(self) -> None:
        """Serves the figures of this process, and tells the supervisor that the worker serves."""
        figures = self._app.figures
        assert figures is not None, "the app has a seat"
        self._private = await serve_private(
            Router(figures.own_routes()), figures_socket(self._seat.folder, os.getpid())
        )
        await self._channel.open()
        self._channel.report_ready()

    def stop_listening(self) -> None:
        """Closes all listening sockets that this process has. When all processes have done so, nothing listens."""
        super().stop_listening()
        for slot in list(self._adopted):
            self._close_adopted(slot)
        if self._is_listening:
            self._is_listening = False
            for numbers in self._seat.listening:
                for number in numbers:
                    os.close(number)

    # Commands of the supervisor

    async def _adopt(self, slot: int) -> None:
        """Accepts the connections of a slot that has no worker."""
        if not self._is_listening or slot in self._adopted:
            return
        loop = asyncio.get_running_loop()
        self._adopted[slot] = [
            await loop.create_server(self.make_protocol, sock=sock, ssl=self.config.ssl, backlog=self.config.backlog)
            for sock in _sockets(self._seat, slot)
        ]

    async def _release(self, slot: int) -> None:
        """The slot has a worker again. Connections that were accepted stay here."""
        self._close_adopted(slot)

    def _close_adopted(self, slot: int) -> None:
        for listener in self._adopted.pop(slot, ()):
            listener.close()

    async def _retire(self, slot: int) -> None:
        """Hands the clients over: this slot has a new worker."""
        assert self._app.figures is not None
        self._app.figures.retire()
        self.begin_handover()
