"""The load programs as Python objects: their commands and their results."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import msgspec

from bench.load.build import HERE, compile_sources

MARK = b"~" + b"0" * 16
"""The load program replaces these zeros in a publication by the time of publishing, and reads the time on delivery."""

DEADLINE_S = 120.0

SHARED_SOURCES = ("commands", "histogram", "link", "response", "schedule")
WSLOAD_SOURCES = ("wsload", "connecting", "publishing", "plan", "connection", "counters", "scan", "websocket")
HTTPLOAD_SOURCES = ("httpload",)


class LoadError(Exception):
    """The server gave no response or a wrong one, or a connection ended. The text says which and what is missing."""


class Connection(msgspec.Struct, frozen=True):
    """One WebSocket connection: the group whose messages it receives, the message that it publishes (None: it publishes
    nothing), and the messages that it sends first, to connect and subscribe.

    `publish` contains at most one MARK. `binary` is the type of the frames that the connection sends.
    """

    group: int
    publish: bytes | None
    setup_messages: Sequence[bytes]
    binary: bool = False

    def plan(self) -> str:
        """The line about this connection in the plan that the program reads."""
        publish = "-" if self.publish is None else self.publish.hex()
        setup_messages = (message.hex() for message in self.setup_messages)
        return "\t".join((str(self.group), "b" if self.binary else "t", publish, *setup_messages)) + "\n"


class Latency(msgspec.Struct, frozen=True):
    """Microseconds, with an error below 1 %. If `count` is 0, no message contained a time: ignore the other fields."""

    count: int
    p50: float
    p99: float
    p999: float
    max: float


class Outcome(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The results of a command. Fields that the command does not measure are 0. `cpu_s` is that of the load side."""

    seconds: float
    latency_us: Latency
    cpu_s: float
    count: int = 0
    """Connections opened."""
    sent: int = 0
    arrived: int = 0
    """Marks received."""
    acked: int = 0
    answered: int = 0
    not_2xx: int = 0
    late: int = 0
    """Messages sent more than 1 ms after they were due: the load side was too slow, or had no free HTTP connection."""
    missing: int = 0
    """Marks or HTTP responses that were not received before the timeout."""


class _LoadProgram:
    """A running load program. It ends with the `with` block. `content` is the content of the file that it reads."""

    def __init__(
        self, program: str, sources: Sequence[str], arguments: Sequence[str], content: bytes, options: Sequence[str]
    ) -> None:
        executable = compile_sources(program, [HERE / f"{name}.c" for name in (*sources, *SHARED_SOURCES)])
        with tempfile.NamedTemporaryFile() as file:
            file.write(content)
            file.flush()
            self._process = subprocess.Popen(
                [str(executable), *arguments, file.name, *options],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            try:
                self._read_line()
            except LoadError:
                self.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def close(self) -> None:
        """Ends the program and so all its connections."""
        self._process.kill()
        self._process.communicate()

    def _run(self, command: str, **options: float) -> Outcome:
        assert self._process.stdin is not None
        line = " ".join((command, *(f"{name}={value}" for name, value in options.items())))
        try:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the program has ended; `_read_line` raises the reason
        answer = self._read_line()
        if b'"error"' in answer:
            raise LoadError(msgspec.json.decode(answer, type=dict[str, str])["error"])
        return msgspec.json.decode(answer, type=Outcome)

    def _read_line(self) -> bytes:
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        line = self._process.stdout.readline()
        if not line:
            reason = self._process.stderr.read().decode(errors="replace").strip()
            raise LoadError(reason or f"the load program ended with {self._process.wait()}")
        return line


class Load(_LoadProgram):
    """WebSocket connections to a path on 127.0.0.1. All methods raise LoadError.

    `initial_messages` is the number of messages that the server sends before the client's first message. `ack` are
    bytes that every acknowledgement and nothing else contains; empty if the server sends no acknowledgements.
    """

    def __init__(
        self,
        port: int,
        path: str,
        connections: Sequence[Connection],
        initial_messages: int = 0,
        ack: bytes = b"",
        deadline_s: float = DEADLINE_S,
    ) -> None:
        options = [f"initial_messages={initial_messages}", f"deadline={deadline_s}"]
        if ack:
            options.append(f"ack={ack.hex()}")
        plan = "".join(connection.plan() for connection in connections)
        super().__init__("wsload", WSLOAD_SOURCES, [str(port), path], plan.encode(), options)

    def connect(self, concurrency: int, marks: int = 0) -> Outcome:
        """Opens and sets up all connections that are not open, at most `concurrency` at a time (0: all at once).

        A connection is open after the reply to its last setup message and `marks` marks. Latency: from connect() until
        the connection is open.
        """
        return self._run("connect", concurrency=concurrency, marks=marks)

    def flood(self, window: int, messages: int, copies: int, acks: bool = False) -> Outcome:
        """Closed loop: each group publishes `messages` messages, with at most `window` incomplete ones at a time.

        A message is complete when its group has received `copies` copies and, with `acks`, its acknowledgement.
        """
        return self._run("flood", window=window, messages=messages, copies=copies, acks=int(acks))

    def rate(self, per_second: float, seconds: float, copies: int, timeout_s: float = 5.0) -> Outcome:
        """Open loop: `per_second` messages in total; groups and their publishers take turns.

        Latency counts from when a message was due. The command ends when all copies were received, or `timeout_s` after
        the last message was due.
        """
        return self._run("rate", per_second=per_second, seconds=seconds, copies=copies, timeout=timeout_s)


class HttpLoad(_LoadProgram):
    """Keep-alive connections to 127.0.0.1 that send the same HTTP/1.1 request again and again. Raises LoadError."""

    def __init__(self, port: int, connections: int, request: bytes, deadline_s: float = DEADLINE_S) -> None:
        options = [f"deadline={deadline_s}"]
        super().__init__("httpload", HTTPLOAD_SOURCES, [str(port), str(connections)], request, options)

    def flood(self, requests: int) -> Outcome:
        """Closed loop: `requests` requests in total. Each connection sends the next one after the response."""
        return self._run("flood", requests=requests)

    def rate(self, per_second: float, seconds: float, timeout_s: float = 5.0) -> Outcome:
        """Open loop: a request waits until a connection is free. Latency counts from when the request was due."""
        return self._run("rate", per_second=per_second, seconds=seconds, timeout=timeout_s)
