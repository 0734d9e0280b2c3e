"""Our WebSocket against two well-known implementations, on random and damaged streams.

Each stream goes to all three; ours gets it in several segmentations, which must not make a difference at all. Where
the logs differ, one of the explanations below must hold, and each explanation must have been needed.
A failure prints the seed; `BEACONFIRE_FUZZ_SEED` and `BEACONFIRE_FUZZ_ROUNDS` choose others than the default.
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
    """The close code a log ends with; -1 if the connection is still open."""
    return int(log[-1][1]) if log and log[-1][0] == "close" else -1


def said(log: Log) -> Log:
    """Everything but the close frame."""
    return log[:-1] if code(log) >= 0 else log


def noticed_at_another_byte(ours: Log, theirs: Log, end: End) -> bool:
    """One has judged a frame by its head that the other still waits for the rest of."""
    faults = {code(ours), code(theirs)} - {-1}
    return said(ours) == said(theirs) and not end.complete and faults <= end.faults


def named_another_fault(ours: Log, theirs: Log, end: End) -> bool:
    """A frame with two faults: each has named one of them."""
    return said(ours) == said(theirs) and {code(ours), code(theirs)} <= end.faults


def half_a_surrogate(ours: Log, theirs: Log, end: End) -> bool:
    """We end the connection at the second byte of a surrogate, Python's decoder at the third, a fragment later."""
    more = theirs[len(said(ours)) :]
    return (
        code(ours) == 1007
        and 1007 in end.faults
        and theirs[: len(said(ours))] == said(ours)
        and all(kind in ("pong", "close") for kind, *_ in more)
    )


def unknown_to_wsproto(ours: Log, theirs: Log, end: End) -> bool:
    """1014 is assigned, but wsproto calls it reserved."""
    return said(ours) == said(theirs) and (code(ours), code(theirs)) == (1014, 1002)


def lengths_of_any_form(ours: Log, theirs: Log, end: End) -> bool:
    """websockets does not mind a length in more bytes than it needs; RFC 6455 section 5.2 does."""
    return end.nonminimal and code(ours) == 1002 and theirs[: len(said(ours))] == said(ours)


def close_inside_a_message(ours: Log, theirs: Log, end: End) -> bool:
    """websockets calls it an error to leave in the middle of a message; RFC 6455 section 5.4 lets control frames in."""
    return said(ours) == said(theirs) and end.inside and code(ours) == end.code and code(theirs) == 1002


def control_frames_in_the_limit(ours: Log, theirs: Log, end: End) -> bool:
    """websockets counts a control frame towards the size of the message it interrupts, up to its own end."""
    return code(theirs) == 1009 and ours[: len(said(theirs))] == said(theirs)


WSPROTO: Mapping[str, Explanation] = {
    "noticed at another byte": noticed_at_another_byte,
    "half a surrogate": half_a_surrogate,
    "unknown to wsproto": unknown_to_wsproto,
}
WEBSOCKETS: Mapping[str, Explanation] = {
    "noticed at another byte": noticed_at_another_byte,
    "named another fault": named_another_fault,
    "half a surrogate": half_a_surrogate,
    "lengths of any form": lengths_of_any_form,
    "close inside a message": close_inside_a_message,
    "control frames in the limit": control_frames_in_the_limit,
}


def explain(explanations: Mapping[str, Explanation], ours: Log, theirs: Log, end: End) -> str:
    """The name of the first explanation that holds; empty for none."""
    return next((name for name, holds in explanations.items() if holds(ours, theirs, end)), "")


def compare(limit: int, explanations: Mapping[str, Explanation], theirs_of: Callable[[list[bytes]], Log]) -> None:
    needed: Counter[str] = Counter()
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
            needed[name] += 1
    if ROUNDS >= 5000:
        assert set(needed) == set(explanations), f"explanations nobody needs: {set(explanations) - set(needed)}"
        assert min(closed[code] for code in (-1, 0, 1000, 1002, 1007, 4999)) > 25, f"streams too uniform: {closed}"
    assert sum(needed.values()) < ROUNDS / 4, f"more excuses than agreement: {needed}"


def test_against_wsproto() -> None:
    """wsproto: everything but size limits, with text checked byte by byte."""

    async def run() -> None:
        compare(NO_LIMIT, WSPROTO, lambda frames: run_wsproto(b"".join(frames)))

    asyncio.run(run())


def test_against_websockets() -> None:
    """websockets: framing and the size limit."""

    async def run() -> None:
        compare(LIMIT, WEBSOCKETS, lambda frames: run_websockets(frames, LIMIT))

    asyncio.run(run())
