"""Compares our WebSocket with two well-known implementations, on random and damaged streams.

All three get each stream. Ours gets it in several segmentations, which must have the same result. If two logs differ,
one of the explanations below must hold, and each explanation must be used at least once. A failure prints the seed;
`BEACONFIRE_FUZZ_SEED` and `BEACONFIRE_FUZZ_ROUNDS` replace the defaults.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Mapping
from random import Random
from typing import TypeAlias

from .frames import chunked, make_stream
from .model import End, Model
from .subjects import NO_LIMIT, Log, run_ours, run_websockets, run_wsproto

FIRST_SEED = int(os.environ.get("BEACONFIRE_FUZZ_SEED", "0"))
ROUNDS = int(os.environ.get("BEACONFIRE_FUZZ_ROUNDS", "5000"))
LIMIT = 400

Explanation: TypeAlias = Callable[[Log, Log, End], bool]


def code(log: Log) -> int:
    """The close code at the end of a log; -1 if the connection is still open."""
    return int(log[-1][1]) if log and log[-1][0] == "close" else -1


def without_close(log: Log) -> Log:
    """The log without the close frame."""
    return log[:-1] if code(log) >= 0 else log


def detected_at_another_byte(ours: Log, theirs: Log, end: End) -> bool:
    """One has refused a frame by its header while the other still waits for the rest of the frame."""
    faults = {code(ours), code(theirs)} - {-1}
    return without_close(ours) == without_close(theirs) and not end.complete and faults <= end.faults


def reported_another_fault(ours: Log, theirs: Log, end: End) -> bool:
    """The frame has two faults, and each implementation has reported one of them."""
    return without_close(ours) == without_close(theirs) and {code(ours), code(theirs)} <= end.faults


def incomplete_surrogate(ours: Log, theirs: Log, end: End) -> bool:
    """We fail at the second byte of a surrogate, Python's decoder at the third, perhaps a fragment later."""
    more = theirs[len(without_close(ours)) :]
    return (
        code(ours) == 1007
        and 1007 in end.faults
        and theirs[: len(without_close(ours))] == without_close(ours)
        and all(kind in ("pong", "close") for kind, *_ in more)
    )


def reserved_in_wsproto(ours: Log, theirs: Log, end: End) -> bool:
    """1014 is assigned, but wsproto treats it as reserved."""
    return without_close(ours) == without_close(theirs) and (code(ours), code(theirs)) == (1014, 1002)


def lengths_of_all_forms(ours: Log, theirs: Log, end: End) -> bool:
    """websockets accepts lengths that are not in the shortest form; RFC 6455 section 5.2 forbids them."""
    return end.nonminimal and code(ours) == 1002 and theirs[: len(without_close(ours))] == without_close(ours)


def close_inside_a_message(ours: Log, theirs: Log, end: End) -> bool:
    """websockets refuses a close frame inside a message; RFC 6455 section 5.4 permits control frames there."""
    return (
        without_close(ours) == without_close(theirs) and end.inside and code(ours) == end.code and code(theirs) == 1002
    )


def control_frames_in_the_limit(ours: Log, theirs: Log, end: End) -> bool:
    """While a control frame is incomplete, websockets adds its size to the message around it."""
    return code(theirs) == 1009 and ours[: len(without_close(theirs))] == without_close(theirs)


WSPROTO: Mapping[str, Explanation] = {
    "detected at another byte": detected_at_another_byte,
    "incomplete surrogate": incomplete_surrogate,
    "reserved in wsproto": reserved_in_wsproto,
}
WEBSOCKETS: Mapping[str, Explanation] = {
    "detected at another byte": detected_at_another_byte,
    "reported another fault": reported_another_fault,
    "incomplete surrogate": incomplete_surrogate,
    "lengths of all forms": lengths_of_all_forms,
    "close inside a message": close_inside_a_message,
    "control frames in the limit": control_frames_in_the_limit,
}


def explain(explanations: Mapping[str, Explanation], ours: Log, theirs: Log, end: End) -> str:
    """The name of the first explanation that holds; empty for none."""
    return next((name for name, holds in explanations.items() if holds(ours, theirs, end)), "")


def compare(limit: int, explanations: Mapping[str, Explanation], theirs_of: Callable[[list[bytes]], Log]) -> None:
    used: Counter[str] = Counter()
    closed: Counter[int] = Counter()
    for seed in range(FIRST_SEED, FIRST_SEED + ROUNDS):
        random = Random(seed)
        frames = make_stream(random)
        data = b"".join(frames)
        ours = run_ours([data], limit)
        for _ in range(2):
            assert run_ours(chunked(random, data), limit) == ours, f"seed {seed}: depends on segmentation"
        theirs = theirs_of(frames)
        closed[code(ours)] += 1
        if ours != theirs:
            end = Model(data, limit).end()
            name = explain(explanations, ours, theirs, end)
            assert name, f"seed {seed}: {end}\n{data.hex()}\nours   {ours}\ntheirs {theirs}"
            used[name] += 1
    if ROUNDS >= 5000:
        assert set(used) == set(explanations), f"unused explanations: {set(explanations) - set(used)}"
        assert min(closed[code] for code in (-1, 0, 1000, 1002, 1007, 4999)) > 25, (
            f"streams with too few close codes: {closed}"
        )
    assert sum(used.values()) < ROUNDS / 4, f"too many differences: {used}"


def test_against_wsproto() -> None:
    """Everything except size limits; text is checked byte by byte."""

    async def run() -> None:
        compare(NO_LIMIT, WSPROTO, lambda frames: run_wsproto(b"".join(frames)))

    asyncio.run(run())


def test_against_websockets() -> None:
    """Framing and the size limit."""

    async def run() -> None:
        compare(LIMIT, WEBSOCKETS, lambda frames: run_websockets(frames, LIMIT))

    asyncio.run(run())
