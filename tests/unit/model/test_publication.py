"""Payloads."""

from __future__ import annotations

from beaconfire.model.publication import NO_PAYLOAD, to_payload


def test_empty_bytes_become_NO_PAYLOAD() -> None:
    """Encoders omit a payload only if it is this object."""
    assert to_payload(b"") is NO_PAYLOAD
    assert bytes(to_payload(b"{}")) == b"{}"
