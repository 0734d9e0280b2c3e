"""The tokens that are void before they expire.

Each revocation has a key: a token id, a user, or a user together with a channel. Only the moment up to which tokens are
void, and the end of the revocation, are kept for a key. To add the same revocation twice, or two revocations in another
order, has the same result. So nodes may learn revocations from history and from announcements in any order.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from msgspec import Struct

from beaconfire.base.clock import Clock
from beaconfire.base.errors import INTERNAL, TOKEN_EXPIRED, CommandError
from beaconfire.model.events import EventSink, RevocationApplied
from beaconfire.model.grants import SubscriptionGrant
from beaconfire.model.identity import Identity

REVOCATIONS_MAX: Final = 100_000
"""How many revocations are kept. Each takes about 0.4 KiB of memory on every node, and about as much in the engine."""

LIFETIME_MAX_S: Final = 365 * 86400
"""How long a revocation is kept at most: one year."""

Key: TypeAlias = tuple[str, str, str]
"""User, channel and token id. Those that do not belong to the revocation are empty."""


class Revocation(Struct, frozen=True, omit_defaults=True):
    """Void tokens: that with `token_id`, or those of `user` that were issued up to `issued_until_unix_s`.

    With `channel`, the subscription tokens of the user for this channel are void, and connection tokens that subscribe
    the user to this channel. Without it, the connection tokens and subscription tokens of the user are void. The
    revocation ends at `expire_at_unix_s`. The encoding of this struct is stored and sent to other nodes.
    """

    expire_at_unix_s: float
    issued_until_unix_s: float = 0.0
    user: str = ""
    channel: str = ""
    token_id: str = ""

    @property
    def key(self) -> Key:
        return (self.user, self.channel, self.token_id)


class Kept(Struct, frozen=True):
    """What is kept for a key. `offset` is the place of the newest revocation with this key in the stream of nodes."""

    expire_at_unix_s: float
    issued_until_unix_s: float
    offset: int


class Revocations:
    """The revocations that this node knows. A look-up costs the same for any number of them.

    `are_known` is false while revocations may be missing: the node has just started, or was cut off. Then no token is
    accepted.
    """

    def __init__(self, clock: Clock, events: EventSink, limit: int = REVOCATIONS_MAX) -> None:
        self.are_known = True
        self.limit = limit
        self._clock = clock
        self._events = events
        self._kept: dict[Key, Kept] = {}
        """In the order of offsets, as far as revocations have come in this order."""

    def __len__(self) -> int:
        return len(self._kept)

    def is_full_for(self, key: Key) -> bool:
        """Whether one more revocation with this key would be too many."""
        return len(self._kept) >= self.limit and key not in self._kept

    def add(self, revocation: Revocation, offset: int) -> bool:
        """Adds a revocation, unless it has ended. Returns whether tokens are void that were not void before.

        For a known key, the later moment and the later end count.
        """
        now_unix_s, key = self._clock.unix_s(), revocation.key
        known = self._kept.pop(key, None)
        if known is None or known.expire_at_unix_s <= now_unix_s:
            if revocation.expire_at_unix_s <= now_unix_s:
                return False
            self._kept[key] = Kept(revocation.expire_at_unix_s, revocation.issued_until_unix_s, offset)
            return True
        self._kept[key] = Kept(
            max(known.expire_at_unix_s, revocation.expire_at_unix_s),
            max(known.issued_until_unix_s, revocation.issued_until_unix_s),
            max(known.offset, offset),
        )
        return revocation.issued_until_unix_s > known.issued_until_unix_s

    def remove_ended(self) -> None:
        """Frees the memory of revocations that have ended. Takes about 4 ms for the largest number of revocations."""
        now_unix_s = self._clock.unix_s()
        for key in [key for key, kept in self._kept.items() if kept.expire_at_unix_s <= now_unix_s]:
            del self._kept[key]

    def oldest(self) -> tuple[int, Revocation] | None:
        """The revocation with the lowest offset, and that offset. None if there are no revocations."""
        for (user, channel, token_id), kept in self._kept.items():
            revocation = Revocation(kept.expire_at_unix_s, kept.issued_until_unix_s, user, channel, token_id)
            return kept.offset, revocation
        return None

    # Look-ups

    def revokes_session(self, identity: Identity) -> bool:
        """Whether the connection token of this identity is void. False for an identity without a token."""
        issued_at_unix_s = identity.issued_at_unix_s
        if issued_at_unix_s is None or not self._kept:
            return False
        return self._revokes(identity.user, issued_at_unix_s, identity.token_id) or any(
            self._applies((identity.user, channel, ""), issued_at_unix_s) for channel in identity.channels
        )

    def revokes_subscription(self, user: str, channel: str, grant: SubscriptionGrant) -> bool:
        """Whether the subscription token of this grant is void. False for a grant without a token."""
        issued_at_unix_s = grant.issued_at_unix_s
        if issued_at_unix_s is None or not self._kept:
            return False
        return self._revokes(user, issued_at_unix_s, grant.token_id) or self._applies(
            (user, channel, ""), issued_at_unix_s
        )

    def _revokes(self, user: str, issued_at_unix_s: float, token_id: str) -> bool:
        return self._applies((user, "", ""), issued_at_unix_s) or (
            bool(token_id) and self._applies(("", "", token_id), 0.0)
        )

    def _applies(self, key: Key, issued_at_unix_s: float) -> bool:
        kept = self._kept.get(key)
        return (
            kept is not None
            and issued_at_unix_s <= kept.issued_until_unix_s
            and kept.expire_at_unix_s > self._clock.unix_s()
        )

    # Checks

    def check_identity(self, identity: Identity) -> None:
        """Raises CommandError 109 if the connection token is void, and 100 while revocations may be missing."""
        if identity.issued_at_unix_s is None:
            return
        self._check_known()
        if self.revokes_session(identity):
            self._refuse()

    def check_grant(self, user: str, channel: str, grant: SubscriptionGrant) -> None:
        """Raises CommandError 109 if the subscription token is void, and 100 while revocations may be missing."""
        if grant.issued_at_unix_s is None:
            return
        self._check_known()
        if self.revokes_subscription(user, channel, grant):
            self._refuse()

    def _check_known(self) -> None:
        if not self.are_known:
            raise CommandError(INTERNAL, "this node does not know all revoked tokens at the moment: try again")

    def _refuse(self) -> None:
        self._events.emit(RevocationApplied("token"))
        raise CommandError(TOKEN_EXPIRED, "the token was revoked: get a new token")
