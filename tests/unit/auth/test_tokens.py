"""Signatures, algorithms, and the keys in the settings."""

from __future__ import annotations

import base64

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from beaconfire.auth.algorithms import (
    ECDSA,
    EDDSA,
    HMAC,
    OPTION_OF,
    RSA,
    TOKEN_LENGTH_MAX,
    VerificationKey,
    read_token,
    verified_payload,
)
from beaconfire.auth.issue import connection_token, sign_claims
from beaconfire.auth.options import TokenOptions
from beaconfire.auth.static_keys import option_problems, option_weaknesses
from beaconfire.auth.tokens import JWTVerifier
from beaconfire.base.clock import ManualClock
from beaconfire.model.events import LimitHit
from beaconfire.policy.tokens import TokenInvalid, TokenVerifier

from .samples import (
    NOW,
    SECRET,
    RecordedEvents,
    at_once,
    forged,
    hs256,
    make_verifier,
    private_key,
    private_pem,
    public_der,
    public_pem,
    refusal,
    token_of,
)

EC_KEYS = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}


def key_name(algorithm: str) -> str:
    return EC_KEYS.get(algorithm) or ("rsa" if algorithm in RSA else "ed25519")


def options_for(algorithm: str) -> TokenOptions:
    """Settings with a key of every family. The elliptic-curve key is the one that this algorithm requires."""
    return TokenOptions(
        hmac_secret=SECRET,
        rsa_public_key=public_pem("rsa"),
        ecdsa_public_key=public_pem(EC_KEYS.get(algorithm, "P-256")),
        eddsa_public_key=public_pem("ed25519"),
    )


@pytest.mark.parametrize("algorithm", OPTION_OF)
def test_every_algorithm_verifies_with_its_own_key(algorithm: str) -> None:
    """A token of each of the ten algorithms is accepted if the key of its family is configured."""
    signing_key = SECRET if algorithm in HMAC else private_pem(key_name(algorithm))
    token = connection_token(signing_key, "42", now_unix_s=NOW, algorithm=algorithm)
    verifier: TokenVerifier = make_verifier(options_for(algorithm))
    assert at_once(verifier.verify_connection(token)).user == "42"


@pytest.mark.parametrize("algorithm", OPTION_OF)
def test_an_algorithm_without_a_key_is_refused(algorithm: str) -> None:
    """If only the other families have a key, the token is refused, and the error names the missing setting."""
    option = OPTION_OF[algorithm]
    signing_key = SECRET if algorithm in HMAC else private_pem(key_name(algorithm))
    options = msgspec.structs.replace(options_for(algorithm), **{option: ""})
    text = refusal(sign_claims(signing_key, {"sub": "42"}, algorithm=algorithm), TokenInvalid, options)
    assert text == f"alg {algorithm} is not accepted: token.{option} holds no key for it"


@pytest.mark.parametrize("algorithm", [*RSA, *ECDSA, *EDDSA])
def test_a_signature_of_another_key_is_refused(algorithm: str) -> None:
    """For a valid token that another key signed, the error names the setting that does not match."""
    token = sign_claims(
        private_pem("rsa_other" if algorithm in RSA else key_name(algorithm)), {"sub": "42"}, algorithm=algorithm
    )
    if algorithm not in RSA:
        token = token[:-8] + ("AAAAAAAA" if not token.endswith("AAAAAAAA") else "BBBBBBBA")
    assert "signature does not match token." in refusal(token, TokenInvalid, options_for(algorithm))


@pytest.mark.parametrize("secret", ["", "Correct horse battery staple, thirty-two bytes", SECRET + " "])
def test_a_wrong_secret_is_refused(secret: str) -> None:
    """Only the exact secret verifies; an empty secret does not."""
    token = forged({"alg": "HS256"}, {"sub": "42"}, hs256(secret.encode()))
    assert refusal(token, TokenInvalid) == "signature does not match token.hmac_secret"


@pytest.mark.parametrize("algorithm", HMAC)
@pytest.mark.parametrize("with_secret", [True, False])
@pytest.mark.parametrize("key", ["rsa", "P-256", "ed25519"])
def test_a_public_key_is_never_an_hmac_secret(algorithm: str, with_secret: bool, key: str) -> None:
    """Algorithm confusion: no HS* token that is signed with a public key is accepted, in any encoding."""
    options = msgspec.structs.replace(options_for("ES256"), hmac_secret=SECRET if with_secret else "")
    pem = public_pem(key)
    for secret in (pem.encode(), pem.strip().encode(), pem.replace("\n", "").encode(), public_der(key)):
        token = forged({"alg": algorithm, "typ": "JWT"}, {"sub": "admin"}, hs256(secret))
        refusal(token, TokenInvalid, options)


@pytest.mark.parametrize("algorithm", [*RSA, *ECDSA, *EDDSA])
def test_an_hmac_signature_is_no_asymmetric_signature(algorithm: str) -> None:
    """The other direction of algorithm confusion: the HMAC secret cannot sign for the other families."""
    token = forged({"alg": algorithm}, {"sub": "admin"}, hs256(SECRET.encode()))
    refusal(token, TokenInvalid, options_for(algorithm))


@pytest.mark.parametrize(("signed_with", "alg"), [("P-384", "ES256"), ("P-256", "ES384"), ("P-256", "ES512")])
def test_an_elliptic_curve_key_verifies_only_its_own_algorithm(signed_with: str, alg: str) -> None:
    """ES256 requires P-256: a key on another curve is not tried."""
    options = TokenOptions(ecdsa_public_key=public_pem(signed_with))
    text = refusal(forged({"alg": alg}, {"sub": "42"}, lambda _: b"\0" * 64), TokenInvalid, options)
    assert text == f"alg {alg} is not accepted: token.ecdsa_public_key holds no key for it"


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE"])
@pytest.mark.parametrize("signature", [b"", b"x"])
def test_an_unsigned_token_is_never_accepted(alg: str, signature: bytes) -> None:
    """`none` in any spelling is refused, with keys of every family and without keys."""
    token = forged({"alg": alg}, {"sub": "admin"}, lambda _: signature)
    for options in (options_for("ES256"), TokenOptions()):
        assert refusal(token, TokenInvalid, options).startswith("alg none is never accepted")


@pytest.mark.parametrize(
    "alg", ["", "none ", " HS256", "hs256", "HS256\0", "HS1", "PS256", "ES256K", "Ed448", "RSA-OAEP", "x" * 4000]
)
def test_an_unknown_algorithm_is_refused(alg: str) -> None:
    """Algorithm names are compared exactly. Algorithms that PyJWT supports beyond our table are refused."""
    text = refusal(forged({"alg": alg}, {"sub": "42"}, hs256(SECRET.encode())), TokenInvalid, options_for("ES256"))
    assert "is not supported; expected one of HS256, " in text
    assert len(text) < 200


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"null",
        b"[]",
        b'"HS256"',
        b"{}",
        b'{"alg":null}',
        b'{"alg":256}',
        b'{"alg":["HS256"]}',
        b'{"alg":"HS256"',
        b'{"alg":"HS256","kid":7}',
        b'{"alg":"HS256","x":' + b"[" * 8000,
        b"\xff\xfe",
    ],
)
def test_a_malformed_header_is_refused(header: bytes) -> None:
    """For any bytes in place of the header, the error says what was expected."""
    token = forged(header, {"sub": "42"}, hs256(SECRET.encode()))
    assert refusal(token, TokenInvalid).startswith("token header is malformed: expected a JSON object")


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "HS256", "crit": ["exp"], "exp": 1},
        {"alg": "HS256", "crit": []},
        {"alg": "HS256", "crit": "b64"},
        {"alg": "HS256", "b64": False},
        {"alg": "HS256", "b64": False, "crit": ["b64"]},
    ],
)
def test_critical_extensions_are_refused(header: dict[str, object]) -> None:
    """RFC 7515 section 4.1.11: a token that requires an unsupported extension is refused, even if correctly signed."""
    refusal(forged(header, {"sub": "42"}, hs256(SECRET.encode())), TokenInvalid)


def test_two_algorithms_in_one_header_are_refused() -> None:
    """With duplicate members, the key must not be selected by one algorithm and used with the other."""
    for first, second in (("RS256", "HS256"), ("HS256", "RS256"), ("none", "RS256"), ("HS256", "none")):
        header = f'{{"alg":"{first}","alg":"{second}"}}'.encode()
        token = forged(header, {"sub": "admin"}, hs256(public_pem("rsa").encode()))
        refusal(token, TokenInvalid, options_for("ES256"))


@pytest.mark.parametrize("payload", [b"", b"null", b"[]", b'"x"', b"{", b'{"sub":"\xff"}', b'{"a":' + b"[" * 8000])
def test_a_malformed_payload_is_refused_even_if_signed(payload: bytes) -> None:
    """A valid signature does not make the payload a JSON object."""
    token = forged({"alg": "HS256"}, payload, hs256(SECRET.encode()))
    assert refusal(token, TokenInvalid) == "token payload is malformed: expected a JSON object in UTF-8"


@pytest.mark.parametrize("token", ["", ".", "..", "...", "a", "a.b", "a.b.c.d", "ä.b.c", "\ud800.b.c", "💥" * 9, " "])
def test_malformed_text_is_refused(token: str) -> None:
    """A text that is not a token raises TokenInvalid and no other exception."""
    assert "malformed" in refusal(token, TokenInvalid)


@pytest.mark.parametrize("part", [0, 1, 2])
@pytest.mark.parametrize("extra", ["+", "/", "\n", " ", "===", "====", "=A", "*"])
def test_only_canonical_base64url_is_accepted(part: int, extra: str) -> None:
    """No part may contain characters that decoders skip: one token would have many spellings."""
    parts = token_of(sub="42", pad="x").split(".")
    parts[part] += extra
    with pytest.raises(TokenInvalid, match="malformed"):
        read_token(".".join(parts))


@pytest.mark.parametrize("bytes_more", [0, 1, 2])
def test_padding_is_allowed(bytes_more: int) -> None:
    """Some issuers write the padding that RFC 7515 omits; the signature covers the text as written."""

    def padded(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).decode()

    signed = padded(b'{"alg":"HS256"}' + b" " * bytes_more) + "." + padded(b'{"sub":"42"}' + b" " * bytes_more)
    token = f"{signed}.{padded(hs256(SECRET.encode())(signed.encode()))}"
    assert at_once(make_verifier().verify_connection(token)).user == "42"


@pytest.mark.parametrize("algorithm", [*ECDSA, *EDDSA, *RSA, *HMAC])
@pytest.mark.parametrize("length", [0, 1, 31, 64, 96, 132, 256, 1000])
def test_a_signature_of_any_length_is_refused(algorithm: str, length: int) -> None:
    """For any bytes in place of the signature, the token is refused without another exception."""
    token = forged({"alg": algorithm}, {"sub": "42"}, lambda _: b"\x80" * length)
    assert "signature does not match token." in refusal(token, TokenInvalid, options_for(algorithm))


def test_no_single_character_can_be_changed() -> None:
    """The signature covers every character of a token, including those that base64 decoders ignore."""
    token = token_of(sub="42", exp=NOW + 60)
    verifier = make_verifier()
    at_once(verifier.verify_connection(token))
    for index, old in enumerate(token):
        for new in {"A", "B", "-", ".", "=", " ", "\n"} - {old}:
            with pytest.raises(TokenInvalid):
                at_once(verifier.verify_connection(token[:index] + new + token[index + 1 :]))


@given(st.text() | st.lists(st.binary().map(lambda part: part.hex()), min_size=3, max_size=3).map(".".join))
@settings(max_examples=300, deadline=None)
def test_any_text_raises_only_token_invalid(token: str) -> None:
    """No text from a client raises an exception other than TokenInvalid."""
    with pytest.raises(TokenInvalid):
        at_once(make_verifier().verify_connection(token))


def test_an_overlong_token_is_refused_before_parsing() -> None:
    """The limit applies before any parsing, and reaching it emits an event."""
    events = RecordedEvents()
    verifier = JWTVerifier(TokenOptions(hmac_secret=SECRET), ManualClock(), events)
    padding = "x" * (TOKEN_LENGTH_MAX * 3 // 4 - 150)
    longest = next(
        token
        for extra in range(200)
        if len(token := token_of(sub="42", pad=padding + "x" * extra)) in (TOKEN_LENGTH_MAX, TOKEN_LENGTH_MAX - 1)
    )
    assert at_once(verifier.verify_connection(longest)).user == "42"
    assert events.events == []
    with pytest.raises(TokenInvalid, match="longer than 16384 characters"):
        at_once(verifier.verify_connection(token_of(sub="42", pad=padding + "x" * 200)))
    assert events.events == [LimitHit("token_length_max", "")]


def test_the_length_limit_is_exact() -> None:
    """One character more than the limit is too long, whatever the content."""
    with pytest.raises(TokenInvalid, match="malformed"):
        read_token("x" * TOKEN_LENGTH_MAX)
    with pytest.raises(TokenInvalid, match="longer than"):
        read_token("x" * (TOKEN_LENGTH_MAX + 1))


@pytest.mark.parametrize(("algorithms", "accepted"), [(("RS512",), True), (("RS256", "RS384"), False)])
def test_a_key_verifies_only_its_own_algorithms(algorithms: tuple[str, ...], accepted: bool) -> None:
    """Even if the wrong key was selected, the list of the key decides."""
    key = private_key("rsa").public_key()
    assert isinstance(key, RSAPublicKey)
    token = sign_claims(private_pem("rsa"), {"sub": "42"}, algorithm="RS512")
    if accepted:
        assert verified_payload(read_token(token), VerificationKey(key, algorithms, "the key")) == b'{"sub":"42"}'
    else:
        with pytest.raises(TokenInvalid, match="alg RS512 does not fit the key"):
            verified_payload(read_token(token), VerificationKey(key, algorithms, "the key"))


# --- rotation of the secret --------------------------------------------------------------------------------------


def test_the_previous_secret_is_accepted_until_valid_until() -> None:
    """Before `valid_until` both secrets verify; from this second on only the new one does."""
    clock = ManualClock()
    options = TokenOptions(
        hmac_secret="new " + SECRET, hmac_previous_secret=SECRET, hmac_previous_secret_valid_until=int(NOW) + 60
    )
    verifier = make_verifier(options, clock)
    old, new = token_of(sub="old"), sign_claims("new " + SECRET, {"sub": "new"})
    clock.advance(59)
    assert at_once(verifier.verify_connection(old)).user == "old"
    assert at_once(verifier.verify_connection(new)).user == "new"
    clock.advance(1)
    assert at_once(verifier.verify_connection(new)).user == "new"
    with pytest.raises(TokenInvalid, match=r"^signature does not match token\.hmac_secret$"):
        at_once(verifier.verify_connection(old))


def test_the_previous_secret_without_an_end_stays_valid() -> None:
    """`valid_until` 0 is never. For a third secret the error names the setting of the current one."""
    clock = ManualClock()
    options = TokenOptions(hmac_secret="new " + SECRET, hmac_previous_secret=SECRET)
    clock.advance(10 * 365 * 86400)
    assert at_once(make_verifier(options, clock).verify_connection(token_of(sub="42"))).user == "42"
    third = sign_claims("third", {"sub": "42"})
    assert refusal(third, TokenInvalid, options, clock) == "signature does not match token.hmac_secret"


def test_a_short_secret_verifies_without_a_warning() -> None:
    """`secret`, which many first attempts use, works without a warning per token, and is reported once at start-up."""
    options = TokenOptions(hmac_secret="secret", jwks_url="http://keys.example/jwks")
    token = connection_token("secret", "42", now_unix_s=NOW)
    assert at_once(make_verifier(options).verify_connection(token)).user == "42"
    assert [option for option, _ in option_weaknesses(options)] == ["hmac_secret", "jwks_url"]
    assert option_weaknesses(TokenOptions(hmac_secret=SECRET, jwks_url="https://keys.example/jwks")) == []


# --- settings ----------------------------------------------------------------------------------------------------


def test_a_public_key_may_be_written_on_one_line() -> None:
    """Line ends written as backslash and n, as in environment variables, and surrounding spaces are accepted."""
    for pem in (public_pem("rsa").replace("\n", "\\n"), f"\n  {public_pem('rsa')}  \n"):
        token = sign_claims(private_pem("rsa"), {"sub": "42"}, algorithm="RS256")
        assert at_once(make_verifier(TokenOptions(rsa_public_key=pem)).verify_connection(token)).user == "42"


CERTIFICATE = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


@pytest.mark.parametrize(
    ("option", "value", "remedy"),
    [
        ("rsa_public_key", "garbage", "is a line missing?"),
        ("rsa_public_key", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "is a line missing?"),
        ("rsa_public_key", "P-256", "it belongs in ecdsa_public_key"),
        ("rsa_public_key", "ed25519", "it belongs in eddsa_public_key"),
        ("rsa_public_key", "rsa_small", "the RSA key has 1024 bits, expected at least 2048"),
        ("rsa_public_key", "private rsa", "openssl pkey -in key.pem -pubout"),
        ("rsa_public_key", CERTIFICATE, "openssl x509 -in cert.pem -noout -pubkey"),
        ("ecdsa_public_key", "rsa", "it belongs in rsa_public_key"),
        ("ecdsa_public_key", "secp256k1", "the elliptic curve is secp256k1, expected P-256, P-384 or P-521"),
        ("eddsa_public_key", "P-256", "it belongs in ecdsa_public_key"),
        ("eddsa_public_key", "ed448", "got another kind of key"),
        ("hmac_secret", "rsa", "public keys belong in rsa_public_key"),
        ("hmac_previous_secret", "alone", "expected hmac_secret to be set, too"),
        ("jwks_url", "file:///etc/passwd", "expected an http or https address"),
        ("jwks_url", "https:///jwks", "expected an http or https address"),
        ("jwks_url", "keys.example/jwks", "expected an http or https address"),
    ],
)
def test_unusable_settings_raise_value_error(option: str, value: str, remedy: str) -> None:
    """The text begins with the full name of the setting and contains the remedy, but no key."""
    if value.startswith("private "):
        value = private_pem(value.removeprefix("private "))
    elif value in ("rsa", "rsa_small", "P-256", "secp256k1", "ed25519", "ed448"):
        value = public_pem(value)
    with pytest.raises(ValueError) as caught:
        make_verifier(msgspec.structs.replace(TokenOptions(), **{option: value}))
    assert str(caught.value).startswith(f"token.{option}: ")
    assert remedy in str(caught.value)
    assert value not in str(caught.value)


def test_all_wrong_settings_are_reported_together() -> None:
    """One start reports every problem, with the name of the section."""
    options = TokenOptions(rsa_public_key="x", eddsa_public_key="y", jwks_url="z", jwks_timeout=0)  # type: ignore[arg-type]
    assert [option for option, _ in option_problems(options)] == [
        "rsa_public_key",
        "eddsa_public_key",
        "jwks_url",
        "jwks_timeout",
    ]
    with pytest.raises(ValueError) as caught:
        JWTVerifier(options, ManualClock(), RecordedEvents(), section="subscription_token")
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == [
        "subscription_token.rsa_public_key",
        "subscription_token.eddsa_public_key",
        "subscription_token.jwks_url",
        "subscription_token.jwks_timeout",
    ]


def test_error_texts_name_the_section() -> None:
    """With two sections of token settings, the error names the section whose key did not match."""
    verifier = JWTVerifier(
        TokenOptions(hmac_secret=SECRET), ManualClock(), RecordedEvents(), section="subscription_token"
    )
    with pytest.raises(TokenInvalid, match=r"^signature does not match subscription_token\.hmac_secret$"):
        at_once(verifier.verify_subscription(sign_claims("other", {"channel": "news"})))


def test_without_any_key_every_token_is_refused() -> None:
    """Empty settings are valid and accept no token."""
    assert "token.hmac_secret holds no key" in refusal(token_of(sub="42"), TokenInvalid, TokenOptions())


def test_sample_keys_differ() -> None:
    """The tests above require that the two RSA keys are different."""
    assert private_key("rsa") is not private_key("rsa_other")
    assert public_pem("rsa") != public_pem("rsa_other")
