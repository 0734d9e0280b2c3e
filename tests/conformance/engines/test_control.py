"""Messages between nodes, here with a single node."""

from __future__ import annotations

from .harness import Harness, Run


def test_a_broadcast_reaches_its_own_node(run: Run) -> None:
    """On an engine with one node before the call returns; in order, and with the same bytes."""

    async def scenario(h: Harness) -> None:
        messages = [b"", b"one", bytes(range(256)), b"x" * 100_000]
        for number, message in enumerate(messages, start=1):
            await h.engine.control.broadcast(message)
            assert h.node.control == messages[:number]

    run(scenario)


def test_a_survey_includes_the_answer_of_this_node(run: Run) -> None:
    """The handler is called once with the unchanged request, and its answer is in the result."""

    async def scenario(h: Harness) -> None:
        assert await h.engine.control.survey(b"who?", 1.0) == [b"pong who?"]
        h.node.answer = b"\x00\xff"
        assert await h.engine.control.survey(b"", 1.0) == [b"\x00\xff "]
        assert h.node.control == []

    run(scenario)
