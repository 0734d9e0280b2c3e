"""The failure of a simulation."""

from __future__ import annotations


class BrokenGuarantee(AssertionError):
    """A client received something that the delivery guarantees exclude, or did not receive something that it should."""
