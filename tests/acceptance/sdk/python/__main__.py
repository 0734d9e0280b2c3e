"""Runs all checks of the Python SDK on the import path in parallel, and prints one JSON line per check.

    python -m tests.acceptance.sdk.python RUN CODEC PORT FAST_PORT [EXCLUDED_CHECK ...]

RUN separates the channels and users of several runs. PORT is a server with the reference configuration,
FAST_PORT is a server with short timeouts.
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
from tests.acceptance.sdk.python.scenario import CHECKS, Scenario

CHECK_DEADLINE_S = 20.0
AT_ONCE = 16
"""Enough to use the waiting times. With more, short-lived tokens would expire in the queue of handshakes."""


async def _run(name: str, scenario: Scenario) -> None:
    started_s = time.monotonic()
    error = ""
    try:
        async with asyncio.timeout(CHECK_DEADLINE_S):
            await CHECKS[name](scenario)
    except Exception:  # noqa: BLE001 - the error is the result of this check
        error = traceback.format_exc()
    print(json.dumps({"check": name, "error": error, "seconds": round(time.monotonic() - started_s, 2)}), flush=True)
    await scenario.close()


async def _main(run: str, codec: str, reference: Backend, fast: Backend, names: Iterable[str]) -> None:
    turns = asyncio.Semaphore(AT_ONCE)

    async def run_check(name: str) -> None:
        async with turns:
            await _run(name, Scenario(f"{name}.{run}", codec, reference, fast))

    await asyncio.gather(*map(run_check, names))


def main(arguments: Sequence[str]) -> None:
    # Modules with checks that wait for timeouts are first, so that the other checks run during these waits.
    for module in ("tokens", "recovery", "channels", "server_side", "reduced_delivery", "abuse"):
        import_module(f"tests.acceptance.sdk.python.{module}")
    run, codec, port, fast_port, *excluded = arguments
    names = [name for name in CHECKS if name not in excluded]
    asyncio.run(_main(run, codec, Backend(int(port)), Backend(int(fast_port)), names))


if __name__ == "__main__":
    main(sys.argv[1:])
