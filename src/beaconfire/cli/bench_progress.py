"""The progress of `beaconfire bench` on the terminal."""

from __future__ import annotations

from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

from beaconfire.cli.console import err
from beaconfire.loadtest.report import Run
from beaconfire.loadtest.view import render_step


class ProgressBar:
    """`loadtest.load_test.ProgressListener` as a bar on standard error, if that is a terminal; otherwise silent."""

    def __init__(self) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:<12}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[more]}"),
            console=err,
            transient=True,
            disable=not err.is_terminal,
        )
        self._task = self._progress.add_task("starting", total=None, more="")

    def __enter__(self) -> ProgressBar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def connecting(self, opened: int, wanted: int) -> None:
        self._show("connecting", opened, wanted, "connections")

    def running(self, phase: str, elapsed_s: float, duration_s: float, sent: int, delivered: int) -> None:
        self._show(phase, int(elapsed_s), max(1, int(duration_s)), f"s  {sent:,} sent, {delivered:,} delivered")

    def step_finished(self, run: Run, failure: str) -> None:
        if err.is_terminal:
            self._progress.console.print(render_step(run, failure), soft_wrap=True)

    def _show(self, phase: str, completed: int, total: int, more: str) -> None:
        self._progress.update(self._task, description=phase, completed=completed, total=total, more=more)
