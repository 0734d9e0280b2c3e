"""How the command line speaks: results to standard output, everything else to standard error, briefly."""

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
"""Wrong usage or a configuration that cannot be used; also what the argument parser itself exits with."""

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def write(text: Text | str, end: str = "\n") -> None:
    """Prints a line of a result, never broken into several: it may be piped or copied."""
    out.print(Text(text) if isinstance(text, str) else text, end=end, soft_wrap=True)


def say(text: Text, indent: int = 0) -> None:
    """Prints a sentence to standard error: wrapped on a terminal, in one line for a log."""
    if err.is_terminal:
        err.print(Padding(text, (0, 0, 0, indent), expand=False))
    else:
        err.print(Text(" " * indent).append_text(text), soft_wrap=True)


def explain(text: Text | str, indent: int = 0) -> None:
    """Prints prose to standard output, wrapped to the width of the terminal."""
    prose = Text(text) if isinstance(text, str) else text
    out.print(Padding(prose, (0, 0, 0, indent), expand=False))


class FriendlyGroup(TyperGroup):
    """Shows our own errors and those of the operating system as text with an exit code, never as a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            show_problems(error.problems)
            raise typer.Exit(EXIT_USAGE) from None
        except BeaconfireError as error:
            fail(str(error), EXIT_USAGE)
        except BrokenPipeError:
            raise
        except OSError as error:
            fail(str(error), EXIT_FAILED)


def fail(message: str, exit_code: int) -> NoReturn:
    say(Text.assemble(("error: ", "bold red"), message))
    raise typer.Exit(exit_code)


def show_problems(problems: Iterable[Problem]) -> None:
    """Every problem of a configuration: what, where, and what is wrong with it."""
    found = list(problems)
    count = "1 problem" if len(found) == 1 else f"{len(found)} problems"
    say(Text.assemble(("error: ", "bold red"), f"{count} in the configuration"))
    for problem in found:
        head = Text(problem.key or problem.origin, "bold")
        if problem.key:
            head.append(f"  ({problem.origin})", "dim")
        say(head, 2)
        say(Text(problem.text), 4)


def show_warnings(warnings: Iterable[str], notes: Iterable[str]) -> None:
    for text in warnings:
        say(Text.assemble(("warning: ", "bold yellow"), text))
    for text in notes:
        say(Text.assemble(("note: ", "bold cyan"), text))
