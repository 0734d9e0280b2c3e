"""For which channels the link of the broker is lost."""

from __future__ import annotations

from beaconfire.channels.link_state import LinkState


def test_link_is_up_at_the_start() -> None:
    """Of every channel."""
    assert not LinkState().is_down("a")


def test_some_channels_lose_their_link() -> None:
    """The others keep theirs. Each may come back alone, or with all."""
    link = LinkState()
    link.down(["a", "b"])
    assert [link.is_down(name) for name in "abc"] == [True, True, False]
    link.up(["a"])
    assert [link.is_down(name) for name in "abc"] == [False, True, False]
    link.up(None)
    assert not any(link.is_down(name) for name in "abc")


def test_all_channels_lose_their_link() -> None:
    """Some may come back before the others, and lose the link again."""
    link = LinkState()
    link.down(None)
    assert link.is_down("a")
    link.up(["a", "b"])
    assert [link.is_down(name) for name in "abc"] == [False, False, True]
    link.down(["a"])
    assert [link.is_down(name) for name in "abc"] == [True, False, True]
    link.down(None)
    assert link.is_down("b")
