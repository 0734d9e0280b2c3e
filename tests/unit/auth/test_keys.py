"""API keys."""

from __future__ import annotations

import hmac

import pytest

from beaconfire.auth.keys import ApiKeys


@pytest.mark.parametrize(
    ("candidate", "accepted"),
    [
        ("api_key", True),
        ("second_key", True),
        ("ключ-密钥", True),
        ("", False),
        ("api_ke", False),
        ("api_key ", False),
        ("API_KEY", False),
        ("api_key\0", False),
        ("x" * 100_000, False),
        ("\udcff", False),
    ],
)
def test_only_listed_keys_are_accepted(candidate: str, accepted: bool) -> None:
    """A listed key is accepted if it is exactly equal; any other header value is a wrong key."""
    assert ApiKeys(["api_key", "second_key", "ключ-密钥"]).accepts(candidate) is accepted


def test_without_keys_nothing_is_accepted() -> None:
    """An empty list does not open the server API."""
    assert not ApiKeys([]).accepts("")
    assert not ApiKeys([]).accepts("api_key")


@pytest.mark.parametrize("key", ["", " ", "\t\n"])
def test_an_empty_key_is_refused_at_start(key: str) -> None:
    """A blank entry would accept a blank header."""
    with pytest.raises(ValueError, match=r"^api\.keys\[1\]: expected a secret"):
        ApiKeys(["api_key", key])


def test_every_key_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no early exit: the number of comparisons does not reveal which key matched, or whether one did."""
    compared: list[int] = []

    def compare(left: bytes, right: bytes) -> bool:
        compared.append(len(left) - len(right))
        return left == right

    keys = ApiKeys(["a", "bb", "ccc"])
    monkeypatch.setattr(hmac, "compare_digest", compare)
    for candidate in ("a", "bb", "ccc", "nothing"):
        compared.clear()
        keys.accepts(candidate)
        assert compared == [0, 0, 0]
