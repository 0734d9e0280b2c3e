"""Progress bars of commands that move channels."""

from __future__ import annotations

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from beaconfire.cli.console import err


class Bars:
    """`engines.copying.ProgressListener` as bars on standard error, if that is a terminal; otherwise silent."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description:<9}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("channels"),
            TimeRemainingColumn(),
            console=err,
            disable=not err.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._problem = ""

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def progress(self, phase: str, channels: int, total: int) -> None:
        if phase not in self._tasks:
            self._tasks[phase] = self._progress.add_task(phase, total=total)
        self._progress.update(self._tasks[phase], completed=channels, total=max(total, channels))

    def note(self, problem: str) -> None:
        """Shows why nothing moves at present. An empty text shows nothing."""
        if problem != self._problem and problem:
            self._progress.console.print(problem, style="yellow", soft_wrap=True)
        self._problem = problem
