"""The supported signature algorithms, and the keys that fit them.

A token names its own algorithm, so the algorithm must never decide how a key is used. Instead, every key has a list of
the algorithms it may be used with (RFC 8725 section 3.1), and a key verifies a signature only if the token's algorithm
is on this list. So a public key is never used as an HMAC secret, and `none` is on no list. PyJWT computes and verifies
the signatures.
"""

from __future__ import annotations

import binascii
from typing import Final, TypeAlias

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt import InvalidKeyError, PyJWS
from jwt.algorithms import HMACAlgorithm
from msgspec import UNSET, Raw, Struct, UnsetType

from beaconfire.policy.tokens import TokenInvalid

HMAC: Final = ("HS256", "HS384", "HS512")
RSA: Final = ("RS256", "RS384", "RS512")
EDDSA: Final = ("EdDSA",)
ECDSA_BY_CURVE: Final = {"secp256r1": ("ES256",), "secp384r1": ("ES384",), "secp521r1": ("ES512",)}
"""Each elliptic-curve algorithm requires one curve (RFC 7518 section 3.4)."""
ECDSA: Final = ("ES256", "ES384", "ES512")

OPTION_OF: Final = (
    dict.fromkeys(HMAC, "hmac_secret")
    | dict.fromkeys(RSA, "rsa_public_key")
    | dict.fromkeys(ECDSA, "ecdsa_public_key")
    | dict.fromkeys(EDDSA, "eddsa_public_key")
)
"""Every supported algorithm, with the option that contains its key."""

TOKEN_LENGTH_MAX: Final = 16 * 1024
"""Characters of a token. A longer token is refused before it is parsed."""

RSA_BITS_MIN: Final = 2048
"""RFC 7518 section 3.3: a smaller RSA key must not be used."""

PublicKey: TypeAlias = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey


class SignatureMismatch(TokenInvalid):
    """The key did not sign the token. Another key may have signed it."""


class VerificationKey(Struct, frozen=True):
    """A key, and the only algorithms it may be used with. `source` is the name of the key in error texts."""

    key: bytes | PublicKey
    algorithms: tuple[str, ...]
    source: str


class TokenHeader(Struct, frozen=True):
    """The header of a token that is not verified yet. Use it to select a key, and for nothing else."""

    alg: str
    kid: str | None = None
    b64: Raw | UnsetType = UNSET
    crit: Raw | UnsetType = UNSET


class UnverifiedToken(Struct, frozen=True):
    """The parts of a token that is not verified yet: well-formed, but not trustworthy."""

    header: TokenHeader
    payload: bytes
    signature: bytes
    signed: bytes
    """The text that was signed."""


class _CheckedSecretHMAC(HMACAlgorithm):
    """HMAC with a secret that `hmac_key` has checked once. PyJWT would check it, and warn, for every token."""

    def prepare_key(self, key: str | bytes) -> bytes:
        if not isinstance(key, bytes):
            raise InvalidKeyError("an HMAC secret must come from hmac_key")
        return key

    def check_key_length(self, key: bytes) -> str | None:
        return None


def make_jws() -> PyJWS:
    """Signs and verifies with exactly the algorithms in the table. HMAC secrets must come from `hmac_key`."""
    jws = PyJWS(algorithms=[*RSA, *ECDSA, *EDDSA])
    for algorithm, digest in zip(HMAC, (HMACAlgorithm.SHA256, HMACAlgorithm.SHA384, HMACAlgorithm.SHA512), strict=True):
        jws.register_algorithm(algorithm, _CheckedSecretHMAC(digest))
    return jws


_JWS = make_jws()
_ALGORITHMS = {name: _JWS.get_algorithm_by_name(name) for name in OPTION_OF}
_HEADER = msgspec.json.Decoder(TokenHeader)

_TO_STANDARD = bytes.maketrans(b"-_+/", b"+/!!")
"""Maps base64url to base64. `+` and `/`, which base64url does not contain, become invalid characters."""


def read_token(token: str) -> UnverifiedToken:
    """Splits and decodes a token. Raises TokenInvalid if it is too long, malformed, or requires an extension.

    PyJWT could do this, too, but it inspects each character in Python and repeats this for every key, which would be
    most of the cost of a connect.
    """
    if len(token) > TOKEN_LENGTH_MAX:
        raise TokenInvalid(f"token is longer than {TOKEN_LENGTH_MAX} characters")
    if not token.isascii() or token.count(".") != 2:
        raise TokenInvalid("token is malformed: expected three base64url parts joined by dots")
    signed, _, signature = token.encode().rpartition(b".")
    head, _, payload = signed.partition(b".")
    try:
        header = _HEADER.decode(_decode_part(head))
    except (ValueError, RecursionError):
        raise TokenInvalid("token header is malformed: expected a JSON object with the strings alg and kid") from None
    if header.crit is not UNSET or (header.b64 is not UNSET and bytes(header.b64) != b"true"):
        # RFC 7515 section 4.1.11: a critical extension that is not supported makes the token invalid. None is.
        raise TokenInvalid("token header asks for an extension that is not supported")
    try:
        return UnverifiedToken(header, _decode_part(payload), _decode_part(signature), signed)
    except ValueError:
        raise TokenInvalid("token is malformed: payload and signature must be base64url") from None


def _decode_part(part: bytes) -> bytes:
    """Decodes base64url with or without padding. Raises ValueError unless encoding the result gives the same text.

    The decoder of the standard library skips unknown characters and ignores spare bits.
    """
    standard = part.translate(_TO_STANDARD)
    decoded = binascii.a2b_base64(standard + b"==")
    encoded = binascii.b2a_base64(decoded, newline=False)
    if standard != encoded and standard != encoded.rstrip(b"="):
        raise ValueError("not base64url")
    return decoded


def verified_payload(token: UnverifiedToken, key: VerificationKey) -> bytes:
    """The payload of a token that `key` signed.

    Raises SignatureMismatch if `key` did not sign it, TokenInvalid if `key` may not be used with its algorithm.
    """
    if token.header.alg not in key.algorithms:
        raise TokenInvalid(f"alg {token.header.alg} does not fit {key.source}")
    if not _ALGORITHMS[token.header.alg].verify(token.signed, key.key, token.signature):
        raise SignatureMismatch(f"signature does not match {key.source}")
    return token.payload


def hmac_key(secret: str) -> bytes:
    """The bytes of an HMAC secret. Raises ValueError for an empty text and for a public key."""
    try:
        return HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(secret.encode())
    except InvalidKeyError:
        raise ValueError(
            "expected a shared secret, got an empty text or a PEM, SSH or JSON Web key; "
            "public keys belong in rsa_public_key, ecdsa_public_key or eddsa_public_key"
        ) from None


def algorithms_of(key: object) -> tuple[str, ...]:
    """The algorithms that a public key may be used with. Raises ValueError if there are none."""
    if isinstance(key, RSAPublicKey):
        if key.key_size < RSA_BITS_MIN:
            raise ValueError(f"the RSA key has {key.key_size} bits, expected at least {RSA_BITS_MIN}")
        return RSA
    if isinstance(key, EllipticCurvePublicKey):
        if key.curve.name not in ECDSA_BY_CURVE:
            raise ValueError(f"the elliptic curve is {key.curve.name}, expected P-256, P-384 or P-521")
        return ECDSA_BY_CURVE[key.curve.name]
    if isinstance(key, Ed25519PublicKey):
        return EDDSA
    raise ValueError("the key is not an RSA, elliptic-curve or Ed25519 public key")


_PEM_KINDS: Final[dict[str, tuple[type[PublicKey], str]]] = {
    "rsa_public_key": (RSAPublicKey, "an RSA"),
    "ecdsa_public_key": (EllipticCurvePublicKey, "an elliptic-curve (P-256, P-384 or P-521)"),
    "eddsa_public_key": (Ed25519PublicKey, "an Ed25519"),
}


def pem_key(pem: str, option: str, source: str) -> VerificationKey:
    """The public key in a PEM text. The key must be of the kind that `option` requires.

    Raises ValueError with the expected kind, the kind that was found, and the remedy.
    """
    kind, description = _PEM_KINDS[option]
    expected = f"expected {description} public key in PEM (-----BEGIN PUBLIC KEY-----)"
    # In environment variables and one-line settings, line ends are often written as a backslash and an n.
    text = pem if "\n" in pem.strip() else pem.replace("\\n", "\n")
    if "PRIVATE KEY-----" in text:
        raise ValueError(f"{expected}, got a private key; openssl pkey -in key.pem -pubout prints the public one")
    if "BEGIN CERTIFICATE-----" in text:
        raise ValueError(f"{expected}, got a certificate; openssl x509 -in cert.pem -noout -pubkey prints its key")
    try:
        key = load_pem_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError(f"{expected}, got a text that cannot be parsed; is a line missing?") from None
    if not isinstance(key, kind):
        other = next((name for name, row in _PEM_KINDS.items() if isinstance(key, row[0])), "")
        raise ValueError(f"{expected}, got another kind of key" + (f"; it belongs in {other}" if other else ""))
    try:
        return VerificationKey(key, algorithms_of(key), source)
    except ValueError as error:
        raise ValueError(f"{expected}, but {error}") from None
