"""Makes sequences of frames from a seed: mostly valid and sometimes invalid."""

from __future__ import annotations

from random import Random
from typing import NamedTuple

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

_VALID_TEXT = ["", "a", "hello ", "µ", "κόσμε", "水", "\U0001f525", "\ud7ff", "\ue000", "\U0010ffff", "\x00", "x" * 130]
_INVALID_TEXT = [b"\x80", b"\xc0\xaf", b"\xed\xa0\x80", b"\xed\xbf", b"\xf4\x90\x80\x80", b"\xff", b"\xe6\xb0", b"\xf8"]
_CODES = [1000, 1001, 1002, 1003, 1007, 1010, 1011, 1012, 1013, 1014, 3000, 4999]
_INVALID_CODES = [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535]


class FrameSpec(NamedTuple):
    """A frame to encode. `length_form` is the number of length bytes, or -1 for the shortest form."""

    opcode: int
    payload: bytes = b""
    final: bool = True
    reserved: int = 0
    masked: bool = True
    length_form: int = -1

    def encode(self, random: Random) -> bytes:
        size = len(self.payload)
        form = self.length_form
        if form < 0 or (form == 0 and size > 125) or (form == 2 and size > 65535):
            form = 0 if size < 126 else 2 if size < 65536 else 8
        mark = {0: size, 2: 126, 8: 127}[form]
        head = bytes((self.final << 7 | self.reserved << 4 | self.opcode, self.masked << 7 | mark))
        if form:
            head += size.to_bytes(form, "big")
        if not self.masked:
            return head + self.payload
        mask = random.randbytes(4)
        pattern = int.from_bytes((mask * (size // 4 + 1))[:size], "big")
        return head + mask + (int.from_bytes(self.payload, "big") ^ pattern).to_bytes(size, "big")


def make_stream(random: Random) -> list[bytes]:
    """The frames of one client. The last one may be truncated, and one may be damaged."""
    specs: list[FrameSpec] = []
    for _ in range(random.randint(1, 6)):
        specs += _unit(random)
    frames = [_mutate(random, spec).encode(random) for spec in specs]
    if random.random() < 0.1:
        index = random.randrange(len(frames))
        frame = bytearray(frames[index])
        frame[random.randrange(min(len(frame), 12))] ^= 1 << random.randrange(8)
        frames[index] = bytes(frame)
    if random.random() < 0.15:
        frames[-1] = frames[-1][: random.randrange(len(frames[-1]))]
    return frames


def chunked(random: Random, data: bytes) -> list[bytes]:
    """Divides the bytes as TCP might: whole, byte by byte, or in chunks of random sizes."""
    division = random.randrange(3)
    if division == 0:
        return [data]
    if division == 1 and len(data) < 2000:
        return [data[at : at + 1] for at in range(len(data))]
    chunks: list[bytes] = []
    while data:
        size = random.choice((1, 2, 3, 7, 50, 400, 5000))
        chunks.append(data[:size])
        data = data[size:]
    return chunks


def _unit(random: Random) -> list[FrameSpec]:
    """A whole message with fragments and control frames between them, or a control frame, or a random frame."""
    choice = random.random()
    if choice < 0.62:
        return _message(random)
    if choice < 0.87:
        return [_control(random)]
    if choice < 0.95:
        return [_close(random)]
    return [FrameSpec(random.randrange(16), random.randbytes(random.randrange(5)), random.random() < 0.7)]


def _message(random: Random) -> list[FrameSpec]:
    opcode = random.choice((TEXT, TEXT, BINARY))
    payload = _text(random) if opcode == TEXT else random.randbytes(_size(random))
    pieces = random.choice((1, 1, 1, 2, 3, 5))
    cuts = sorted(random.randint(0, len(payload)) for _ in range(pieces - 1))
    specs: list[FrameSpec] = []
    for index, (begin, end) in enumerate(zip([0, *cuts], [*cuts, len(payload)], strict=True)):
        specs.append(FrameSpec(CONTINUATION if index else opcode, payload[begin:end], index == pieces - 1))
        if index < pieces - 1 and random.random() < 0.3:
            specs.append(_close(random) if random.random() < 0.05 else _control(random))
    return specs


def _text(random: Random) -> bytes:
    parts = [random.choice(_VALID_TEXT).encode() for _ in range(random.randrange(6))]
    if random.random() < 0.12:
        parts.insert(random.randint(0, len(parts)), random.choice(_INVALID_TEXT))
    return b"".join(parts)


def _size(random: Random) -> int:
    """Sizes around every change in the form of the length, and around the size limit of the comparison."""
    sizes = (10, 0, 1, 124, 125, 126, 127, 370, 395, 400, 401, 65535, 65536)
    return random.choices(sizes, (20, 5, 5, 5, 5, 5, 5, 20, 20, 5, 5, 1, 1))[0]


def _control(random: Random) -> FrameSpec:
    size = random.choices((2, 0, 125, 126), (60, 20, 19, 1))[0]
    return FrameSpec(random.choice((PING, PING, PONG)), random.randbytes(size))


def _close(random: Random) -> FrameSpec:
    choice = random.random()
    if choice < 0.15:
        return FrameSpec(CLOSE)
    if choice < 0.2:
        return FrameSpec(CLOSE, b"\x03")
    code = random.choice(_CODES if choice < 0.8 else _INVALID_CODES)
    reason = random.choice((b"", b"bye", "é".encode(), b"\xff")) if choice < 0.5 else b""
    return FrameSpec(CLOSE, code.to_bytes(2, "big") + reason)


def _mutate(random: Random, spec: FrameSpec) -> FrameSpec:
    """Changes a few frames to violations."""
    choice = random.random()
    if choice < 0.01:
        return spec._replace(reserved=random.randint(1, 7))
    if choice < 0.02:
        return spec._replace(masked=False)
    if choice < 0.03:
        return spec._replace(length_form=random.choice((2, 8)))
    if choice < 0.035:
        return spec._replace(final=not spec.final)
    return spec
