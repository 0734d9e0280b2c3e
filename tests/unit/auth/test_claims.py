"""Claims: their meaning, their types, and the checks against the clock."""

from __future__ import annotations

import pytest
from msgspec import Raw

from beaconfire.auth.options import TokenOptions
from beaconfire.base.clock import ManualClock
from beaconfire.base.units import Seconds
from beaconfire.model.grants import SubscriptionClaims, SubscriptionGrant, SubscriptionOverride
from beaconfire.model.identity import Identity
from beaconfire.model.publication import NO_PAYLOAD
from beaconfire.policy.tokens import TokenError, TokenExpired, TokenInvalid

from .samples import NOW, SECRET, at_once, forged, hs256, make_verifier, refusal, token_of


def identity_of(**claims: object) -> Identity:
    return at_once(make_verifier().verify_connection(token_of(**claims)))


def subscription_of(**claims: object) -> SubscriptionClaims:
    return at_once(make_verifier().verify_subscription(token_of(**claims)))


# --- connection tokens -------------------------------------------------------------------------------------------


def test_a_token_without_claims_is_the_anonymous_user() -> None:
    """No claim is required. Missing claims have their defaults, and missing payloads are `NO_PAYLOAD`."""
    identity = identity_of()
    assert identity == Identity(issued_at_unix_s=0)
    assert identity.info is NO_PAYLOAD
    assert identity.meta is NO_PAYLOAD
    assert identity_of(sub="") == Identity(issued_at_unix_s=0)


def test_connection_token_with_all_claims() -> None:
    """Every claim of a connection token sets its field, and `subs` wins over `channels`."""
    identity = identity_of(
        sub="42",
        exp=NOW + 60,
        nbf=NOW - 1,
        iat=NOW - 1,
        jti="id",
        info={"name": "Ann"},
        meta={"plan": "gold"},
        channels=["news", "chat"],
        subs={
            "chat": {
                "info": {"role": "mod"},
                "b64data": "AAE=",
                "override": {"presence": {"value": True}, "force_recovery": {"value": False}, "other": 1},
            },
            "empty": {},
            "null": None,
        },
    )
    assert identity == Identity(
        user="42",
        info=Raw(b'{"name":"Ann"}'),
        expire_at_unix_s=NOW + 60,
        client_refresh=True,
        channels={
            "news": SubscriptionGrant(),
            "chat": SubscriptionGrant(
                info=Raw(b'{"role":"mod"}'),
                data=Raw(b"\x00\x01"),
                override=SubscriptionOverride(presence=True, force_recovery=False),
            ),
            "empty": SubscriptionGrant(),
            "null": SubscriptionGrant(),
        },
        meta=Raw(b'{"plan":"gold"}'),
        issued_at_unix_s=NOW - 1,
        token_id="id",
    )


def test_payloads_keep_their_json_text_on_one_line() -> None:
    """Numbers, escapes and order stay byte for byte as the backend wrote them; only line ends are removed."""
    payload = '{"sub":"42","info":{"b": 1.10,\r\n "a":\n"\\u5b89 \\n 安", "n":12345678901234567890123}}'.encode()
    token = forged({"alg": "HS256"}, payload, hs256(SECRET.encode()))
    info = bytes(at_once(make_verifier().verify_connection(token)).info)
    assert info == '{"b": 1.10, "a":"\\u5b89 \\n 安", "n":12345678901234567890123}'.encode()


def test_base64_wins_over_json() -> None:
    """`b64info` and `b64data` are the bytes themselves and win over `info` and `data`, unless they are empty."""
    assert identity_of(info=1, b64info="/v8=").info == Raw(b"\xfe\xff")
    assert identity_of(info=1, b64info="").info == Raw(b"1")
    assert identity_of(b64info="").info is NO_PAYLOAD


@pytest.mark.parametrize("claim", ["info", "b64info", "channels", "subs", "meta", "channel", "iat", "jti"])
def test_null_in_an_optional_claim_counts_as_missing(claim: str) -> None:
    """Serializers write null for empty optional fields, so a token may contain null there."""
    assert identity_of(sub="42", **{claim: None}) == Identity(user="42", issued_at_unix_s=0)


@pytest.mark.parametrize(
    ("claims", "expire_at_unix_s"),
    [
        ({}, 0),
        ({"exp": NOW + 60}, NOW + 60),
        ({"exp": NOW + 60, "expire_at": NOW + 5}, NOW + 5),
        ({"exp": NOW + 60, "expire_at": 0}, 0),
        ({"expire_at": NOW + 5}, NOW + 5),
        ({"expire_at": NOW - 5}, NOW - 5),
        ({"exp": NOW + 0.5}, NOW + 0.5),
    ],
)
def test_expire_at_overrides_exp(claims: dict[str, object], expire_at_unix_s: float) -> None:
    """The session expires at `exp` or, if present, at `expire_at`, where 0 is never. Expiring sessions refresh."""
    identity = identity_of(sub="42", **claims)
    assert (identity.expire_at_unix_s, identity.client_refresh) == (expire_at_unix_s, expire_at_unix_s > 0)
    grant = subscription_of(channel="news", **claims).grant
    assert (grant.expire_at_unix_s, grant.client_refresh) == (expire_at_unix_s, expire_at_unix_s > 0)


def test_a_subscription_token_is_no_connection_token() -> None:
    """A `channel` claim marks a subscription token; an empty `channel` does not."""
    text = refusal(token_of(sub="42", channel="news"), TokenInvalid)
    assert text == "claim channel must not be in a connection token; this is a subscription token"
    assert identity_of(sub="42", channel="") == Identity(user="42", issued_at_unix_s=0)


@pytest.mark.parametrize(("jti", "token_id"), [("id", "id"), ("", ""), (17, "17"), ({"a": 1}, '{"a":1}')])
def test_a_token_id_that_is_no_string_is_its_json_text(jti: object, token_id: str) -> None:
    """So such a token is accepted, and can be revoked."""
    assert identity_of(jti=jti).token_id == token_id
    assert subscription_of(channel="news", jti=jti).grant.token_id == token_id


def test_user_id_claim_replaces_sub() -> None:
    """With `user_id_claim`, `sub` is not read, in both kinds of token."""
    options = TokenOptions(hmac_secret=SECRET, user_id_claim="uid")
    verifier = make_verifier(options)
    assert at_once(verifier.verify_connection(token_of(sub=7, uid="42"))).user == "42"
    assert at_once(verifier.verify_subscription(token_of(sub="x", uid="42", channel="news"))).user == "42"
    assert at_once(verifier.verify_connection(token_of(sub="42"))).user == ""
    assert refusal(token_of(uid=42), TokenInvalid, options) == "claim uid must be a string; it is a number"


# --- subscription tokens -----------------------------------------------------------------------------------------


def test_subscription_token_with_all_claims() -> None:
    """Every claim of a subscription token sets its field."""
    assert subscription_of(
        sub="42",
        channel="$news",
        client="c1",
        exp=NOW + 60,
        iat=NOW - 1,
        jti="id",
        info={"role": "mod"},
        data=[1, 2],
        override={"join_leave": {"value": True}, "force_positioning": None, "force_push_join_leave": {"value": False}},
    ) == SubscriptionClaims(
        user="42",
        channel="$news",
        grant=SubscriptionGrant(
            info=Raw(b'{"role":"mod"}'),
            data=Raw(b"[1,2]"),
            expire_at_unix_s=NOW + 60,
            client_refresh=True,
            override=SubscriptionOverride(join_leave=True, force_push_join_leave=False),
            issued_at_unix_s=NOW - 1,
            token_id="id",
            client="c1",
        ),
    )


def test_subscription_token_with_only_a_channel() -> None:
    """Only the channel is required."""
    assert subscription_of(channel="news") == SubscriptionClaims("", "news", SubscriptionGrant(issued_at_unix_s=0))


@pytest.mark.parametrize("claims", [{}, {"channel": ""}])
def test_subscription_token_without_a_channel_is_refused(claims: dict[str, object]) -> None:
    """A connection token does not permit a subscription."""
    text = refusal(token_of(sub="42", **claims), TokenInvalid, subscription=True)
    assert text == "claim channel is missing; expected the channel this subscription token is for"


# --- wrong types -------------------------------------------------------------------------------------------------

NOT_TEXT: tuple[object, ...] = (42, True, None, ["42"], {"id": "42"})
NOT_TIME: tuple[object, ...] = ("1700000060", True, None, [1], {})
CONNECTION_TYPES: list[tuple[str, tuple[object, ...], str]] = [
    ("sub", NOT_TEXT, "claim sub must be a string; it is "),
    ("exp", NOT_TIME, "claim exp must be a number (unix time); it is "),
    ("nbf", NOT_TIME, "claim nbf must be a number (unix time); it is "),
    ("iat", tuple(value for value in NOT_TIME if value is not None), "claim iat must be a number (unix time); it is "),
    ("expire_at", NOT_TIME, "claim expire_at must be a number (unix time); it is "),
    ("expire_at", (-1,), "claim expire_at must be a unix time, or 0 for never"),
    ("b64info", (1, ["AA=="]), "claim b64info must be a base64 string; it is "),
    ("b64info", ("A", "!!!!", "AA", "ä", "_-8="), "claim b64info must be standard base64 with padding"),
    ("meta", ("x", 1, [], True), "claim meta must be an object; it is "),
    ("channel", (1, ["news"]), "claim channel must be a string; it is "),
    ("channels", ("news", {"news": {}}, [1], [None], 1), "claim channels must be a list of strings"),
    ("channels", (["news", ""],), "claims channels and subs must not hold an empty channel name"),
    ("subs", (["news"], "news", 1), "claim subs must be an object of channels; it is "),
    ("subs", ({"news": []}, {"news": 1}), "claim subs.news must be an object; it is "),
    ("subs", ({"": {}},), "claims channels and subs must not hold an empty channel name"),
    ("subs", ({"a": {"b64data": "?"}},), "claim subs['a'].b64data must be standard base64 with padding"),
    (
        "subs",
        ({"a": {"override": {"presence": True}}}, {"a": {"override": {"presence": {}}}}, {"a": {"override": 1}}),
        "claim subs['a'].override must be an object like",
    ),
]


@pytest.mark.parametrize(
    ("claim", "value", "text"), [(claim, value, text) for claim, values, text in CONNECTION_TYPES for value in values]
)
def test_wrong_types_in_a_connection_token(claim: str, value: object, text: str) -> None:
    """The type of every claim is checked; the error names the claim and the expected type."""
    assert refusal(token_of(**{"sub": "42", claim: value}), TokenInvalid).startswith(text)


SUBSCRIPTION_TYPES: list[tuple[str, tuple[object, ...], str]] = [
    ("sub", NOT_TEXT, "claim sub must be a string; it is "),
    ("channel", NOT_TEXT, "claim channel must be a string; it is "),
    ("client", NOT_TEXT, "claim client must be a string; it is "),
    ("exp", NOT_TIME, "claim exp must be a number (unix time); it is "),
    ("expire_at", NOT_TIME, "claim expire_at must be a number (unix time); it is "),
    ("b64info", ("A",), "claim b64info must be standard base64 with padding"),
    ("b64data", ("A",), "claim b64data must be standard base64 with padding"),
    ("b64data", (1,), "claim b64data must be a base64 string; it is a number"),
    ("override", ([], "x", {"presence": {"value": 1}}), "claim override must be an object like"),
]


@pytest.mark.parametrize(
    ("claim", "value", "text"), [(claim, value, text) for claim, values, text in SUBSCRIPTION_TYPES for value in values]
)
def test_wrong_types_in_a_subscription_token(claim: str, value: object, text: str) -> None:
    """As for connection tokens."""
    token = token_of(**{"sub": "42", "channel": "news", claim: value})
    assert refusal(token, TokenInvalid, subscription=True).startswith(text)


def test_a_time_that_overflows_is_refused() -> None:
    """A number beyond any float must not become infinity, which would never expire."""
    for number in (b"1e400", b"9" * 400):
        token = forged({"alg": "HS256"}, b'{"exp":' + number + b"}", hs256(SECRET.encode()))
        assert refusal(token, TokenInvalid).startswith("claim exp must be a number")


# --- audience and issuer -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("aud", "text"),
    [
        ("us", ""),
        (["them", "us"], ""),
        ("them", "claim aud does not name the audience 'us'"),
        ("US", "claim aud does not name the audience 'us'"),
        ("us,them", "claim aud does not name the audience 'us'"),
        ([], "claim aud does not name the audience 'us'"),
        ("", "claim aud does not name the audience 'us'"),
        (None, "claim aud must be a string or a list of strings; it is null"),
        (7, "claim aud must be a string or a list of strings; it is a number"),
        ([7], "claim aud must be a string or a list of strings; it is a list"),
        ({"us": 1}, "claim aud must be a string or a list of strings; it is an object"),
    ],
)
def test_the_audience_must_be_the_configured_one(aud: object, text: str) -> None:
    """A required audience must equal the claim or one entry of its list."""
    options = TokenOptions(hmac_secret=SECRET, audience="us")
    if text:
        assert refusal(token_of(sub="42", aud=aud), TokenInvalid, options) == text
        assert refusal(token_of(channel="news", aud=aud), TokenInvalid, options, subscription=True) == text
    else:
        assert at_once(make_verifier(options).verify_connection(token_of(sub="42", aud=aud))).user == "42"


@pytest.mark.parametrize(("iss", "text"), [("me", ""), ("Me", "is not"), (None, "must be"), (["me"], "must be")])
def test_the_issuer_must_be_the_configured_one(iss: object, text: str) -> None:
    """A required issuer is compared exactly."""
    options = TokenOptions(hmac_secret=SECRET, issuer="me")
    if text:
        assert refusal(token_of(sub="42", iss=iss), TokenInvalid, options).startswith(f"claim iss {text}")
    else:
        assert at_once(make_verifier(options).verify_connection(token_of(sub="42", iss=iss))).user == "42"


def test_audience_and_issuer_are_checked_only_if_configured() -> None:
    """Without a setting, the claims may have any value."""
    assert refusal(token_of(), TokenInvalid, TokenOptions(hmac_secret=SECRET, audience="us")).startswith("claim aud")
    assert refusal(token_of(), TokenInvalid, TokenOptions(hmac_secret=SECRET, issuer="me")).startswith("claim iss")
    assert identity_of(sub="42", aud=7, iss=None).user == "42"


# --- time --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("leeway", [0, 5])
def test_a_token_expires_at_exp_plus_leeway(leeway: int) -> None:
    """`exp` plus the leeway is the first moment at which the token is refused."""
    options = TokenOptions(hmac_secret=SECRET, leeway=Seconds(leeway))
    clock = ManualClock()
    verifier = make_verifier(options, clock)
    token = token_of(sub="42", exp=NOW + 60)
    clock.advance(59.75 + leeway)
    identity = at_once(verifier.verify_connection(token))
    assert identity.expire_at_unix_s == NOW + 60 + leeway > clock.unix_s()
    clock.advance(0.25)
    text = refusal(token, TokenExpired, options, clock)
    assert text == f"claim exp: the token expired {leeway} s ago"
    assert refusal(token_of(channel="news", exp=NOW + 60), TokenExpired, options, clock, subscription=True) == text


@pytest.mark.parametrize("exp", [0, -1, 1, NOW - 1, NOW])
def test_exp_in_the_past_is_expired(exp: float) -> None:
    """Zero is the year 1970, not never."""
    refusal(token_of(sub="42", exp=exp), TokenExpired)


def test_a_token_before_nbf_is_invalid() -> None:
    """`nbf` may be now or, within the leeway, later."""
    assert identity_of(sub="42", nbf=NOW).user == "42"
    text = refusal(token_of(sub="42", nbf=NOW + 3), TokenInvalid)
    assert text == "claim nbf is 3 s in the future; if only the clocks differ, set leeway"
    lenient = make_verifier(TokenOptions(hmac_secret=SECRET, leeway=Seconds(3)))
    assert at_once(lenient.verify_connection(token_of(sub="42", nbf=NOW + 3))).user == "42"


@pytest.mark.parametrize("iat", [NOW + 0.05, NOW + 1, NOW + 10**6, None])
def test_iat_is_not_compared_with_the_clock(iat: float | None) -> None:
    """A backend whose clock is ahead issues tokens from the future, and RFC 7519 accepts them. Null is ignored."""
    assert identity_of(sub="42", iat=iat).user == "42"
    assert subscription_of(sub="42", channel="news", iat=iat).user == "42"


@pytest.mark.parametrize("wrong", [{"nbf": NOW + 9}, {"aud": "them"}, {"sub": 1}, {"channel": "news"}, {"subs": 1}])
def test_expiry_is_checked_last(wrong: dict[str, object]) -> None:
    """After TokenExpired the client fetches a new token, so the error must not hide another problem of the token."""
    options = TokenOptions(hmac_secret=SECRET, audience="us")
    with pytest.raises(TokenError) as caught:
        at_once(make_verifier(options).verify_connection(token_of(**{"aud": "us", "exp": NOW - 60} | wrong)))
    assert type(caught.value) is TokenInvalid
