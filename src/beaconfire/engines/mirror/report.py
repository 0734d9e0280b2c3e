"""The verification of a migration that runs."""

from __future__ import annotations

from msgspec import field

from beaconfire.engines.copying import VerificationReport
from beaconfire.engines.migration import Verification


class Report(VerificationReport, kw_only=True):
    """What was found so far. `number` is that of the verification.

    `cursor` is where the channels of the old engine continue. `unseen` are channels that were loaded, and that the old
    engine has not listed yet.
    """

    number: int
    cursor: str = ""
    unseen: set[str] = field(default_factory=set)

    def result(self) -> Verification:
        """The result at the end."""
        return Verification(self.number, self.old.freeze(), self.new.freeze(), self.different, list(self.listed))
