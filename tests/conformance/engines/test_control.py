"""Messages between nodes, here with a single node."""

from __future__ import annotations

from .harness import NODE, Harness, Run


def test_a_broadcast_reaches_its_own_node(run: Run) -> None:
    """In order and with the same bytes; before the call returns, if the engine never suspends."""

    async def scenario(h: Harness) -> None:
        messages = [b"", b"one", bytes(range(256)), b"x" * 100_000]
        for number, message in enumerate(messages, start=1):
            await h.engine.control.broadcast(message)
            if h.engine.suspends:
                await h.settle()
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


def test_a_message_to_one_node_reaches_only_a_live_node(run: Run) -> None:
    """The result tells whether the node is live. A message to an unknown node is dropped."""

    async def scenario(h: Harness) -> None:
        assert await h.engine.control.send(NODE, b"one") is True
        assert await h.engine.control.send("unknown", b"lost") is False
        assert await h.engine.control.send(NODE, b"two") is True
        await h.settle()
        assert h.node.control == [b"one", b"two"]

    run(scenario)


def test_the_live_nodes_include_this_node(run: Run) -> None:
    """By the uid that the bus was started with."""

    async def scenario(h: Harness) -> None:
        assert list(await h.engine.control.nodes()) == [NODE]

    run(scenario)
