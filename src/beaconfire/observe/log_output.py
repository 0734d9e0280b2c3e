"""Writes log lines to standard error without ever blocking.

Standard error may be a pipe whose reader is slow or stopped, and a write to a full pipe blocks the whole server. So
this module asks the kernel whether a descriptor has room, writes pieces that cannot block, and buffers the rest up to
a limit. Beyond the limit lines are lost, and a line reports their number. The buffer is written by later calls, not
by a thread. Several threads may write lines: those of libraries, and of other event loops. structlog's own loggers
(`PrintLogger`, `WriteLogger`, `BytesLogger`) block.
"""

from __future__ import annotations

import os
import select
import stat
import sys
import threading
import time
from collections.abc import Callable
from typing import Final, TextIO

BUFFER_BYTES_MAX: Final = 1024 * 1024
"""No line is added to a buffer that is larger than this."""


class LogOutput:
    """Writes lines; never raises or blocks. As structlog's logger, it has a method per level, all equal to `write`."""

    def __init__(self, stream: TextIO | None, render_loss: Callable[[int], str] | None = None) -> None:
        """`stream` None is standard error. `render_loss` makes the line that reports how many lines were lost."""
        self._stream = stream
        self._render_loss = render_loss
        self._buffer = bytearray()
        self._lost = 0
        self._lock = threading.RLock()  # a finalizer that runs within a call may write a line, too
        self._descriptor: _PolledDescriptor | None = None
        self._descriptor_stream: TextIO | None = None
        """The stream that `_descriptor` belongs to."""

    @property
    def stream(self) -> TextIO | None:
        """None if the process was started without standard error."""
        # Read for each line: a test or a daemon that replaces sys.stderr wants the later lines, too.
        return sys.stderr if self._stream is None else self._stream

    def is_terminal(self) -> bool:
        try:
            return self.stream is not None and self.stream.isatty()
        except ValueError:  # closed
            return False

    def write(self, line: str) -> None:
        """Writes or buffers a line. Drops all lines if the stream is closed or broken: the server must go on."""
        with self._lock:
            try:
                self._write(line)
            except (OSError, ValueError):
                self._buffer.clear()

    def _write(self, line: str) -> None:
        stream = self.stream
        if stream is not self._descriptor_stream:
            self._descriptor_stream, self._descriptor = stream, _polled_descriptor(stream)
        if self._descriptor is not None:
            self._add(self._descriptor, line)
            self._write_buffer(self._descriptor, 0)
        elif stream is not None:
            _write_to_file(stream, line)

    def flush(self, timeout_s: float = 0) -> None:
        """Writes the buffer as far as the descriptor takes it within `timeout_s`. The owner calls this regularly."""
        if not self._buffer:
            return
        with self._lock:
            descriptor = self._descriptor
            try:
                if descriptor is not None:
                    self._write_buffer(descriptor, timeout_s)
                    if self._lost and not self._buffer:
                        self._report_loss(descriptor)
                        self._write_buffer(descriptor, 0)
            except (OSError, ValueError):
                self._buffer.clear()

    def _add(self, descriptor: _PolledDescriptor, line: str) -> None:
        if len(self._buffer) > BUFFER_BYTES_MAX:
            self._lost += 1
            return
        if self._lost:
            self._report_loss(descriptor)
        self._buffer += descriptor.encode(line)

    def _report_loss(self, descriptor: _PolledDescriptor) -> None:
        lost, self._lost = self._lost, 0
        if self._render_loss is not None:
            self._buffer += descriptor.encode(self._render_loss(lost))

    def _write_buffer(self, descriptor: _PolledDescriptor, timeout_s: float) -> None:
        buffer, written = self._buffer, 0
        end_s = time.monotonic() + timeout_s
        try:
            while written < len(buffer) and descriptor.is_writable(end_s - time.monotonic() if timeout_s else 0):
                written += os.write(descriptor.number, buffer[written : written + select.PIPE_BUF])
        finally:
            del buffer[:written]

    debug = info = warning = warn = error = critical = fatal = exception = msg = write


class _PolledDescriptor:
    """A file descriptor that may have no room: a pipe, a socket, or a terminal that is stopped."""

    def __init__(self, number: int, encoding: str) -> None:
        self.number = number
        self.encoding = encoding
        self._poll = select.poll()
        self._poll.register(number, select.POLLOUT)

    def encode(self, line: str) -> bytes:
        return f"{line}\n".encode(self.encoding, "backslashreplace")

    def is_writable(self, timeout_s: float) -> bool:
        """Whether a write of `select.PIPE_BUF` bytes would return without blocking, with success or an error."""
        return bool(self._poll.poll(max(0, timeout_s) * 1000))


def _polled_descriptor(stream: TextIO | None) -> _PolledDescriptor | None:
    """None for files, which always have room or fail, and for streams without a descriptor."""
    if stream is None or not hasattr(select, "poll"):
        return None
    try:
        number = stream.fileno()
        mode = os.fstat(number).st_mode
    except (OSError, ValueError, AttributeError):  # no descriptor, or a closed one
        return None
    return None if stat.S_ISREG(mode) else _PolledDescriptor(number, stream.encoding or "utf-8")


def _write_to_file(stream: TextIO, line: str) -> None:
    try:
        stream.write(line + "\n")
    except UnicodeEncodeError:
        stream.write(line.encode("ascii", "backslashreplace").decode() + "\n")
    stream.flush()
