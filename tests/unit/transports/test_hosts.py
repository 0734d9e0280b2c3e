"""Which values a Host header field may have."""

from __future__ import annotations

import pytest

from beaconfire.transports import hosts


@pytest.mark.parametrize(
    ("value", "valid"),
    [
        (b"example.com", True),
        (b"example.com:8000", True),
        (b"example.com:", True),
        (b"example.com ", True),
        (b"my_service", True),
        (b"127.0.0.1:80", True),
        (b"[::1]", True),
        (b"[fe80::1%25eth0]:8000", True),
        (b"b%C3%BCcher.example", True),
        (b"", True),
        (b"a b", False),
        (b"a, b", False),
        (b"a/b", False),
        (b"user@a", False),
        (b"a:b", False),
        (b"a:80:80", False),
        (b"::1", False),
        (b"[::1", False),
        (b"a%2", False),
        (b"b\xc3\xbccher.example", False),
        (b"a\n", False),
        (b"http://a", False),
        (b"x" * 32_000 + b"/", False),
    ],
)
def test_hosts(value: bytes, valid: bool) -> None:
    """A name or an address, and perhaps a port (RFC 9110 section 7.2), or nothing."""
    assert hosts.is_valid(value) is valid
