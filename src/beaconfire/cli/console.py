"""Output of the command line: results go to standard output, everything else to standard error."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.padding import Padding
from rich.text import Text
from typer.core import TyperGroup

from beaconfire.base.errors import BeaconfireError
from beaconfire.config import ConfigError, Problem

EXIT_FAILED = 1
EXIT_USAGE = 2
"""Wrong usage or an unusable configuration. The argument parser uses the same code."""

EXIT_INTERRUPTED = 130

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def write(text: Text | str, end: str = "\n") -> None:
    """Prints a line of a result to standard output. Never wraps it, because it may be piped or copied."""
    out.print(Text(text) if isinstance(text, str) else text, end=end, soft_wrap=True)


def write_prose(text: Text | str, indent: int = 0) -> None:
    """Prints prose to standard output, wrapped to the width of the terminal."""
    prose = Text(text) if isinstance(text, str) else text
    out.print(Padding(prose, (0, 0, 0, indent), expand=False))


def write_error(text: Text, indent: int = 0) -> None:
    """Prints a sentence to standard error: wrapped on a terminal, one line otherwise."""
    if err.is_terminal:
        err.print(Padding(text, (0, 0, 0, indent), expand=False))
    else:
        err.print(Text(" " * indent).append_text(text), soft_wrap=True)


class ErrorHandlingGroup(TyperGroup):
    """Prints Beaconfire's errors and errors of the operating system without a traceback, and sets the exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise
        except (BeaconfireError, OSError) as error:
            raise typer.Exit(report(error)) from None


def report(error: BeaconfireError | OSError) -> int:
    """Prints an error without a traceback. Returns the exit code."""
    if isinstance(error, ConfigError):
        show_problems(error.problems)
        return EXIT_USAGE
    _write_failure(str(error))
    return EXIT_USAGE if isinstance(error, BeaconfireError) else EXIT_FAILED


def fail(message: str, exit_code: int) -> NoReturn:
    """Prints an error and ends the command."""
    _write_failure(message)
    raise typer.Exit(exit_code)


def _write_failure(message: str) -> None:
    write_error(Text.assemble(("error: ", "bold red"), message))


def show_problems(problems: Iterable[Problem]) -> None:
    """Prints every problem of a configuration with its name, origin and text."""
    listed = list(problems)
    count = "1 problem" if len(listed) == 1 else f"{len(listed)} problems"
    write_error(Text.assemble(("error: ", "bold red"), f"{count} in the configuration"))
    for problem in listed:
        head = Text(problem.key or problem.origin, "bold")
        if problem.key:
            head.append(f"  ({problem.origin})", "dim")
        write_error(head, 2)
        write_error(Text(problem.text), 4)


def show_warnings(warnings: Iterable[str], notes: Iterable[str]) -> None:
    for text in warnings:
        write_error(Text.assemble(("warning: ", "bold yellow"), text))
    for text in notes:
        write_error(Text.assemble(("note: ", "bold cyan"), text))
