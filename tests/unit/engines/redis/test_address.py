"""The URL of the servers: which forms there are, and what is said about others."""

from __future__ import annotations

import pytest

from beaconfire.engines.redis.address import Address, Host, parse_address


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://localhost", Address(kind="single", hosts=(Host("localhost", 6379),))),
        ("REDIS://10.0.0.1:7000/3", Address(kind="single", hosts=(Host("10.0.0.1", 7000),), database=3)),
        (
            "rediss://ann:s%40fe@[::1]:7000?ca_file=/ca.pem",
            Address(
                kind="single",
                hosts=(Host("::1", 7000),),
                username="ann",
                password="s@fe",
                tls=True,
                ca_file="/ca.pem",
            ),
        ),
        (
            "redis+sentinel://:word@a,b:1/main/2?sentinel_password=other",
            Address(
                kind="sentinel",
                hosts=(Host("a", 26379), Host("b", 1)),
                master_name="main",
                database=2,
                password="word",
                sentinel_password="other",
            ),
        ),
        ("rediss+cluster://a:1,b:2", Address(kind="cluster", hosts=(Host("a", 1), Host("b", 2)), tls=True)),
    ],
)
def test_forms_of_the_url(url: str, address: Address) -> None:
    """A single server, sentinels with the name of their master, or nodes of a cluster; each also with TLS."""
    assert parse_address(url) == address


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("", "expected redis://"),
        ("http://localhost", "expected redis://"),
        ("localhost:6379", "expected redis://"),
        ("redis://", "expected host:port"),
        ("redis://host:0", "expected host:port"),
        ("redis://host:66000", "expected host:port"),
        ("redis://host:port", "expected host:port"),
        ("redis://a,b", "several hosts need the scheme"),
        ("redis://host/three", "number of a database"),
        ("redis://host/1/2", "number of a database"),
        ("redis+sentinel://host", "name of the master is missing"),
        ("redis+cluster://host/1", "a cluster has no databases"),
        ("redis://host?timeout=3", "unknown option 'timeout'"),
        ("redis://[::1", "expected redis://"),
    ],
)
def test_other_urls_are_refused(url: str, problem: str) -> None:
    """The message says what is expected."""
    with pytest.raises(ValueError) as refused:
        parse_address(url)
    assert problem in str(refused.value)


def test_the_password_is_never_shown() -> None:
    """Neither in logs nor in messages."""
    address = parse_address("redis+sentinel://ann:secret@a,b:1/main/2?sentinel_password=secret")
    assert str(address) == "redis+sentinel://a:26379,b:1/main/2"
    assert "secret" not in repr(address)
    for url in ("redis://ann:secret@host:x", "http://ann:secret@host", "redis://:secret@host/x"):
        with pytest.raises(ValueError) as refused:
            parse_address(url)
        assert "secret" not in str(refused.value)


def test_hosts_as_text() -> None:
    """An address of version 6 is in brackets."""
    assert [str(Host("a", 1)), str(Host("::1", 2))] == ["a:1", "[::1]:2"]
