"""Runs every check of the Python SDK on the import path, many at once: one JSON line for each on standard output.

    python -m tests.acceptance.sdk.python RUN CODEC PORT HASTY_PORT [CHECK_TO_LEAVE_OUT ...]

RUN keeps the channels and users of several runs apart. PORT is a server with the reference configuration,
HASTY_PORT one whose clocks run fast.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import traceback
from collections.abc import Iterable, Sequence
from importlib import import_module

from tests.acceptance.sdk.python.backend import Backend
from tests.acceptance.sdk.python.scene import CHECKS, Scene

CHECK_DEADLINE_S = 20.0
AT_ONCE = 16
"""Enough to hide the waiting, few enough for short-lived tokens not to run out in a queue of handshakes."""


async def _run(name: str, scene: Scene) -> None:
    started_s = time.monotonic()
    error = ""
    try:
        async with asyncio.timeout(CHECK_DEADLINE_S):
            await CHECKS[name](scene)
    except Exception:  # noqa: BLE001 - whatever went wrong is this check's result
        error = traceback.format_exc()
    print(json.dumps({"check": name, "error": error, "seconds": round(time.monotonic() - started_s, 2)}), flush=True)
    await scene.close()


async def _main(run: str, codec: str, reference: Backend, hasty: Backend, names: Iterable[str]) -> None:
    turns = asyncio.Semaphore(AT_ONCE)

    async def take_turn(name: str) -> None:
        async with turns:
            await _run(name, Scene(f"{name}.{run}", codec, reference, hasty))

    await asyncio.gather(*map(take_turn, names))


def main(arguments: Sequence[str]) -> None:
    # Those with checks that wait for clocks come first, so that the others fill the time.
    for module in ("tokens", "recovery", "rooms", "server_side", "tailoring", "abuse"):
        import_module(f"tests.acceptance.sdk.python.{module}")
    run, codec, port, hasty_port, *left_out = arguments
    names = [name for name in CHECKS if name not in left_out]
    asyncio.run(_main(run, codec, Backend(int(port)), Backend(int(hasty_port)), names))


if __name__ == "__main__":
    main(sys.argv[1:])
