"""Makes the resume tickets of this server: from which secret, and of which rules."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256

import msgspec

from beaconfire.auth.tickets import SealedTickets
from beaconfire.base.clock import Clock
from beaconfire.config import Config
from beaconfire.model.events import EventSink


def make_tickets(
    config: Config,
    version: str | None,
    random_secret: bytes,
    clock: Clock,
    events: EventSink,
    random_bytes: Callable[[int], bytes],
) -> SealedTickets | None:
    """None if `client.ticket_lifetime` is 0, or if `version`, the `ticket_version` of the policies, is None.

    Without a configured secret, `random_secret` is used. A key of its own is derived from the secret, so a secret of
    tokens can serve for tickets as well.
    """
    lifetime_s = float(config.client.ticket_lifetime)
    if version is None or not lifetime_s:
        return None
    configured = config.client.ticket_secret or config.token.hmac_secret
    secret = configured.encode() or random_secret
    return SealedTickets(secret, _rules(config, version), lifetime_s, clock, events, random_bytes)


def _rules(config: Config, version: str) -> bytes:
    """A hash of all that decides who may connect and subscribe. After a change every client needs its token again.

    `Seconds` and `Size` are encoded as numbers.
    """
    client = config.client
    rules = [
        version,
        config.channel_names,
        config.channel,
        config.namespaces,
        config.token,
        config.subscription_token,
        client.insecure,
        client.allow_anonymous,
        client.disallow_anonymous_connection_tokens,
        client.user_personal_channel,
        client.user_personal_channel_namespace,
    ]
    return sha256(msgspec.json.encode(rules, enc_hook=float, order="sorted")).digest()
