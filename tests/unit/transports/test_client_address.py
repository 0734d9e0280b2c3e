"""The address of a client, with and without proxies."""

from __future__ import annotations

import pytest

from beaconfire.transports.client_address import ClientAddresses


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        (("192.0.2.1", 50000), "192.0.2.1"),
        (("2001:db8::1", 50000, 0, 0), "2001:db8::1"),
        ("", ""),
        (b"\0abstract", ""),
        (None, ""),
    ],
)
@pytest.mark.parametrize("trusted", [[], ["127.0.0.1"]])
def test_address_of_the_peer(peer: object, address: str, trusted: list[str]) -> None:
    """Empty for Unix sockets, whose peers are texts or bytes. Headers of others than trusted proxies are ignored."""
    assert ClientAddresses(trusted).find(peer, [(b"x-forwarded-for", b"203.0.113.7")]) == address
