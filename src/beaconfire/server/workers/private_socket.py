"""Questions of one process to another one, at a Unix socket in the run directory.

A question is a line with one word. The answer is a line with its length in bytes, and the answer. Then the connection
ends. The hub needs no HTTP server for that, so it starts faster.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping


async def serve_private(answers: Mapping[str, Callable[[], Awaitable[bytes]]], path: str) -> asyncio.Server:
    """Answers the questions that are the keys, until the server is closed. The run directory keeps other users out."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(ConnectionError):
            question = (await reader.readline()).decode().strip()
            if question in answers:
                found = await answers[question]()
                writer.write(b"%d\n%b" % (len(found), found))
                await writer.drain()

    return await asyncio.start_unix_server(answer, path)


async def ask(path: str, question: str, timeout_s: float) -> bytes | None:
    """Returns the answer, or None if the process has ended or does not answer in time."""
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_unix_connection(path)
            with contextlib.closing(writer):
                writer.write(question.encode() + b"\n")
                return await reader.readexactly(int(await reader.readline() or b"-1"))
    except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError):
        return None
