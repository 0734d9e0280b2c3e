"""Questions of one process to another one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

from beaconfire.server.workers.private_socket import ask, serve_private

LONG = b"x" * 1_000_000


async def answer_long() -> bytes:
    return LONG


async def answer_nothing() -> bytes:
    return b""


async def hang() -> bytes:
    await asyncio.Event().wait()
    return b""


ANSWERS: dict[str, Callable[[], Awaitable[bytes]]] = {"long": answer_long, "nothing": answer_nothing, "hang": hang}


def run(scenario: Callable[[str], Coroutine[Any, Any, None]], folder: Path) -> None:
    asyncio.run(scenario(str(folder / "s")))


def test_answers_arrive_whole(tmp_path: Path) -> None:
    """Also a long one, an empty one, and several at the same time."""

    async def scenario(path: str) -> None:
        server = await serve_private(ANSWERS, path)
        answers = await asyncio.gather(*(ask(path, question, 10) for question in ("long", "nothing", "long")))
        assert answers == [LONG, b"", LONG]
        server.close()

    run(scenario, tmp_path)


def test_process_that_does_not_answer_in_time_has_no_answer(tmp_path: Path) -> None:
    """Nor has one that does not know the question, or that has ended."""

    async def scenario(path: str) -> None:
        assert await ask(path, "long", 10) is None
        server = await serve_private(ANSWERS, path)
        assert await ask(path, "hang", 0) is None
        assert await ask(path, "unknown", 10) is None
        server.close()
        assert await ask(path, "long", 10) is None

    run(scenario, tmp_path)


def test_answer_that_is_cut_off_is_no_answer(tmp_path: Path) -> None:
    """The process was killed while it wrote."""

    async def scenario(path: str) -> None:
        async def cut_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readline()
            writer.write(b"10\nhalf")
            writer.close()

        server = await asyncio.start_unix_server(cut_off, path)
        assert await ask(path, "long", 10) is None
        server.close()

    run(scenario, tmp_path)
