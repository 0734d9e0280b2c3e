"""Resume tickets, sealed with a secret of the servers (implements `policy.tickets.Tickets`).

A ticket is the base64url text of a random salt and an AES-256-GCM ciphertext. It is encrypted and not only signed,
because it holds `meta` of the identity, which clients never see. Each ticket has a key of its own: HMAC-SHA256 of the
salt with a key that HKDF-SHA256 (RFC 5869) derives from the secret. So the nonce may be constant, and the number of
tickets of one secret needs no limit (NIST SP 800-38D section 8.3 limits random nonces of one key to 2**32).

A connection ticket and a subscription ticket have different associated data: neither is accepted as the other.
"""

from __future__ import annotations

import binascii
import hmac
from collections.abc import Callable
from typing import Final, TypeVar

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from msgspec import Raw, Struct

from beaconfire.base.clock import Clock
from beaconfire.model.events import EventSink, LimitHit
from beaconfire.model.grants import SubscriptionGrant, SubscriptionOverride
from beaconfire.model.identity import Identity
from beaconfire.model.publication import NO_PAYLOAD
from beaconfire.policy.tickets import ConnectionTicket, TicketRefused

T = TypeVar("T")

TICKET_LENGTH_MAX: Final = 4096
"""Characters of a ticket. A client whose ticket would be longer gets none, and returns with its token. A longer ticket
is refused before it is decoded."""

SALT_BYTES: Final = 16
RULES_BYTES: Final = 16
_TAG_BYTES: Final = 16
_NONCE: Final = bytes(12)
_CONNECTION: Final = b"beaconfire connection ticket 1"
_SUBSCRIPTION: Final = b"beaconfire subscription ticket 1"
_TO_STANDARD: Final = bytes.maketrans(b"-_+/", b"+/!!")
_TO_URL: Final = bytes.maketrans(b"+/", b"-_")


class _Grant(Struct, frozen=True, array_like=True):
    """A `SubscriptionGrant`. Payloads are bytes here: `Raw` would be MessagePack."""

    info: bytes
    data: bytes
    expire_at_unix_s: float
    client_refresh: bool
    override: SubscriptionOverride | None
    issued_at_unix_s: float | None
    token_id: str


class _Connection(Struct, frozen=True, array_like=True):
    rules: bytes
    until_unix_s: float
    user: str
    info: bytes
    expire_at_unix_s: float
    client_refresh: bool
    channels: dict[str, _Grant]
    data: bytes
    meta: bytes
    issued_at_unix_s: float
    token_id: str
    grants: dict[str, _Grant]


class _Subscription(Struct, frozen=True, array_like=True):
    rules: bytes
    until_unix_s: float
    user: str
    channel: str
    grant: _Grant


_encoder = msgspec.msgpack.Encoder()
_connection_decoder = msgspec.msgpack.Decoder(_Connection)
_subscription_decoder = msgspec.msgpack.Decoder(_Subscription)


class SealedTickets:
    """Makes and reads the tickets of one secret. Another secret makes all earlier tickets void."""

    def __init__(
        self,
        secret: bytes,
        rules: bytes,
        lifetime_s: float,
        clock: Clock,
        events: EventSink,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        """`rules` identifies what decides about rights: a ticket of other rules is refused.

        A ticket lives for `lifetime_s`, and never longer than the decision that it holds. `random_bytes` must be
        suitable for cryptography, like `os.urandom`.
        """
        assert secret, "there is a secret"
        self._key = HKDF(SHA256(), 32, None, b"beaconfire resume tickets 1").derive(secret)
        self._rules = rules[:RULES_BYTES]
        self._lifetime_s = lifetime_s
        self._clock = clock
        self._events = events
        self._random_bytes = random_bytes

    def issue_connection(self, ticket: ConnectionTicket) -> str:
        """An identity without a token gets the present as its time of issue, so that it can be revoked by its user."""
        identity, now_unix_s = ticket.identity, self._clock.unix_s()
        issued_at_unix_s = identity.issued_at_unix_s
        message = _Connection(
            self._rules,
            self._until(now_unix_s, identity.expire_at_unix_s),
            identity.user,
            bytes(identity.info),
            identity.expire_at_unix_s,
            identity.client_refresh,
            {channel: _pack(grant) for channel, grant in identity.channels.items()},
            bytes(identity.data),
            bytes(identity.meta),
            now_unix_s if issued_at_unix_s is None else issued_at_unix_s,
            identity.token_id,
            {channel: _pack(grant) for channel, grant in ticket.grants.items()},
        )
        return self._seal(_encoder.encode(message), _CONNECTION) if message.until_unix_s > now_unix_s else ""

    def issue_subscription(self, user: str, channel: str, grant: SubscriptionGrant) -> str:
        """A grant without a token gets the present as its time of issue, as above."""
        now_unix_s = self._clock.unix_s()
        until_unix_s = self._until(now_unix_s, grant.expire_at_unix_s)
        if grant.issued_at_unix_s is None:
            grant = msgspec.structs.replace(grant, issued_at_unix_s=now_unix_s)
        message = _Subscription(self._rules, until_unix_s, user, channel, _pack(grant))
        return self._seal(_encoder.encode(message), _SUBSCRIPTION) if until_unix_s > now_unix_s else ""

    def read_connection(self, text: str) -> ConnectionTicket:
        message = self._open(text, _CONNECTION, _connection_decoder)
        self._check(message.rules, message.until_unix_s)
        identity = Identity(
            message.user,
            _payload(message.info),
            message.expire_at_unix_s,
            message.client_refresh,
            {channel: _unpack(grant) for channel, grant in message.channels.items()},
            _payload(message.data),
            _payload(message.meta),
            message.issued_at_unix_s,
            message.token_id,
        )
        return ConnectionTicket(identity, {channel: _unpack(grant) for channel, grant in message.grants.items()})

    def read_subscription(self, text: str, user: str, channel: str) -> SubscriptionGrant:
        message = self._open(text, _SUBSCRIPTION, _subscription_decoder)
        self._check(message.rules, message.until_unix_s)
        if message.user != user:
            raise TicketRefused("user")
        if message.channel != channel:
            raise TicketRefused("channel")
        return _unpack(message.grant)

    def _until(self, now_unix_s: float, expire_at_unix_s: float) -> float:
        until_unix_s = now_unix_s + self._lifetime_s
        return min(until_unix_s, expire_at_unix_s) if expire_at_unix_s else until_unix_s

    def _check(self, rules: bytes, until_unix_s: float) -> None:
        if rules != self._rules:
            raise TicketRefused("rules")
        if until_unix_s <= self._clock.unix_s():
            raise TicketRefused("expired")

    def _seal(self, message: bytes, kind: bytes) -> str:
        if (SALT_BYTES + len(message) + _TAG_BYTES) * 4 > TICKET_LENGTH_MAX * 3:
            self._events.emit(LimitHit("ticket_length_max", ""))
            return ""
        salt = self._random_bytes(SALT_BYTES)
        sealed = salt + _cipher(self._key, salt).encrypt(_NONCE, message, kind)
        return binascii.b2a_base64(sealed, newline=False).translate(_TO_URL).rstrip(b"=").decode()

    def _open(self, text: str, kind: bytes, decoder: msgspec.msgpack.Decoder[T]) -> T:
        sealed = _decode_text(text)
        salt, ciphertext = sealed[:SALT_BYTES], sealed[SALT_BYTES:]
        try:
            message = _cipher(self._key, salt).decrypt(_NONCE, ciphertext, kind)
        except InvalidTag:
            raise TicketRefused("forged") from None
        try:
            return decoder.decode(message)
        except msgspec.DecodeError:  # of a version of the server with other fields
            raise TicketRefused("rules") from None


def _decode_text(text: str) -> bytes:
    """Raises TicketRefused unless the text is that of a ticket: encoding the bytes again gives the same text."""
    if len(text) > TICKET_LENGTH_MAX or not text.isascii():
        raise TicketRefused("malformed")
    standard = text.encode().translate(_TO_STANDARD)
    try:
        sealed = binascii.a2b_base64(standard + b"=" * (-len(standard) % 4), strict_mode=True)
    except binascii.Error:
        raise TicketRefused("malformed") from None
    if len(sealed) < SALT_BYTES + _TAG_BYTES or binascii.b2a_base64(sealed, newline=False).rstrip(b"=") != standard:
        raise TicketRefused("malformed")
    return sealed


def _cipher(key: bytes, salt: bytes) -> AESGCM:
    return AESGCM(hmac.digest(key, salt, "sha256"))


def _pack(grant: SubscriptionGrant) -> _Grant:
    return _Grant(
        bytes(grant.info),
        bytes(grant.data),
        grant.expire_at_unix_s,
        grant.client_refresh,
        grant.override,
        grant.issued_at_unix_s,
        grant.token_id,
    )


def _unpack(grant: _Grant) -> SubscriptionGrant:
    return SubscriptionGrant(
        _payload(grant.info),
        _payload(grant.data),
        grant.expire_at_unix_s,
        grant.client_refresh,
        grant.override,
        grant.issued_at_unix_s,
        grant.token_id,
    )


def _payload(data: bytes) -> Raw:
    return Raw(data) if data else NO_PAYLOAD
