"""The meaning of channel names: section 18 of the protocol reference."""

from __future__ import annotations

import pytest

from beaconfire.base.errors import CommandError
from beaconfire.base.units import Seconds
from beaconfire.channels.namespaces import Namespace, Namespaces
from beaconfire.channels.options import ChannelNameOptions, ChannelOptions

NAMESPACES = {"chat": ChannelOptions(channel_regex="^[a-z]+$"), "news": ChannelOptions()}


def new_namespaces(**names: object) -> Namespaces:
    return Namespaces(ChannelOptions(), NAMESPACES, ChannelNameOptions(**names), 3600.0)  # type: ignore[arg-type]


def code_of(namespaces: Namespaces, channel: str) -> int:
    """The error code of a channel name, 0 for a valid one."""
    try:
        namespaces.check_name(channel, namespaces.resolve(channel))
    except CommandError as error:
        return error.code.code
    return 0


@pytest.mark.parametrize(
    ("channel", "namespace"),
    [
        ("news", ""),
        ("news:x", "news"),
        ("$news:x", "news"),
        ("$x", ""),
        ("news:chat:x", "news"),
        ("news:", "news"),
        ("news:#42", "news"),
        ("#42", ""),
    ],
)
def test_first_boundary_ends_the_namespace(channel: str, namespace: str) -> None:
    """The private prefix is removed first. A name without a boundary is in the namespace ""."""
    channels = new_namespaces()
    assert channels.resolve(channel).name == namespace
    assert channels.label(channel) == namespace


@pytest.mark.parametrize("channel", ["sports:x", ":x", "$:x", "$$news:x", "NEWS:x"])
def test_unknown_namespace_is_error_102(channel: str) -> None:
    """It has no label of its own, so clients cannot make metrics grow."""
    channels = new_namespaces()
    assert code_of(channels, channel) == 102
    assert channels.label(channel) == ""


def test_empty_channel_name_is_error_107() -> None:
    """An empty name is no channel."""
    assert code_of(new_namespaces(), "") == 107


def test_empty_boundary_switches_namespaces_off() -> None:
    """The symbols are configurable."""
    channels = new_namespaces(namespace_boundary="")
    assert channels.resolve("sports:x").name == ""
    assert channels.label("news:x") == ""
    assert new_namespaces(namespace_boundary="/").resolve("news/x").name == "news"


@pytest.mark.parametrize(
    ("channel", "code"),
    [
        ("x y~!", 0),
        ("naïve", 107),
        ("$привет", 107),
        ("news:烽火", 107),
        ("chat:abc", 0),
        ("$chat:abc", 0),
        ("chat:abc1", 107),
        ("chat:", 107),
        ("chat:chat:abc", 107),
    ],
)
def test_names_are_ascii_or_match_the_regex_of_their_namespace(channel: str, code: int) -> None:
    """The regular expression is applied to the name after the private prefix and the namespace."""
    assert code_of(new_namespaces(), channel) == code


def test_regex_replaces_the_ascii_rule() -> None:
    """It is searched for, not matched at the start, as in the reference."""
    channels = Namespaces(ChannelOptions(channel_regex="烽火$"), {}, ChannelNameOptions(), 1.0)
    assert code_of(channels, "news烽火") == 0
    assert code_of(channels, "$烽火") == 0
    assert code_of(channels, "烽火!") == 107


def test_name_length_is_counted_in_bytes() -> None:
    """The limit is 255 bytes. A character outside of ASCII has more than one."""
    channels = new_namespaces()
    assert not channels.too_long("x" * 255)
    assert channels.too_long("x" * 256)
    assert channels.too_long("ж" * 128)
    assert not new_namespaces(max_length=300).too_long("x" * 256)


def test_private_channels_begin_with_the_prefix() -> None:
    """With an empty prefix, no channel is private."""
    assert new_namespaces().is_private("$news:x")
    assert not new_namespaces().is_private("news:$x")
    assert not new_namespaces(private_prefix="").is_private("$x")
    assert not new_namespaces(private_prefix="").is_private("x")


@pytest.mark.parametrize(
    ("channel", "users"),
    [
        ("dialog", None),
        ("dialog#42", ["42"]),
        ("dialog#42,43", ["42", "43"]),
        ("a#b#c,d", ["c", "d"]),
        ("#", [""]),
        ("$news:x#7", ["7"]),
    ],
)
def test_user_list_is_after_the_last_boundary(channel: str, users: list[str] | None) -> None:
    """A name without a boundary has no list."""
    assert new_namespaces().allowed_users(channel) == users


def test_user_lists_can_be_switched_off() -> None:
    """With an empty boundary there are no lists. With an empty separator the rest is one user."""
    assert new_namespaces(user_boundary="").allowed_users("dialog#42") is None
    assert new_namespaces(user_separator="").allowed_users("dialog#42,43") == ["42,43"]


def test_personal_channel_lists_exactly_its_user() -> None:
    """This holds with and without a namespace."""
    channels = new_namespaces()
    assert channels.personal("42", "") == "#42"
    assert channels.personal("42", "news") == "news:#42"
    assert channels.allowed_users(channels.personal("42", "news")) == ["42"]


def test_position_is_kept_at_least_as_long_as_publications() -> None:
    """The meta ttl of the namespace counts, else the global one, but at least the ttl of publications."""

    def meta_ttl_s(own: float, ttl: float) -> float:
        options = ChannelOptions(history_size=1, history_ttl=Seconds(ttl), history_meta_ttl=Seconds(own))
        return Namespace("x", options, 100.0).history.meta_ttl_s

    assert meta_ttl_s(own=0, ttl=10) == 100.0
    assert meta_ttl_s(own=50, ttl=10) == 50.0
    assert meta_ttl_s(own=50, ttl=60) == 60.0
    assert meta_ttl_s(own=0, ttl=200) == 200.0


def test_user_id_may_have_the_namespace_boundary() -> None:
    """`#urn:42` is the personal channel of a user, and not a channel of the namespace `#urn`."""
    channels = new_namespaces()
    assert channels.resolve("#urn:42").name == ""
    assert channels.resolve("dialog#urn:42,urn:43").name == ""
    assert channels.resolve("news:dialog#urn:42").name == "news"
    assert channels.label("#urn:42") == ""


@pytest.mark.parametrize("boundary", [":", "", "/"])
def test_nobody_can_name_an_internal_channel(boundary: str) -> None:
    """With any symbols, also without namespaces. Later in a name, the same text has no meaning."""
    channels = new_namespaces(namespace_boundary=boundary)
    internal = channels.internal("revocations")
    assert code_of(channels, internal) == 102
    assert channels.label(internal) == ""
    assert code_of(channels, f"news{boundary}{internal}") == 0


@pytest.mark.parametrize(
    ("channel", "durability"),
    [("orders:1", "disk"), ("news:1", "memory"), ("plain", "memory"), ("unknown:1", "memory")],
)
def test_durability_of_a_channel(channel: str, durability: str) -> None:
    """That of its namespace. A channel of an unknown namespace has no history."""
    history = ChannelOptions(history_size=1, history_ttl=Seconds(9), durability="disk")
    namespaces = Namespaces(
        ChannelOptions(), {"orders": history, "news": ChannelOptions()}, ChannelNameOptions(), history_meta_ttl_s=9.0
    )
    assert namespaces.durability(channel) == durability
