"""What nodes say to each other; here there is one."""

from __future__ import annotations

from .harness import Harness, Run


def test_a_broadcast_reaches_its_own_node(run: Run) -> None:
    """On an engine with one node, before the call returns; in order, byte by byte."""

    async def scenario(h: Harness) -> None:
        messages = [b"", b"one", bytes(range(256)), b"x" * 100_000]
        for number, message in enumerate(messages, start=1):
            await h.engine.control.broadcast(message)
            assert h.node.control == messages[:number]

    run(scenario)


def test_a_survey_has_this_nodes_answer(run: Run) -> None:
    """The handler is asked once with the request as it is, and its answer is the result."""

    async def scenario(h: Harness) -> None:
        assert await h.engine.control.survey(b"who?", 1.0) == [b"pong who?"]
        h.node.answer = b"\x00\xff"
        assert await h.engine.control.survey(b"", 1.0) == [b"\x00\xff "]
        assert h.node.control == []

    run(scenario)
