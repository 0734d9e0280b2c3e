"""`beaconfire engine`: move the streams of all channels from one engine to another."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from typing import Annotated, NoReturn

import msgspec
import typer
from rich.text import Text

from beaconfire.base.clock import SystemClock
from beaconfire.base.errors import EngineError, StorageUnusable
from beaconfire.base.timers import Timers
from beaconfire.cli.bars import Bars
from beaconfire.cli.comparison import print_comparison
from beaconfire.cli.console import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE, fail, write, write_error
from beaconfire.cli.mirror import mirror
from beaconfire.config.sections import Config
from beaconfire.engines.copying import CopyReport, StreamCopy, VerificationReport
from beaconfire.engines.no_node import NoNode
from beaconfire.engines.options import EngineOptions
from beaconfire.engines.transfer import Transfer, Transferable
from beaconfire.model.events import NoEvents
from beaconfire.server.engines import ENGINES, Needs
from beaconfire.server.ticks import make_runtime

engine_app = typer.Typer(help="Move the streams of all channels from one engine to another.", no_args_is_help=True)


@engine_app.callback()
def root() -> None:
    """Move the streams of all channels from one engine to another."""


engine_app.command()(mirror)


@engine_app.command()
def copy(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="The database file of the old engine.")],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="The database file of the new engine.")],
    keep_source: Annotated[
        bool,
        typer.Option(
            "--keep-source",
            help="A server will go on with SOURCE. Then TARGET counts as a backup: its channels get new epochs.",
        ),
    ] = False,
    verify_only: Annotated[bool, typer.Option("--verify-only", help="Compare the files and copy nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Copy all channels with their history from one database file to another, and verify the copy.

    No server may use one of the files meanwhile. Publications, positions, epochs, expiries, versions, idempotency keys
    and numbers of producers move, so clients recover without a gap. A copy that was interrupted is continued by the
    same command: channels that are equal already are not copied again. Exit codes: 0 no differences; 1 differences, or
    the copy failed; 2 wrong usage or an unusable file; 130 interrupted.
    """
    _check_files(source, target, verify_only)
    try:
        with Bars() as bars:
            copied, verified = asyncio.run(_copy(source, target, bars, keep_source, verify_only))
    except KeyboardInterrupt:
        write_error(Text("interrupted: run the same command again to continue"))
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except StorageUnusable as error:
        fail(error.detail, EXIT_USAGE)
    except EngineError as error:
        fail(f"{error.detail}. Then run the same command again to continue", EXIT_FAILED)
    _finish(copied, verified, as_json)


async def _copy(
    source: str, target: str, bars: Bars, keep_source: bool, verify_only: bool
) -> tuple[CopyReport | None, VerificationReport]:
    async with _open(source) as old, _open(target) as new:
        stream_copy = StreamCopy(old, new, SystemClock().unix_s, bars)
        copied = None if verify_only else await stream_copy.copy()
        verified = await stream_copy.verify()
        if verified.is_equal and not keep_source and not verify_only:
            await new.settle()
        return copied, verified


@contextlib.asynccontextmanager
async def _open(path: str) -> AsyncIterator[Transfer]:
    """The started engine on this file. Raises StorageUnusable if another process uses the file."""
    clock = SystemClock()
    options, runtime = EngineOptions(type="sqlite", path=path), make_runtime(clock, Timers(clock))
    engine = ENGINES["sqlite"].make(Needs(Config(engine=options), options, runtime, NoEvents()))
    assert isinstance(engine, Transferable), "the engine offers a transfer"
    await engine.broker.start(NoNode())
    try:
        yield engine.transfer()
    finally:
        await engine.broker.stop()


def _check_files(source: str, target: str, verify_only: bool) -> None:
    for name, path, must_exist in (("SOURCE", source, True), ("TARGET", target, verify_only)):
        if must_exist and not os.path.isfile(path):
            _refuse(name, f"there is no file {path!r}: give the path that engine.path names")
    if os.path.exists(target) and os.path.samefile(source, target):
        _refuse("TARGET", "expected another file than SOURCE")


def _refuse(name: str, problem: str) -> NoReturn:
    raise typer.BadParameter(problem, param_hint=f"'{name}'")


def _finish(copied: CopyReport | None, verified: VerificationReport, as_json: bool) -> NoReturn:
    if as_json:
        document = {
            "copied": copied,
            "equal": verified.is_equal,
            "old": _totals(verified, "old"),
            "new": _totals(verified, "new"),
            "different_channels": verified.different,
            "differences": verified.listed,
        }
        write(msgspec.json.encode(document).decode())
    else:
        _print(copied, verified)
    raise typer.Exit(0 if verified.is_equal else EXIT_FAILED)


def _totals(verified: VerificationReport, side: str) -> dict[str, object]:
    totals = getattr(verified, side)
    return {"channels": totals.channels, "publications": totals.publications, "hash": totals.hash}


def _print(copied: CopyReport | None, verified: VerificationReport) -> None:
    if copied is not None:
        write(f"{copied.channels:,} channels: {copied.copied:,} copied, {copied.removed:,} removed from the target")
    print_comparison({"source": verified.old, "target": verified.new}, verified.listed, verified.different)
