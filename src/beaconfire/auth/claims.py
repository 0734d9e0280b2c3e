"""Converts the claims of a verified token to model types, and checks them against the settings and the clock.

There are two rules for `null`. If a claim restricts the token (`sub`, `exp`, `nbf`, `client`, …), null is the wrong
type: a missing claim would allow more. If a claim adds something (`info`, `channels`, `subs`, …) or has no effect
(`iat`), null counts as missing, because many serializers write null for an empty field.

The claims are those of Centrifuge JWTs (section 17 of the protocol reference) and of RFC 7519 section 4.1.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import TypeAlias, TypeVar

import msgspec
from msgspec import Raw, Struct

from beaconfire.auth.options import TokenOptions
from beaconfire.model.grants import SubscriptionClaims, SubscriptionGrant, SubscriptionOverride
from beaconfire.model.identity import Identity
from beaconfire.model.publication import NO_PAYLOAD
from beaconfire.policy.tokens import TokenExpired, TokenInvalid

Claims: TypeAlias = Mapping[str, Raw]
"""The JSON text of every claim, by name: valid JSON in valid UTF-8."""

T = TypeVar("T")


class _Flag(Struct, frozen=True):
    value: bool


class _Override(Struct, frozen=True):
    presence: _Flag | None = None
    join_leave: _Flag | None = None
    force_recovery: _Flag | None = None
    force_positioning: _Flag | None = None
    force_push_join_leave: _Flag | None = None


_CLAIMS = msgspec.json.Decoder(dict[str, Raw])
_TEXT = msgspec.json.Decoder(str)
_NUMBER = msgspec.json.Decoder(float)
_TEXTS = msgspec.json.Decoder(list[str])
_AUDIENCE = msgspec.json.Decoder(str | list[str])
_OVERRIDE = msgspec.json.Decoder(_Override)


def parse_claims(payload: bytes) -> Claims:
    """Raises TokenInvalid if the payload is not a JSON object in UTF-8."""
    try:
        payload.decode()  # raw claims are sent to clients unchanged, so this is the only check of their encoding
        return _CLAIMS.decode(payload)
    except (ValueError, RecursionError):
        raise TokenInvalid("token payload is malformed: expected a JSON object in UTF-8") from None


def read_identity(claims: Claims, options: TokenOptions) -> Identity:
    """The identity in a connection token. Raises TokenInvalid. Does not check times, issuer and audience."""
    if _optional_text(claims, "channel"):
        raise TokenInvalid("claim channel must not be in a connection token; this is a subscription token")
    expire_at_unix_s = _lifetime_end(claims, options)
    return Identity(
        user=_user(claims, options),
        info=_payload(claims, "info", ""),
        expire_at_unix_s=expire_at_unix_s,
        client_refresh=expire_at_unix_s > 0,
        channels=_channels(claims),
        meta=_meta(claims),
        issued_at_unix_s=_issued_at(claims),
        token_id=_token_id(claims),
    )


def read_subscription(claims: Claims, options: TokenOptions) -> SubscriptionClaims:
    """The permission in a subscription token. Raises TokenInvalid. Does not check times, issuer and audience."""
    channel = _decoded(claims, "channel", "", _TEXT, "a string") if "channel" in claims else ""
    if not channel:
        raise TokenInvalid("claim channel is missing; expected the channel this subscription token is for")
    expire_at_unix_s = _lifetime_end(claims, options)
    return SubscriptionClaims(
        user=_user(claims, options),
        channel=channel,
        grant=SubscriptionGrant(
            info=_payload(claims, "info", ""),
            data=_payload(claims, "data", ""),
            expire_at_unix_s=expire_at_unix_s,
            client_refresh=expire_at_unix_s > 0,
            override=_override(claims, ""),
            issued_at_unix_s=_issued_at(claims),
            token_id=_token_id(claims),
            client=_decoded(claims, "client", "", _TEXT, "a string") if "client" in claims else "",
        ),
    )


def check_claims(claims: Claims, options: TokenOptions, now_unix_s: float) -> None:
    """Raises TokenInvalid for a wrong audience, issuer or `nbf`, then TokenExpired for `exp`.

    `iat` is not compared with the clock: RFC 7519 section 4.1.6 defines it as information about the age of a token, and
    a backend whose clock is a few milliseconds ahead would lock out its users permanently.

    The expiry is checked last, because TokenExpired means that a newer token of the same kind is accepted.
    """
    if options.audience:
        audience = _decoded(claims, "aud", "", _AUDIENCE, "a string or a list of strings") if "aud" in claims else []
        if options.audience not in ([audience] if isinstance(audience, str) else audience):
            raise TokenInvalid(f"claim aud does not name the audience {options.audience!r}")
    if options.issuer:
        issuer = _decoded(claims, "iss", "", _TEXT, "a string") if "iss" in claims else ""
        if issuer != options.issuer:
            raise TokenInvalid(f"claim iss is not the issuer {options.issuer!r}")
    if (ahead_s := _time(claims, "nbf", now_unix_s) - now_unix_s) > options.leeway:
        raise TokenInvalid(f"claim nbf is {ahead_s:.0f} s in the future; if only the clocks differ, set leeway")
    if _time(claims, "exp", float("inf")) <= now_unix_s - options.leeway:
        raise TokenExpired(f"claim exp: the token expired {now_unix_s - _time(claims, 'exp', 0):.0f} s ago")


# --- single claims -----------------------------------------------------------------------------------------------


def _user(claims: Claims, options: TokenOptions) -> str:
    """The user id; empty, which is the anonymous user, if the token has none."""
    name = options.user_id_claim or "sub"
    return _decoded(claims, name, "", _TEXT, "a string") if name in claims else ""


def _lifetime_end(claims: Claims, options: TokenOptions) -> float:
    """The unix time at which the session or subscription expires; 0 is never. `expire_at` overrides `exp`.

    The leeway is added here, too: a token that is accepted within the leeway must not start an expired session.
    """
    if "expire_at" not in claims:
        return _time(claims, "exp", 0.0) + options.leeway if "exp" in claims else 0.0
    expire_at_unix_s = _time(claims, "expire_at", 0.0)
    if expire_at_unix_s < 0:
        raise TokenInvalid("claim expire_at must be a unix time, or 0 for never")
    return expire_at_unix_s


def _time(claims: Claims, name: str, default: float) -> float:
    return _decoded(claims, name, "", _NUMBER, "a number (unix time)") if name in claims else default


def _issued_at(claims: Claims) -> float:
    """The unix time of `iat`; 0 if the token has none."""
    return _time(claims, "iat", 0.0) if _given(claims, "iat") else 0.0


def _token_id(claims: Claims) -> str:
    """`jti`; "" if the token has none. RFC 7519 section 4.1.7 says a string. The JSON text of any other value counts,
    so that such tokens stay valid and can be revoked."""
    if not _given(claims, "jti"):
        return ""
    text = bytes(claims["jti"]).decode()
    return _decoded(claims, "jti", "", _TEXT, "a string") if text.startswith('"') else text


def _channels(claims: Claims) -> dict[str, SubscriptionGrant]:
    """The server-side subscriptions of `channels` and `subs`. If both name a channel, `subs` wins."""
    channels: dict[str, SubscriptionGrant] = {}
    if _given(claims, "channels"):
        names = _decoded(claims, "channels", "", _TEXTS, "a list of strings")
        channels.update(dict.fromkeys(names, SubscriptionGrant()))
    if _given(claims, "subs"):
        entries = _decoded(claims, "subs", "", _CLAIMS, "an object of channels")
        for name in entries:
            where = f"subs[{name!r}]."
            members = _decoded(entries, name, "subs.", _CLAIMS, "an object") if _given(entries, name) else {}
            channels[name] = SubscriptionGrant(
                info=_payload(members, "info", where),
                data=_payload(members, "data", where),
                override=_override(members, where),
            )
    if "" in channels:
        raise TokenInvalid("claims channels and subs must not hold an empty channel name")
    return channels


def _payload(claims: Claims, name: str, where: str) -> Raw:
    """`info` or `data`: bytes in base64 (`b64info`) or JSON. Base64 wins if both are present."""
    if _given(claims, f"b64{name}"):
        text = _decoded(claims, f"b64{name}", where, _TEXT, "a base64 string")
        try:
            decoded = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise TokenInvalid(f"claim {where}b64{name} must be standard base64 with padding") from None
        if decoded:
            return Raw(decoded)
    return _json(claims, name)


def _json(claims: Claims, name: str) -> Raw:
    """The JSON text of the claim on one line: JSON clients get one message per line.

    In valid JSON a line end is always whitespace between tokens, so removing it does not change the value. The result
    is a copy, so that it does not keep the whole payload in memory.
    """
    return Raw(bytes(claims[name]).translate(None, b"\r\n")) if _given(claims, name) else NO_PAYLOAD


def _meta(claims: Claims) -> Raw:
    meta = _json(claims, "meta")
    if meta is not NO_PAYLOAD and not bytes(meta).startswith(b"{"):
        raise TokenInvalid(f"claim meta must be an object; it is {_kind(meta)}")
    return meta


def _override(claims: Claims, where: str) -> SubscriptionOverride | None:
    if not _given(claims, "override"):
        return None
    flags = _decoded(claims, "override", where, _OVERRIDE, 'an object like {"presence": {"value": true}}')
    return SubscriptionOverride(
        **{name: flag.value for name in _Override.__struct_fields__ if (flag := getattr(flags, name)) is not None}
    )


# --- helpers -----------------------------------------------------------------------------------------------------


def _given(claims: Claims, name: str) -> bool:
    """Whether an optional claim is present. Null counts as missing."""
    return name in claims and bytes(claims[name]) != b"null"


def _optional_text(claims: Claims, name: str) -> str:
    return _decoded(claims, name, "", _TEXT, "a string") if _given(claims, name) else ""


def _decoded(claims: Claims, name: str, where: str, decoder: msgspec.json.Decoder[T], expected: str) -> T:
    """The value of a present claim. Raises TokenInvalid that names the claim and the types, but not the value."""
    try:
        return decoder.decode(claims[name])
    except (ValueError, RecursionError):
        kind = _kind(claims[name])
        raise TokenInvalid(f"claim {where}{name} must be {expected}; it is {kind}") from None


_KINDS = {'"': "a string", "{": "an object", "[": "a list", "t": "a boolean", "f": "a boolean", "n": "null"}


def _kind(value: Raw) -> str:
    return _KINDS.get(chr(bytes(value)[0]), "a number")
