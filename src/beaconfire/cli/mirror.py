"""`beaconfire engine mirror`: watch and steer the migration of a running server, over its API."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from typing import Annotated, Any, Final, NoReturn

import msgspec
import typer
from msgspec import Struct
from rich.text import Text

from beaconfire.api.messages.migrating import MigrationResult
from beaconfire.cli.bars import Bars
from beaconfire.cli.comparison import print_comparison
from beaconfire.cli.console import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE, fail, write, write_error

POLL_S: Final = 0.2
"""How often the status is read."""

TIMEOUT_S: Final = 10.0
"""How long the server may take for one answer."""

UNREACHABLE_S_MAX: Final = 30.0
"""How long the server may be away, for example because it restarts, before the command gives up."""


def mirror(
    url: Annotated[str, typer.Option("--url", metavar="URL", help="Address of the server.")] = "http://127.0.0.1:8000",
    key: Annotated[
        str, typer.Option("--key", metavar="KEY", envvar="BEACONFIRE_API_KEY", help="A key of `api.keys`.")
    ] = "",
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare all channels of both engines, and list the differences.")
    ] = False,
    read_percent: Annotated[
        float | None,
        typer.Option(
            "--read-percent",
            min=0,
            max=100,
            metavar="NUMBER",
            help="Read the history of this part of the channels from the new engine; 0 steps back. With --verify only "
            "if there are no differences.",
        ),
    ] = None,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Do not wait until the new engine has all channels.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Watch and steer the migration of a running server to the engine of its section [migration].

    Waits until the new engine has all channels, and prints how far the migration is. Exit codes: 0; 1 differences, or
    the server cannot be reached; 2 wrong usage, a wrong key, or a server without a migration; 130 interrupted, which
    does not interrupt the migration.
    """
    server = _Server(url, key)
    try:
        if read_percent == 0:
            status = server.call("migration_read", percent=0)  # Stepping back waits for nothing.
        with Bars() as bars:
            status = server.call("migration") if no_wait and not verify else _wait_for_copy(server, bars)
            if verify:
                status = _verify(server, bars)
    except KeyboardInterrupt:
        write_error(Text("interrupted: the migration goes on"))
        raise typer.Exit(EXIT_INTERRUPTED) from None
    differs = verify and status.verified is not None and status.verified.different > 0
    if read_percent and not differs:
        status = server.call("migration_read", percent=read_percent)
    _finish(status, verify, differs, as_json)


def _wait_for_copy(server: _Server, bars: Bars) -> MigrationResult:
    """Returns when all channels have been copied, and nothing waits or a verification runs."""
    while True:
        status = server.call_patiently("migration")
        if status.phase == "copying":
            bars.progress("copy", status.channels, status.total)
        elif status.phase == "verifying" or not status.waiting or not status.problem:
            bars.progress("copy", max(status.total, 1), max(status.total, 1))
            return status
        bars.note(status.problem)
        time.sleep(POLL_S)


def _verify(server: _Server, bars: Bars) -> MigrationResult:
    """Runs a verification. Fails if the server ended meanwhile, because the server forgets the verification then."""
    number = server.call("migration_verify").verification
    while True:
        status = server.call_patiently("migration")
        if status.verified is not None and status.verified.number >= number:
            bars.progress("verify", max(status.total, 1), max(status.total, 1))
            return status
        if status.verification < number:
            fail("the server was restarted: run the same command again", EXIT_FAILED)
        if status.phase == "verifying":
            bars.progress("verify", status.channels, status.total)
        bars.note(status.problem)
        time.sleep(POLL_S)


class _Answer(Struct):
    """The body of a response."""

    result: MigrationResult | None = None
    error: dict[str, Any] | None = None


class _Server:
    """Calls methods of the API."""

    def __init__(self, url: str, key: str) -> None:
        self._url = url.rstrip("/")
        self._key = key

    def call(self, method: str, **params: object) -> MigrationResult:
        """Ends the command if that fails."""
        try:
            return self._call(method, params)
        except OSError as error:
            fail(f"{self._url} cannot be reached: {_reason(error)}", EXIT_FAILED)

    def call_patiently(self, method: str) -> MigrationResult:
        """The same, but the server may be away for `UNREACHABLE_S_MAX`."""
        end_s = time.monotonic() + UNREACHABLE_S_MAX
        while True:
            try:
                return self._call(method, {})
            except OSError:
                if time.monotonic() >= end_s:
                    return self.call(method)
                time.sleep(POLL_S)

    def _call(self, method: str, params: dict[str, object]) -> MigrationResult:
        """Raises OSError if the server cannot be reached."""
        request = urllib.request.Request(
            f"{self._url}/api/{method}", json.dumps(params).encode(), {"X-API-Key": self._key}, method="POST"
        )
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
                answer = msgspec.json.decode(response.read(), type=_Answer)
        except urllib.error.HTTPError as error:
            if error.code >= 500:
                raise
            self._refuse(error)
        except (msgspec.DecodeError, ValueError) as error:
            fail(f"{self._url} is not the address of a server with this migration: {error}", EXIT_USAGE)
        if answer.result is None:
            error_fields = answer.error or {}
            text = error_fields.get("detail") or error_fields.get("message", "no result")
            if error_fields.get("code") == _INTERNAL:  # The engine does not answer at present.
                raise OSError(text)
            fail(str(text), EXIT_USAGE)
        return answer.result

    def _refuse(self, error: urllib.error.HTTPError) -> NoReturn:
        if error.code == _UNAUTHORIZED:
            fail("the server does not accept the key: give one of `api.keys` with --key", EXIT_USAGE)
        fail(f"{self._url} answered with status {error.code}: give the address of a server", EXIT_USAGE)


_INTERNAL: Final = 100
_UNAUTHORIZED: Final = 401


def _reason(error: OSError) -> str:
    return str(error.reason) if isinstance(error, urllib.error.URLError) else str(error)


def _finish(status: MigrationResult, verified: bool, differs: bool, as_json: bool) -> NoReturn:
    if as_json:
        write(msgspec.json.encode(status).decode())
    else:
        _print(status, verified)
    raise typer.Exit(EXIT_FAILED if differs else 0)


def _print(status: MigrationResult, verified: bool) -> None:
    done = f"{status.channels:,} of {status.total:,}" if status.phase != "following" else f"{status.channels:,}"
    write(f"{status.old} to {status.new}: {status.phase}, {done} channels, {status.waiting:,} with changes that wait")
    write(f"{status.read_percent:g} % of the channels are read from the new engine")
    if status.problem:
        write(Text.assemble(("problem: ", "bold red"), status.problem))
    result = status.verified
    if not verified or result is None:
        return
    totals = {f"old, {status.old}": result.old, f"new, {status.new}": result.new}
    print_comparison(totals, result.differences, result.different, "; they are copied again")
