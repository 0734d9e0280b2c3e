"""Keys that are written in the settings themselves, and checks of the settings of tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from msgspec import Struct

from beaconfire.auth.algorithms import HMAC, VerificationKey, hmac_key, pem_key
from beaconfire.auth.options import TokenOptions

HMAC_SECRET_BYTES_MIN: Final = 32
"""RFC 7518 section 3.2 requires as many bytes as the digest has. Shorter secrets work, but cause a warning."""

_PEM_OPTIONS: Final = ("rsa_public_key", "ecdsa_public_key", "eddsa_public_key")


class _StaticKey(Struct, frozen=True):
    key: VerificationKey
    until_unix_s: float = float("inf")


class StaticKeys:
    """The secrets and public keys in one section of the settings, by algorithm."""

    __slots__ = ("_keys",)

    def __init__(self, options: TokenOptions, section: str) -> None:
        """Raises ValueError that lists all problems if `options` are not valid."""
        if problems := option_problems(options):
            raise ValueError("\n".join(f"{section}.{option}: {text}" for option, text in problems))
        self._keys: dict[str, tuple[_StaticKey, ...]] = {}
        if options.hmac_secret:
            self._add(VerificationKey(hmac_key(options.hmac_secret), HMAC, f"{section}.hmac_secret"))
        if options.hmac_previous_secret:
            previous = VerificationKey(hmac_key(options.hmac_previous_secret), HMAC, f"{section}.hmac_previous_secret")
            self._add(previous, options.hmac_previous_secret_valid_until or float("inf"))
        for option in _PEM_OPTIONS:
            if pem := getattr(options, option):
                self._add(pem_key(pem, option, f"{section}.{option}"))

    def _add(self, key: VerificationKey, until_unix_s: float = float("inf")) -> None:
        for algorithm in key.algorithms:
            self._keys[algorithm] = (*self._keys.get(algorithm, ()), _StaticKey(key, until_unix_s))

    def valid_for(self, algorithm: str, now_unix_s: float) -> list[VerificationKey]:
        """The keys that may be used with `algorithm` now, the preferred one first."""
        return [static.key for static in self._keys.get(algorithm, ()) if now_unix_s < static.until_unix_s]


def option_problems(options: TokenOptions) -> list[tuple[str, str]]:
    """Why `options` cannot be used: pairs of the option's name and what was expected, with the remedy."""
    problems: list[tuple[str, str]] = []

    def check_option(option: str, check: Callable[[], object]) -> None:
        if getattr(options, option):
            try:
                check()
            except ValueError as error:
                problems.append((option, str(error)))

    check_option("hmac_secret", lambda: hmac_key(options.hmac_secret))
    check_option("hmac_previous_secret", lambda: hmac_key(options.hmac_previous_secret))
    if options.hmac_previous_secret and not options.hmac_secret:
        text = "expected hmac_secret to be set, too; a single secret belongs in hmac_secret"
        problems.append(("hmac_previous_secret", text))
    check_option("rsa_public_key", lambda: pem_key(options.rsa_public_key, "rsa_public_key", ""))
    check_option("ecdsa_public_key", lambda: pem_key(options.ecdsa_public_key, "ecdsa_public_key", ""))
    check_option("eddsa_public_key", lambda: pem_key(options.eddsa_public_key, "eddsa_public_key", ""))
    check_option("jwks_url", lambda: check_url(options.jwks_url))
    if options.jwks_url and not options.jwks_timeout:
        problems.append(("jwks_timeout", "expected a duration above zero, because jwks_url is set"))
    return problems


def option_weaknesses(options: TokenOptions) -> list[tuple[str, str]]:
    """Options that work but should not be used in production: pairs of the option's name and the reason."""
    weaknesses = [
        (
            option,
            f"is shorter than {HMAC_SECRET_BYTES_MIN} bytes: anyone who has one token can find the secret by trying",
        )
        for option in ("hmac_secret", "hmac_previous_secret")
        if 0 < len(getattr(options, option).encode()) < HMAC_SECRET_BYTES_MIN
    ]
    if options.jwks_url.startswith("http:"):
        weaknesses.append(("jwks_url", "is not https: anyone on the network path can replace the keys"))
    return weaknesses


def check_url(url: str) -> None:
    """Raises ValueError if `url` is not an http or https address."""
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # an unclosed bracket, a port that is not a number
        valid = False
    if not valid:
        raise ValueError("expected an http or https address like https://example.com/.well-known/jwks.json")
