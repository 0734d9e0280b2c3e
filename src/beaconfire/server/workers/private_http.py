"""The HTTP server of one process for the other processes, at a Unix socket in the run directory."""

from __future__ import annotations

import asyncio

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState


async def serve_private(app: ASGIApp, path: str) -> asyncio.Server:
    """Serves until the server is closed. The run directory keeps other users out."""
    config = uvicorn.Config(
        app, http=HttpToolsProtocol, ws="none", lifespan="off", log_config=None, access_log=False, server_header=False
    )
    config.load()
    state = ServerState()
    return await asyncio.get_running_loop().create_unix_server(
        lambda: HttpToolsProtocol(config=config, server_state=state, app_state={}), path
    )
