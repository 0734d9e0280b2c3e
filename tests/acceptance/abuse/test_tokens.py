"""Invalid tokens of many kinds. The server accepts none, other clients are undisturbed, and no token is in the log."""

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
from tests.acceptance.server_state import count_limit_hits, healthy_server

SECRET = "the-secret-that-must-never-be-in-a-log"
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
[namespaces.private]
[log]
level = "debug"
'''
"""The most verbose log level, and reasons for clients."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that accepts tokens with HS256 or RS256."""
    with healthy_server(tmp_path_factory.mktemp("server"), config=CONFIG) as process:
        yield process


def make_claims(**changes: object) -> dict[str, object]:
    """The claims of a valid connection token, with these changes."""
    now = int(time.time())
    return {"sub": "ann", "iat": now, "exp": now + 600, "aud": "chat", "iss": "bank"} | changes


def claims_without(name: str) -> dict[str, object]:
    return {key: value for key, value in make_claims().items() if key != name}


def forge_token(header: object, payload: object, secret: bytes | None = None) -> str:
    """A token with any header and payload, with an HMAC-SHA256 signature, or without a signature."""
    signing_input = ".".join(encode_base64url(json.dumps(part).encode()) for part in (header, payload))
    signature = b"" if secret is None else hmac.new(secret, signing_input.encode(), hashlib.sha256).digest()
    return f"{signing_input}.{encode_base64url(signature)}"


def encode_base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def sign_token(**changes: object) -> str:
    """A token with a valid signature and these changes of valid claims."""
    return sign_claims(SECRET, make_claims(**changes))


def token_with_signature_of_another() -> str:
    """The claims of one token with the signature of another token."""
    return ".".join([*sign_token(sub="admin").split(".")[:2], sign_token().split(".")[2]])


HS256 = {"alg": "HS256", "typ": "JWT"}

INVALID: dict[str, Callable[[], str]] = {
    "wrong secret": lambda: sign_claims("some-other-secret-of-decent-length-here", make_claims()),
    "alg none": lambda: forge_token({"alg": "none"}, make_claims()),
    "alg None": lambda: forge_token({"alg": "None"}, make_claims()),
    "alg none with a signature": lambda: forge_token({"alg": "none"}, make_claims(), SECRET.encode()),
    "no alg": lambda: forge_token({"typ": "JWT"}, make_claims(), SECRET.encode()),
    "alg is a number": lambda: forge_token({"alg": 256}, make_claims(), SECRET.encode()),
    "unknown alg": lambda: forge_token({"alg": "HS1"}, make_claims(), SECRET.encode()),
    "HS256 with the public key": lambda: forge_token(HS256, make_claims(), RSA_PUBLIC.encode()),
    "HS256 with the public key, stripped": lambda: forge_token(HS256, make_claims(), RSA_PUBLIC.strip().encode()),
    "RS256 over an HMAC": lambda: forge_token({"alg": "RS256"}, make_claims(), SECRET.encode()),
    "ES256 without such a key": lambda: sign_claims(OTHER_EC, make_claims(), algorithm="ES256"),
    "critical extension": lambda: forge_token(HS256 | {"crit": ["b64"], "b64": False}, make_claims(), SECRET.encode()),
    "empty secret": lambda: forge_token(HS256, make_claims(), b""),
    "incomplete signature": lambda: sign_token()[:-5],
    "no signature": lambda: sign_token().rpartition(".")[0] + ".",
    "signature of another token": token_with_signature_of_another,
    "wrong audience": lambda: sign_token(aud="mail"),
    "no audience": lambda: sign_claims(SECRET, claims_without("aud")),
    "wrong issuer": lambda: sign_token(iss="other"),
    "no issuer": lambda: sign_claims(SECRET, claims_without("iss")),
    "sub is a number": lambda: sign_token(sub=42),
    "sub is a list": lambda: sign_token(sub=["ann"]),
    "sub is null": lambda: sign_token(sub=None),
    "exp is a string": lambda: sign_token(exp="tomorrow"),
    "not yet valid": lambda: sign_token(nbf=int(time.time()) + 600),
    "iat is a string": lambda: sign_token(iat="now"),
    "channels is a number": lambda: sign_token(channels=5),
    "claims are a list": lambda: forge_token(HS256, [1, 2], SECRET.encode()),
    "claims are not JSON": lambda: sign_bytes(b"{"),
    "deeply nested claims": lambda: sign_bytes(b"[" * 10_000),
    "no dots": lambda: "x",
    "only dots": lambda: "..",
    "letters": lambda: "a.b.c",
    "not ASCII": lambda: "é.ü.ß",
    "NUL": lambda: "\x00.\x00.\x00",
    "60 KB": lambda: sign_token(info="x" * 40_000),
    "60,000 dots": lambda: "." * 60_000,
}


def sign_bytes(payload: bytes) -> str:
    """A token with a valid signature whose payload is these bytes."""
    signing_input = f"{encode_base64url(json.dumps(HS256).encode())}.{encode_base64url(payload)}"
    signature = hmac.new(SECRET.encode(), signing_input.encode(), hashlib.sha256).digest()
    return f"{signing_input}.{encode_base64url(signature)}"


def assert_not_logged(server: ServerProcess, token: str) -> None:
    """Fails if any log line contains a secret, or the first 16 characters of a part of the token."""
    log = json.dumps(list(server.log))
    assert SECRET not in log
    assert RSA_PRIVATE[100:140] not in log
    for part in token.split("."):
        assert len(part) < 16 or part[:16] not in log


@pytest.mark.parametrize("kind", INVALID)
def test_invalid_connection_token_closes_the_connection_with_3500(server: ServerProcess, kind: str) -> None:
    """Code 3500 tells the client not to reconnect. The close reason contains no secret."""
    token = INVALID[kind]()

    async def scenario() -> None:
        async with undisturbed_traffic(server), await RawPeer.connect_websocket(server.port) as peer:
            await peer.send_json({"id": 1, "connect": {"token": token}})
            close = await peer.read_close_frame()
            assert close.close_code == 3500
            assert SECRET.encode() not in close.payload
        assert_not_logged(server, token)

    run_scenario(scenario())


def test_token_beyond_token_length_max_is_counted(server: ServerProcess) -> None:
    """The token is refused for its length, and the metric counts the refusal."""

    async def scenario() -> None:
        before = await count_limit_hits(server, "token_length_max")
        async with await RawPeer.connect_websocket(server.port) as peer:
            await peer.send_json({"id": 1, "connect": {"token": sign_token(info="x" * 40_000)}})
            assert (await peer.read_close_frame()).close_code == 3500
        assert await count_limit_hits(server, "token_length_max") == before + 1

    run_scenario(scenario())


def test_token_of_a_megabyte_is_closed_with_1009(server: ServerProcess) -> None:
    """The message exceeds the size limit of the transport before the server reads the token."""
    token = sign_token(info="x" * 750_000)

    async def scenario() -> None:
        async with undisturbed_traffic(server), await RawPeer.connect_websocket(server.port) as peer:
            await peer.send(encode_frame(TEXT, json.dumps({"id": 1, "connect": {"token": token}}).encode()))
            assert (await peer.read_close_frame()).close_code == 1009
        assert_not_logged(server, token)

    run_scenario(scenario())


def test_expired_connection_token_gets_error_109(server: ServerProcess) -> None:
    """The connection stays open, so that the client can get a new token. Any other command closes it with 3501."""
    token = sign_token(exp=int(time.time()) - 5)

    async def scenario() -> None:
        async with undisturbed_traffic(server), await RawPeer.connect_websocket(server.port) as peer:
            await peer.send_json({"id": 1, "connect": {"token": token}})
            assert (await peer.read_reply(1))["error"]["code"] == 109
            await peer.send_json({"id": 2, "subscribe": {"channel": "room"}})
            assert (await peer.read_close_frame()).close_code == 3501
        assert_not_logged(server, token)

    run_scenario(scenario())


VALID: dict[str, Callable[[], str]] = {
    "HS256": sign_token,
    "RS256": lambda: sign_claims(RSA_PRIVATE, make_claims(), algorithm="RS256"),
    "iat in the future": lambda: sign_token(iat=time.time() + 60),
}


@pytest.mark.parametrize("kind", VALID)
def test_valid_token_is_accepted(server: ServerProcess, kind: str) -> None:
    """The tests of invalid tokens depend on this rule. A valid token is not in the log either."""
    token = VALID[kind]()

    async def scenario() -> None:
        async with JSONClient.connect(server.port, token) as client:
            assert list(client.connect_reply["subs"]) == ["#ann"]
        assert_not_logged(server, token)

    run_scenario(scenario())


SUBSCRIPTION_TOKENS: dict[str, tuple[dict[str, object], str, int]] = {
    "expired": ({"exp": 1_000_000_000}, SECRET, 109),
    "wrong secret": ({}, "some-other-secret-of-decent-length-here", 103),
    "wrong audience": ({"aud": "mail"}, SECRET, 103),
    "wrong issuer": ({"iss": "other"}, SECRET, 103),
    "channel is a number": ({"channel": 7}, SECRET, 103),
    "no channel": ({"channel": None}, SECRET, 103),
    "another channel": ({"channel": "private:other"}, SECRET, 3500),
    "another user": ({"sub": "bob"}, SECRET, 3500),
    "another client": ({"client": "someone-else"}, SECRET, 3500),
    "longer than 16 KiB": ({"info": "x" * 20_000}, SECRET, 103),
}


@pytest.mark.parametrize("kind", SUBSCRIPTION_TOKENS)
def test_invalid_subscription_token_gets_its_code(server: ServerProcess, kind: str) -> None:
    """The reply is an error. A token of another user, client or channel closes the connection with 3500."""
    changes, secret, code = SUBSCRIPTION_TOKENS[kind]
    token = sign_claims(secret, make_claims(channel="private:room") | changes)
    assert_refused(server, {"subscribe": {"channel": "private:room", "token": token}}, token, code)


@pytest.mark.parametrize(
    "token",
    ["x", "..", forge_token({"alg": "none"}, make_claims(channel="private:room"))],
    ids=["no dots", "only dots", "alg none"],
)
def test_forged_subscription_token_gets_error_103(server: ServerProcess, token: str) -> None:
    """The error is `permission denied`."""
    assert_refused(server, {"subscribe": {"channel": "private:room", "token": token}}, token, 103)


@pytest.mark.parametrize(
    ("changes", "secret", "code"),
    [
        ({"exp": 1_000_000_000}, SECRET, 3005),
        ({}, "some-other-secret-of-decent-length-here", 3500),
        ({"sub": "bob"}, SECRET, 3500),
    ],
)
def test_invalid_refresh_token_closes_the_connection(
    server: ServerProcess, changes: dict[str, object], secret: str, code: int
) -> None:
    """After 3005, for an expired token, the client may reconnect. After 3500, for an invalid token, it must not."""
    token = sign_claims(secret, make_claims() | changes)
    assert_refused(server, {"refresh": {"token": token}}, token, code)


@pytest.mark.parametrize(
    ("changes", "secret", "code"),
    [
        ({"exp": 1_000_000_000}, SECRET, 3006),
        ({}, "some-other-secret-of-decent-length-here", 3500),
        ({"sub": "bob"}, SECRET, 3500),
        ({"channel": "private:other"}, SECRET, 3500),
    ],
)
def test_invalid_sub_refresh_token_closes_the_connection(
    server: ServerProcess, changes: dict[str, object], secret: str, code: int
) -> None:
    """After 3006, for an expired token, the client may reconnect. After 3500, for an invalid token, it must not."""
    token = sign_claims(secret, make_claims(channel="private:room") | changes)

    async def scenario() -> None:
        async with undisturbed_traffic(server), JSONClient.connect(server.port, sign_token()) as client:
            first = sign_token(channel="private:room")
            assert await client.request_code(subscribe={"channel": "private:room", "token": first}) == 0
            assert await client.request_code(sub_refresh={"channel": "private:room", "token": token}) == code
        assert_not_logged(server, token)

    run_scenario(scenario())


def assert_refused(server: ServerProcess, command: dict[str, Any], token: str, code: int) -> None:
    """Fails unless the server answers the command of a connected client with the code.

    A code below 3000 is an error, and the connection stays open. Other codes close the connection.
    """

    async def scenario() -> None:
        async with undisturbed_traffic(server), JSONClient.connect(server.port, sign_token()) as client:
            assert await client.request_code(**command) == code
            if code < 3000:
                assert "subscribe" in await client.request(subscribe={"channel": "room"})
        assert_not_logged(server, token)

    run_scenario(scenario())
