"""`beaconfire bench`: a load test for a server that speaks the native protocol."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import signal
import sys
import time
from pathlib import Path
from typing import Annotated, Final, NoReturn

import msgspec
import typer

from beaconfire.base.units import Seconds, Size
from beaconfire.cli.console import EXIT_FAILED, EXIT_INTERRUPTED, fail, out, write
from beaconfire.loadtest.limits import check_limits
from beaconfire.loadtest.load_test import LoadProfile, LoadTest, ProgressListener
from beaconfire.loadtest.plan import PAYLOAD_BYTES_MIN, Plan, complete_url
from beaconfire.loadtest.report import Report
from beaconfire.loadtest.worker_processes import WorkerError, start_workers

EXIT_LOAD_SIDE: Final = 3

_PROCESSES_MAX: Final = 64
_P99_DEFAULT: Final = "100ms"
_PAYLOAD_BYTES_MAX: Final = 16 * 1024 * 1024
_RATE: Final = re.compile(r"(\d+(?:\.\d+)?)(?:/s)?")


def bench(
    url: Annotated[
        str,
        typer.Argument(
            metavar="URL", help="WebSocket URL of the server, like ws://localhost:8000/connection/websocket."
        ),
    ],
    connections: Annotated[int, typer.Option(min=1, metavar="N", help="Number of clients.")] = 1000,
    channels: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Subscribe each connection to N channels. Default: 1.")
    ] = None,
    rooms: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Distribute the connections over N channels, one channel each; replaces --channels.",
        ),
    ] = None,
    prefix: Annotated[
        str, typer.Option(metavar="TEXT", help="Prefix of the channel names, with a namespace if required.")
    ] = "bench",
    rate: Annotated[
        str, typer.Option(metavar="N/s", help="Messages to publish per second, in total; each goes to one channel.")
    ] = "100/s",
    duration: Annotated[
        str, typer.Option(metavar="TIME", help="How long to measure; in a search, how long for each rate.")
    ] = "10s",
    warm_up: Annotated[
        str, typer.Option(metavar="TIME", help="How long to publish before the measurement; 0 skips the warm-up.")
    ] = "1s",
    payload: Annotated[str, typer.Option(metavar="SIZE", help="Size of the data of a message.")] = "128",
    protobuf: Annotated[bool, typer.Option("--protobuf", help="Use Protobuf instead of JSON.")] = False,
    token_secret: Annotated[
        str,
        typer.Option(
            metavar="TEXT",
            help="HMAC secret that signs a token for each connection; - reads the secret from standard input.",
        ),
    ] = "",
    token: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File with connection tokens, one per line, used in turn.")
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=_PROCESSES_MAX,
            metavar="N",
            help="Number of processes that generate load. Default: half the number of CPU cores.",
        ),
    ] = None,
    search: Annotated[
        bool, typer.Option("--search", help="Search the highest rate that the server sustains, starting at --rate.")
    ] = False,
    p99: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help=f"Fail if the 99th percentile of the latency is longer. Default in a search: {_P99_DEFAULT}.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as one JSON object.")] = False,
) -> None:
    """Load a server with connections and messages, and report delivery and latency.

    Messages are published at a fixed rate, even if the server is slow. The latency of a message counts from the moment
    it was due. Exit codes: 0 all messages arrived; 1 messages were lost or too slow, or connections were refused or
    closed; 2 wrong usage; 3 success, but the load generator was the bottleneck; 130 interrupted.
    """
    if channels is not None and rooms is not None:
        _refuse("rooms", "expected either --channels or --rooms, not both")
    if rooms is not None and rooms > connections:
        _refuse("rooms", f"expected at most as many rooms as connections, {connections}; raise --connections")
    if processes is not None and processes > connections:
        _refuse("processes", f"expected at most as many as connections, {connections}")
    plan = Plan(
        url=_url(url),
        connections=connections,
        channels=rooms or channels or 1,
        rooms=rooms is not None,
        prefix=f"{prefix}-{secrets.token_hex(3)}",  # random, so that two load tests do not share channels
        payload_bytes=_payload(payload),
        protobuf=protobuf,
        token_secret=_token_secret(token_secret, token),
        tokens=_tokens(token),
        workers=processes or _processes_default(connections),
    )
    profile = LoadProfile(
        rate=_rate(rate),
        duration_s=_seconds("duration", duration),
        warm_up_s=_seconds("warm-up", warm_up, may_be_zero=True),
        p99_max_ms=_p99_max_ms(p99, search),
        search=search,
    )
    try:
        check_limits(plan)
    except ValueError as error:
        _refuse("connections", f"{connections}: {error}")
    _finish(_run(plan, profile), as_json)


def _run(plan: Plan, profile: LoadProfile) -> Report:
    from beaconfire.cli.bench_progress import ProgressBar  # here because other commands do not need it

    try:
        with ProgressBar() as progress:
            return asyncio.run(_run_load_test(plan, profile, progress))
    except WorkerError as error:
        fail(str(error), EXIT_FAILED)


async def _run_load_test(plan: Plan, profile: LoadProfile, progress: ProgressListener) -> Report:
    async with start_workers(plan) as workers:
        load_test = LoadTest(plan, profile, workers, progress, time.monotonic_ns)
        if sys.platform != "win32":
            for number in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(number, load_test.interrupt)
        return await load_test.run()


def _finish(report: Report, as_json: bool) -> NoReturn:
    if as_json:
        write(msgspec.json.encode(report).decode())
    else:
        from beaconfire.loadtest.view import render_report  # likewise

        out.print(render_report(report))
    if report.interrupted:
        raise typer.Exit(EXIT_INTERRUPTED)
    if report.failure:
        raise typer.Exit(EXIT_FAILED)
    raise typer.Exit(EXIT_LOAD_SIDE if report.bottleneck else 0)


# --- options -----------------------------------------------------------------------------------------------------


def _refuse(option: str, problem: str) -> NoReturn:
    raise typer.BadParameter(problem, param_hint=f"'--{option}'" if option != "URL" else "'URL'")


def _url(text: str) -> str:
    try:
        return complete_url(text)
    except ValueError as error:
        _refuse("URL", str(error))


def _processes_default(connections: int) -> int:
    """Leaves half of the cores to the server, which may run on the same machine."""
    return max(1, min(_PROCESSES_MAX, (os.cpu_count() or 1) // 2, connections))


def _rate(text: str) -> float:
    match = _RATE.fullmatch(text.strip())
    if match is None or not 0 < float(match[1]) <= 1e7:
        _refuse("rate", f"expected messages per second like 100/s, got {text!r}")
    return float(match[1])


def _seconds(option: str, text: str, *, may_be_zero: bool = False) -> float:
    try:
        seconds = Seconds.parse(text)
    except ValueError as error:
        _refuse(option, str(error))
    if not seconds and not may_be_zero:
        _refuse(option, 'expected a duration of more than zero, like "10s"')
    return float(seconds)


def _p99_max_ms(text: str | None, search: bool) -> float | None:
    if text is None and not search:
        return None
    return _seconds("p99", text or _P99_DEFAULT) * 1000


def _payload(text: str) -> int:
    try:
        size = Size.parse(text)
    except ValueError as error:
        _refuse("payload", str(error))
    if not PAYLOAD_BYTES_MIN <= size <= _PAYLOAD_BYTES_MAX:
        _refuse("payload", f"expected {PAYLOAD_BYTES_MIN} bytes to {Size(_PAYLOAD_BYTES_MAX)}, got {size}")
    return int(size)


def _token_secret(secret: str, file: Path | None) -> str:
    if secret and file is not None:
        _refuse("token", "expected either --token or --token-secret, not both")
    return sys.stdin.readline().strip() if secret == "-" else secret


def _tokens(file: Path | None) -> tuple[str, ...]:
    if file is None:
        return ()
    try:
        tokens = tuple(file.read_text(encoding="utf-8").split())
    except (OSError, UnicodeDecodeError) as error:
        _refuse("token", f"cannot read {file}: {getattr(error, 'strerror', None) or 'not UTF-8 text'}")
    if not tokens:
        _refuse("token", f"expected a token in {file}; `beaconfire token connection` creates one")
    return tokens
