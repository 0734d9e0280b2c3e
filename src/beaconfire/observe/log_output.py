"""Where log lines go: to standard error, which may be a pipe, and whose reader may be slow, stuck or gone.

Writing to a full pipe waits for its reader, and a server that waits for the reader of its log serves nobody. So what
can be full is asked first, written in pieces that cannot block, and what it does not take waits here, up to a limit.
Beyond that lines are lost, and a line says how many. No thread: while the reader keeps up nothing ever waits.
"""

from __future__ import annotations

import os
import select
import stat
import sys
import time
from collections.abc import Callable
from typing import Final, TextIO

WAITING_BYTES_MAX: Final = 1024 * 1024


class Output:
    """Takes lines and never raises or blocks. As structlog's logger it has a method per level, all of them `write`."""

    def __init__(self, stream: TextIO | None, describe_loss: Callable[[int], str] | None = None) -> None:
        """`stream` None is standard error. `describe_loss` makes the line that tells how many were lost."""
        self._stream = stream
        self._describe_loss = describe_loss
        self._waiting = bytearray()
        self._lost = 0
        self._pipe: _Pipe | None = None
        self._examined: TextIO | None = None

    @property
    def stream(self) -> TextIO | None:
        """None if the process was started without standard error."""
        # Looked up late: whoever replaces sys.stderr (a test, a daemon) means its later lines too.
        return sys.stderr if self._stream is None else self._stream

    def is_terminal(self) -> bool:
        try:
            return self.stream is not None and self.stream.isatty()
        except ValueError:  # closed
            return False

    def write(self, line: str) -> None:
        """When standard error is closed or full nobody is left to tell, and the server must go on."""
        try:
            stream = self.stream
            if stream is not self._examined:
                self._examined, self._pipe = stream, _pipe_of(stream)
            if self._pipe is not None:
                self._queue(self._pipe, line)
                self._drain(self._pipe, 0)
            elif stream is not None:
                _write_at_once(stream, line)
        except (OSError, ValueError):
            self._waiting.clear()

    def catch_up(self, patience_s: float = 0) -> None:
        """Writes what waits, if the reader takes it by now or within `patience_s`. To be called now and then."""
        if self._waiting and self._pipe is not None:
            try:
                self._drain(self._pipe, patience_s)
                if self._lost and not self._waiting:
                    self._tell_loss(self._pipe)
                    self._drain(self._pipe, 0)
            except (OSError, ValueError):
                self._waiting.clear()

    def _queue(self, pipe: _Pipe, line: str) -> None:
        if len(self._waiting) > WAITING_BYTES_MAX:
            self._lost += 1
            return
        if self._lost:
            self._tell_loss(pipe)
        self._waiting += pipe.encoded(line)

    def _tell_loss(self, pipe: _Pipe) -> None:
        lost, self._lost = self._lost, 0
        if self._describe_loss is not None:
            self._waiting += pipe.encoded(self._describe_loss(lost))

    def _drain(self, pipe: _Pipe, patience_s: float) -> None:
        waiting, done = self._waiting, 0
        end_s = time.monotonic() + patience_s
        try:
            while done < len(waiting) and pipe.has_room(end_s - time.monotonic() if patience_s else 0):
                done += os.write(pipe.descriptor, waiting[done : done + select.PIPE_BUF])
        finally:
            del waiting[:done]

    debug = info = warning = warn = error = critical = fatal = exception = msg = write


class _Pipe:
    """A descriptor that may have no room: a pipe, a socket, a terminal that was stopped."""

    def __init__(self, descriptor: int, encoding: str) -> None:
        self.descriptor = descriptor
        self.encoding = encoding
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)

    def encoded(self, line: str) -> bytes:
        return f"{line}\n".encode(self.encoding, "backslashreplace")

    def has_room(self, patience_s: float) -> bool:
        """Whether `select.PIPE_BUF` bytes can be written without waiting, or an error be found out."""
        return bool(self._poll.poll(max(0, patience_s) * 1000))


def _pipe_of(stream: TextIO | None) -> _Pipe | None:
    """None for files, which always have room or fail, and for what is no descriptor at all."""
    if stream is None or not hasattr(select, "poll"):
        return None
    try:
        descriptor = stream.fileno()
        mode = os.fstat(descriptor).st_mode
    except (OSError, ValueError, AttributeError):  # no descriptor, or a closed one
        return None
    return None if stat.S_ISREG(mode) else _Pipe(descriptor, stream.encoding or "utf-8")


def _write_at_once(stream: TextIO, line: str) -> None:
    try:
        stream.write(line + "\n")
    except UnicodeEncodeError:
        stream.write(line.encode("ascii", "backslashreplace").decode() + "\n")
    stream.flush()
