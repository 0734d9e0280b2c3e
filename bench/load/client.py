"""The load programs as Python objects: what they are told, and what they answer."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import msgspec

from bench.load.build import HERE, compile_sources

MARK = b"~" + b"0" * 16
"""Where a publication holds this, the load writes the time of publishing, and recognises it where it arrives."""

DEADLINE_S = 120.0

SHARED_SOURCES = ("commands", "histogram", "link", "response", "schedule")
WSLOAD_SOURCES = ("wsload", "connecting", "publishing", "plan", "connection", "tally", "scan", "websocket")
HTTPLOAD_SOURCES = ("httpload",)


class LoadError(Exception):
    """The load was not answered as it should have been, or a connection ended; says which, and what is missing."""


class Connection(msgspec.Struct, frozen=True):
    """One WebSocket connection: the group that it hears, what it publishes (None: nothing), what it says first.

    `publish` holds at most one MARK. `binary` is the kind of frames that it sends.
    """

    group: int
    publish: bytes | None
    greetings: Sequence[bytes]
    binary: bool = False

    def plan(self) -> str:
        """Its line in the plan that the program reads."""
        publish = "-" if self.publish is None else self.publish.hex()
        greetings = (greeting.hex() for greeting in self.greetings)
        return "\t".join((str(self.group), "b" if self.binary else "t", publish, *greetings)) + "\n"


class Latency(msgspec.Struct, frozen=True):
    """Microseconds, off by less than 1 %. `count` 0: nothing told when it was sent, and the others mean nothing."""

    count: int
    p50: float
    p99: float
    p999: float
    max: float


class Outcome(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a command measured; fields that are not its business are 0. `cpu_s` is what the load side itself used."""

    seconds: float
    latency_us: Latency
    cpu_s: float
    count: int = 0
    """Connections opened."""
    sent: int = 0
    arrived: int = 0
    """Marks."""
    acked: int = 0
    answered: int = 0
    not_2xx: int = 0
    late: int = 0
    """Sent more than 1 ms after they were due: because the load side was too slow, or had no free HTTP connection."""
    missing: int = 0
    """Marks, or HTTP responses, that had not come when the patience was over."""


class _LoadProgram:
    """A load program that runs; ended with the `with` block. `content` is what the file it is given holds."""

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
        """Ends the program, and with it all its connections."""
        self._process.kill()
        self._process.communicate()

    def _ask(self, command: str, **options: float) -> Outcome:
        assert self._process.stdin is not None
        line = " ".join((command, *(f"{name}={value}" for name, value in options.items())))
        try:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended meanwhile: reading says why
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
    """WebSocket connections to a path on 127.0.0.1; all methods raise `LoadError`.

    `unprompted` is how many messages the server sends before it is greeted, `ack` what its acknowledgements hold and
    nothing else does (empty: there are none).
    """

    def __init__(
        self,
        port: int,
        path: str,
        connections: Sequence[Connection],
        unprompted: int = 0,
        ack: bytes = b"",
        deadline_s: float = DEADLINE_S,
    ) -> None:
        options = [f"unprompted={unprompted}", f"deadline={deadline_s}", *([f"ack={ack.hex()}"] if ack else [])]
        plan = "".join(connection.plan() for connection in connections)
        super().__init__("wsload", WSLOAD_SOURCES, [str(port), path], plan.encode(), options)

    def connect(self, concurrency: int, marks: int = 0) -> Outcome:
        """Opens and greets all connections that are not open, so many at a time (0: all at once).

        Each is done when its last greeting was answered and so many marks have arrived on it. Latency: from connect()
        to done.
        """
        return self._ask("connect", concurrency=concurrency, marks=marks)

    def flood(self, window: int, messages: int, copies: int, acks: bool = False) -> Outcome:
        """Closed loop: each group publishes so many messages, at most `window` of them incomplete at a time.

        A message is complete when so many copies have arrived in its group and, with `acks`, its acknowledgement.
        """
        return self._ask("flood", window=window, messages=messages, copies=copies, acks=int(acks))

    def rate(self, per_second: float, seconds: float, copies: int, patience_s: float = 5.0) -> Outcome:
        """Open loop: so many messages per second in all, groups and publishers in turn; latency counts from due.

        Ends when all copies have arrived, or `patience_s` after the last message was due.
        """
        return self._ask("rate", per_second=per_second, seconds=seconds, copies=copies, patience=patience_s)


class HttpLoad(_LoadProgram):
    """Keep-alive connections to 127.0.0.1 that send one whole HTTP/1.1 request again and again; raises `LoadError`."""

    def __init__(self, port: int, connections: int, request: bytes, deadline_s: float = DEADLINE_S) -> None:
        options = [f"deadline={deadline_s}"]
        super().__init__("httpload", HTTPLOAD_SOURCES, [str(port), str(connections)], request, options)

    def flood(self, requests: int) -> Outcome:
        """Closed loop: so many requests in all, each connection sending its next when it has the response."""
        return self._ask("flood", requests=requests)

    def rate(self, per_second: float, seconds: float, patience_s: float = 5.0) -> Outcome:
        """Open loop: a request that finds no free connection waits for one; latency counts from when it was due."""
        return self._ask("rate", per_second=per_second, seconds=seconds, patience=patience_s)
