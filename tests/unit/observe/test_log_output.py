"""Writing log lines: it never blocks, lines stay whole, losses are reported, and a broken output raises no error."""

from __future__ import annotations

import codecs
import fcntl
import io
import logging
import os
import sys
import threading
from collections.abc import Iterator
from typing import TextIO

import pytest

from beaconfire.base.clock import ManualClock
from beaconfire.observe.log_output import BUFFER_BYTES_MAX, LogOutput
from beaconfire.observe.logs import LogSink, configure, get_logger
from beaconfire.observe.options import LogOptions
from tests.unit.observe.log_capture import configured, lines

LINE = "x" * 999


class Pipe:
    """A pipe with a small buffer, and both of its ends."""

    def __init__(self) -> None:
        self.reader, writer = os.pipe()
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 8192)
        os.set_blocking(self.reader, False)
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self.stream: TextIO = os.fdopen(writer, "w")

    def read(self) -> str:
        """The text that has arrived."""
        text = b""
        try:
            while data := os.read(self.reader, 1 << 20):
                text += data
        except BlockingIOError:
            pass
        return self._decoder.decode(text)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.stream.close()
    os.close(pipe.reader)


def test_lines_are_written_immediately_if_the_reader_keeps_up(pipe: Pipe) -> None:
    """Usually the buffer is empty."""
    output = LogOutput(pipe.stream)
    for number in range(100):
        output.write(f"line {number}")
        assert pipe.read() == f"line {number}\n"


def test_a_full_pipe_does_not_block(pipe: Pipe) -> None:
    """Writing more than fits returns immediately. When the pipe is read again, all lines arrive whole and in order."""
    output = LogOutput(pipe.stream)
    sent = [f"{number:04d} {LINE}" for number in range(200)]
    for line in sent:
        output.write(line)
    text = pipe.read()
    assert 0 < len(text) <= 8192
    for _ in range(200):
        output.flush()
        text += pipe.read()
    assert text.splitlines() == sent


def test_the_buffer_is_bounded_and_losses_are_reported(pipe: Pipe) -> None:
    """In the place of the lost lines, a line reports their number."""
    output = LogOutput(pipe.stream, lambda lost: f"lost {lost}")
    for number in range(2000):
        output.write(f"{number:04d} {LINE}")
    text = ""
    while len(text) < 1000 or text[-1] != "\n" or "lost" not in text:
        output.flush()
        text += pipe.read()
    output.write("after")
    text += pipe.read()
    *kept, report, after = text.splitlines()
    assert [int(line[:4]) for line in kept] == list(range(len(kept)))
    assert BUFFER_BYTES_MAX // 1005 <= len(kept) < BUFFER_BYTES_MAX // 1005 + 12
    assert (report, after) == (f"lost {2000 - len(kept)}", "after")


def test_lines_longer_than_one_write_stay_whole(pipe: Pipe) -> None:
    """A traceback takes more than one write."""
    output = LogOutput(pipe.stream)
    output.write("烽火" * 5000)
    text = pipe.read()
    for _ in range(20):
        output.flush()
        text += pipe.read()
    assert text == "烽火" * 5000 + "\n"


def test_a_closed_reader_is_no_error(pipe: Pipe) -> None:
    """The pipe is broken, and the buffer is dropped."""
    output = LogOutput(pipe.stream)
    for _ in range(100):
        output.write(LINE)
    other = os.dup(pipe.reader)
    os.close(pipe.reader)
    os.close(other)
    output.flush()
    output.write("x")
    assert not output._buffer
    pipe.reader = os.open(os.devnull, os.O_RDONLY)


def test_no_standard_error_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process may be started without standard error."""
    monkeypatch.setattr(sys, "stderr", None)
    configure(LogOptions())
    get_logger().info("x")
    logging.getLogger("library").error("x")
    assert not LogOutput(None).is_terminal()


def test_standard_error_is_read_for_each_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines after a replacement of sys.stderr go to the new stream."""
    configure(LogOptions(format="json"))
    logger = get_logger().bind()
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    logger.info("x")
    assert len(lines(stream)) == 1


def test_broken_output_does_not_stop_the_server() -> None:
    """A closed or full standard error raises no exception."""

    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise BlockingIOError("pipe is full")

    closed = io.StringIO()
    closed.close()
    for stream in (Full(), closed):
        configure(LogOptions(), stream)
        get_logger().error("x")
        logging.getLogger("library").error("x")


def test_text_that_the_stream_cannot_encode_is_escaped() -> None:
    """A terminal without Unicode gets escapes, so that no line is lost."""
    raw = io.BytesIO()
    configure(LogOptions(format="text"), io.TextIOWrapper(raw, encoding="ascii"))
    get_logger().info("x", user="烽火")
    assert b"user=\\u70fd\\u706b" in raw.getvalue()


def test_the_sink_flushes_the_output(pipe: Pipe) -> None:
    """`tick` and `flush` of the sink write buffered lines."""
    configure(LogOptions(format="json"), pipe.stream)
    sink = LogSink(clock=ManualClock())
    for _ in range(16):
        get_logger().info("x", text=LINE)
    seen = pipe.read().count("\n")
    assert seen < 16
    sink.tick()
    seen += pipe.read().count("\n")
    sink.flush()
    seen += pipe.read().count("\n")
    assert seen == 16


def test_repeated_library_messages_are_limited() -> None:
    """The same message is written once per second with a count; other messages are not affected."""
    clock = ManualClock()
    stream = configured(clock=clock)
    library = logging.getLogger("library")
    for _ in range(5):
        library.warning("bad request")
    library.warning("something else")
    clock.advance(1)
    library.warning("bad request")
    written = [(line["message"], line["count"]) for line in lines(stream)]
    assert written == [("bad request", 1), ("something else", 1), ("bad request", 5)]


def test_lines_of_several_threads_are_never_mixed() -> None:
    """Each line is written once and whole: two event loops, or a library's thread, may log at the same time."""
    reading, writing = os.pipe()
    received: list[bytes] = []

    def read() -> None:
        while data := os.read(reading, 4096):
            received.append(data)

    def write(name: str) -> None:
        for number in range(2000):
            output.write(f"{name} {number} {'x' * (number % 50)}")

    with open(writing, "w") as stream:
        output = LogOutput(stream)
        reader = threading.Thread(target=read)
        writers = [threading.Thread(target=write, args=(name,)) for name in "ab"]
        for thread in (reader, *writers):
            thread.start()
        for thread in writers:
            thread.join()
        output.flush(10)
    reader.join()
    os.close(reading)
    lines = b"".join(received).decode().splitlines()
    for name in "ab":
        own = [line for line in lines if line.startswith(name)]
        assert own == [f"{name} {number} {'x' * (number % 50)}" for number in range(2000)]
    assert len(lines) == 4000
