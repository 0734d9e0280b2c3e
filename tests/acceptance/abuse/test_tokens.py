"""Tokens of every wrong kind. None lets anyone in, none disturbs anyone, and none is ever in the log."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from beaconfire.auth.issue import sign_claims
from tests.acceptance.background_traffic import undisturbed_traffic
from tests.acceptance.deadlines import run_scenario
from tests.acceptance.json_client import JSONClient
from tests.acceptance.raw_peer import TEXT, RawPeer, encode_frame
from tests.acceptance.server_process import ServerProcess
from tests.acceptance.server_state import assert_healthy, count_limit_hits

SECRET = "the-secret-that-nobody-may-ever-see-in-a-log"
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
RSA_PRIVATE = RSA_KEY.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
).decode()
RSA_PUBLIC = (
    RSA_KEY.public_key()
    .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    .decode()
)
OTHER_EC = (
    ec.generate_private_key(ec.SECP256R1())
    .private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    .decode()
)
CONFIG = f'''
[client]
allow_anonymous = true
debug_reasons = true
user_personal_channel = true
[token]
hmac_secret = "{SECRET}"
rsa_public_key = """{RSA_PUBLIC}"""
audience = "chat"
issuer = "bank"
[channel]
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
allow_publish_for_client = true
allow_publish_for_anonymous = true
[namespaces.closed]
[log]
level = "debug"
'''
"""The log says as much as it ever does, and clients are told as much as they ever are."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("server"), CONFIG) as server:
        yield server
        assert_healthy(server)


def claims(**other: object) -> dict[str, object]:
    now = int(time.time())
    return {"sub": "ann", "iat": now, "exp": now + 600, "aud": "chat", "iss": "bank"} | other


def without(name: str) -> dict[str, object]:
    return {key: value for key, value in claims().items() if key != name}


def forged(header: object, payload: object, secret: bytes | None = None) -> str:
    """A token put together by hand, with an HMAC-SHA256 signature or none."""
    signed = ".".join(encode(json.dumps(part).encode()) for part in (header, payload))
    signature = b"" if secret is None else hmac.new(secret, signed.encode(), hashlib.sha256).digest()
    return f"{signed}.{encode(signature)}"


def encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def good(**other: object) -> str:
    return sign_claims(SECRET, claims(**other))


def stolen() -> str:
    """The signature of one token under the claims of another."""
    return ".".join([*good(sub="admin").split(".")[:2], good().split(".")[2]])


HS256 = {"alg": "HS256", "typ": "JWT"}

INVALID: dict[str, Callable[[], str]] = {
    "wrong secret": lambda: sign_claims("some-other-secret-of-decent-length-here", claims()),
    "alg none": lambda: forged({"alg": "none"}, claims()),
    "alg None": lambda: forged({"alg": "None"}, claims()),
    "alg none with a signature": lambda: forged({"alg": "none"}, claims(), SECRET.encode()),
    "no alg": lambda: forged({"typ": "JWT"}, claims(), SECRET.encode()),
    "alg a number": lambda: forged({"alg": 256}, claims(), SECRET.encode()),
    "alg unknown": lambda: forged({"alg": "HS1"}, claims(), SECRET.encode()),
    "HS256 with the public key": lambda: forged(HS256, claims(), RSA_PUBLIC.encode()),
    "HS256 with the public key, stripped": lambda: forged(HS256, claims(), RSA_PUBLIC.strip().encode()),
    "RS256 over an HMAC": lambda: forged({"alg": "RS256"}, claims(), SECRET.encode()),
    "ES256 where no such key is": lambda: sign_claims(OTHER_EC, claims(), algorithm="ES256"),
    "critical extension": lambda: forged(HS256 | {"crit": ["b64"], "b64": False}, claims(), SECRET.encode()),
    "empty secret": lambda: forged(HS256, claims(), b""),
    "signature cut": lambda: good()[:-5],
    "signature missing": lambda: good().rpartition(".")[0] + ".",
    "signature of another": stolen,
    "wrong audience": lambda: good(aud="mail"),
    "no audience": lambda: sign_claims(SECRET, without("aud")),
    "wrong issuer": lambda: good(iss="thief"),
    "no issuer": lambda: sign_claims(SECRET, without("iss")),
    "sub a number": lambda: good(sub=42),
    "sub a list": lambda: good(sub=["ann"]),
    "sub null": lambda: good(sub=None),
    "exp a text": lambda: good(exp="tomorrow"),
    "not yet valid": lambda: good(nbf=int(time.time()) + 600),
    "iat a text": lambda: good(iat="now"),
    "channels a number": lambda: good(channels=5),
    "claims a list": lambda: forged(HS256, [1, 2], SECRET.encode()),
    "claims no JSON": lambda: raw_claims(b"{"),
    "claims deep": lambda: raw_claims(b"[" * 10_000),
    "no token": lambda: "x",
    "dots": lambda: "..",
    "letters": lambda: "a.b.c",
    "not ASCII": lambda: "é.ü.ß",
    "NUL": lambda: "\x00.\x00.\x00",
    "60 KB": lambda: good(info="x" * 40_000),
    "a million dots": lambda: "." * 60_000,
}


def raw_claims(payload: bytes) -> str:
    signed = f"{encode(json.dumps(HS256).encode())}.{encode(payload)}"
    return f"{signed}.{encode(hmac.new(SECRET.encode(), signed.encode(), hashlib.sha256).digest())}"


def assert_not_logged(server: ServerProcess, token: str) -> None:
    """Neither the secret nor any part of the token that is longer than a word, in whatever line."""
    log = json.dumps(list(server.log))
    assert SECRET not in log
    assert RSA_PRIVATE[100:140] not in log
    for part in token.split("."):
        assert len(part) < 16 or part[:16] not in log


@pytest.mark.parametrize("kind", INVALID)
def test_an_invalid_connection_token_ends_the_connection(server: ServerProcess, kind: str) -> None:
    """3500, and the client must not come back with it."""
    token = INVALID[kind]()

    async def scenario() -> None:
        async with undisturbed_traffic(server), await RawPeer.connect_websocket(server.port) as peer:
            await peer.send_json({"id": 1, "connect": {"token": token}})
            close = await peer.read_close_frame()
            assert close.close_code == 3500
            assert SECRET.encode() not in close.payload
        assert_not_logged(server, token)

    run_scenario(scenario())


def test_an_overlong_token_is_counted(server: ServerProcess) -> None:
    """Its length alone condemns it."""

    async def scenario() -> None:
        before = await count_limit_hits(server, "token_length_max")
        async with await RawPeer.connect_websocket(server.port) as peer:
            await peer.send_json({"id": 1, "connect": {"token": good(info="x" * 40_000)}})
            assert (await peer.read_close_frame()).close_code == 3500
        assert await count_limit_hits(server, "token_length_max") == before + 1

    run_scenario(scenario())


def test_a_token_of_a_megabyte_is_too_large_a_message(server: ServerProcess) -> None:
    """1009: the transport's limit comes first."""
    token = good(info="x" * 750_000)

    async def scenario() -> None:
        async with undisturbed_traffic(server), await RawPeer.connect_websocket(server.port) as peer:
            await peer.send(encode_frame(TEXT, json.dumps({"id": 1, "connect": {"token": token}}).encode()))
            assert (await peer.read_close_frame()).close_code == 1009
        assert_not_logged(server, token)

    run_scenario(scenario())


def test_an_expired_connection_token_is_an_error(server: ServerProcess) -> None:
    """109: the client should fetch a new one; the connection stays for that long, and can do nothing."""
    token = good(exp=int(time.time()) - 5)

    async def scenario() -> None:
        async with undisturbed_traffic(server), await RawPeer.connect_websocket(server.port) as peer:
            await peer.send_json({"id": 1, "connect": {"token": token}})
            assert (await peer.read_reply(1))["error"]["code"] == 109
            await peer.send_json({"id": 2, "subscribe": {"channel": "room"}})
            assert (await peer.read_close_frame()).close_code == 3501
        assert_not_logged(server, token)

    run_scenario(scenario())


GOOD: dict[str, Callable[[], str]] = {
    "HS256": good,
    "RS256": lambda: sign_claims(RSA_PRIVATE, claims(), algorithm="RS256"),
    "issued by a clock that is ahead": lambda: good(iat=time.time() + 60),
}


@pytest.mark.parametrize("kind", GOOD)
def test_a_good_token_is_good(server: ServerProcess, kind: str) -> None:
    """The tests above would prove nothing otherwise. It is not in the log either."""
    token = GOOD[kind]()

    async def scenario() -> None:
        async with JSONClient.connect(server.port, token) as client:
            assert list(client.connect_reply["subs"]) == ["#ann"]
        assert_not_logged(server, token)

    run_scenario(scenario())


SUBSCRIPTION: dict[str, tuple[dict[str, object], str, int]] = {
    "expired": ({"exp": 1_000_000_000}, SECRET, 109),
    "wrong secret": ({}, "some-other-secret-of-decent-length-here", 103),
    "wrong audience": ({"aud": "mail"}, SECRET, 103),
    "wrong issuer": ({"iss": "thief"}, SECRET, 103),
    "channel a number": ({"channel": 7}, SECRET, 103),
    "channel missing": ({"channel": None}, SECRET, 103),
    "channel of another": ({"channel": "closed:other"}, SECRET, 3500),
    "user of another": ({"sub": "bob"}, SECRET, 3500),
    "client of another": ({"client": "someone-else"}, SECRET, 3500),
    "longer than 16 KiB": ({"info": "x" * 20_000}, SECRET, 103),
}


@pytest.mark.parametrize("kind", SUBSCRIPTION)
def test_a_wrong_subscription_token(server: ServerProcess, kind: str) -> None:
    """What another token may mend is an error; someone else's token is the end: 3500."""
    other, secret, code = SUBSCRIPTION[kind]
    token = sign_claims(secret, claims(channel="closed:room") | other)
    expect_refusal(server, {"subscribe": {"channel": "closed:room", "token": token}}, token, code)


@pytest.mark.parametrize("token", ["x", "..", forged({"alg": "none"}, claims(channel="closed:room"))])
def test_a_forged_subscription_token(server: ServerProcess, token: str) -> None:
    """103: permission denied."""
    expect_refusal(server, {"subscribe": {"channel": "closed:room", "token": token}}, token, 103)


@pytest.mark.parametrize(
    ("other", "secret", "code"),
    [
        ({"exp": 1_000_000_000}, SECRET, 3005),
        ({}, "some-other-secret-of-decent-length-here", 3500),
        ({"sub": "bob"}, SECRET, 3500),
    ],
)
def test_a_wrong_refresh_token(server: ServerProcess, other: dict[str, object], secret: str, code: int) -> None:
    """Expired is 3005, which allows coming back; wrong or someone else's is 3500, which does not."""
    token = sign_claims(secret, claims() | other)
    expect_refusal(server, {"refresh": {"token": token}}, token, code)


@pytest.mark.parametrize(
    ("other", "secret", "code"),
    [
        ({"exp": 1_000_000_000}, SECRET, 3006),
        ({}, "some-other-secret-of-decent-length-here", 3500),
        ({"sub": "bob"}, SECRET, 3500),
        ({"channel": "closed:other"}, SECRET, 3500),
    ],
)
def test_a_wrong_sub_refresh_token(server: ServerProcess, other: dict[str, object], secret: str, code: int) -> None:
    """3006 for an expired one, which allows coming back; 3500 for a wrong one."""
    token = sign_claims(secret, claims(channel="closed:room") | other)

    async def scenario() -> None:
        async with undisturbed_traffic(server), JSONClient.connect(server.port, good()) as client:
            first = good(channel="closed:room")
            assert await client.request_code(subscribe={"channel": "closed:room", "token": first}) == 0
            assert await client.request_code(sub_refresh={"channel": "closed:room", "token": token}) == code
        assert_not_logged(server, token)

    run_scenario(scenario())


def expect_refusal(server: ServerProcess, command: dict[str, Any], token: str, code: int) -> None:
    """A connected user sends it: an error below 3000, the end otherwise. Nobody else notices."""

    async def scenario() -> None:
        async with undisturbed_traffic(server), JSONClient.connect(server.port, good()) as client:
            assert await client.request_code(**command) == code
            if code < 3000:
                assert "subscribe" in await client.request(subscribe={"channel": "room"})
        assert_not_logged(server, token)

    run_scenario(scenario())
