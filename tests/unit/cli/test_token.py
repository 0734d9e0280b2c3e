"""`beaconfire token`: creating and inspecting tokens."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from typer.testing import CliRunner, Result

from beaconfire.auth.issue import connection_token, inspect_token, sign_claims
from beaconfire.cli.token import token_app

SECRET = "a secret with more than thirty-two bytes"


def run(*arguments: str, stdin: str = "", env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(token_app, arguments, input=stdin, env=env)


def create_token(*arguments: str, env: dict[str, str] | None = None) -> str:
    """Returns the printed token, and checks that the command prints nothing else."""
    result = run(*arguments, env=env)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    token = result.stdout.removesuffix("\n")
    assert token.count(".") == 2
    assert not token.endswith("\n")
    return token


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "beaconfire.toml"
    path.write_text(
        f'[token]\nhmac_secret = "{SECRET}"\naudience = "us"\nissuer = "me"\nuser_id_claim = "uid"\n'
        f'[subscription_token]\nhmac_secret = "other {SECRET}"\n'
    )
    return str(path)


def test_connection_token_with_all_options() -> None:
    """The token contains all options and is valid."""
    began = int(time.time())
    token = create_token(
        *("connection", "--user", "42", "--ttl", "10m", "--channel", "news", "--channel", "chat"),
        *("--info", '{"name": "Ann"}', "--secret", SECRET, "--algorithm", "HS512", "--kid", "k1"),
    )
    contents = inspect_token(token)
    assert contents.header == {"alg": "HS512", "typ": "JWT", "kid": "k1"}
    iat, exp = contents.claims.pop("iat"), contents.claims.pop("exp")
    assert contents.claims == {"sub": "42", "channels": ["news", "chat"], "info": {"name": "Ann"}}
    assert began <= iat <= time.time()
    assert exp - iat in (600, 601)
    assert run("inspect", token, "--secret", SECRET).exit_code == 0


def test_subscription_token_with_all_options() -> None:
    """The token contains all options. With a TTL of zero it has no expiry."""
    token = create_token(
        *("subscription", "--user", "42", "--channel", "$news", "--ttl", "0", "--client", "c1"),
        *("--info", "1", "--data", "[2]", "--secret", SECRET),
    )
    claims = inspect_token(token).claims
    claims.pop("iat")
    assert claims == {"sub": "42", "channel": "$news", "client": "c1", "info": 1, "data": [2]}
    assert "valid subscription token" in run("inspect", token, "--secret", SECRET).stdout


def test_configuration_signs_and_verifies(config: str) -> None:
    """Key, audience, issuer and user claim come from the section that the server uses for this kind of token."""
    token = create_token("connection", "--user", "42", "--config", config)
    assert inspect_token(token).claims.items() >= {"uid": "42", "aud": "us", "iss": "me"}.items()
    assert run("inspect", token, "--config", config).exit_code == 0
    token = create_token("subscription", "--user", "42", "--channel", "news", "--config", config)
    assert inspect_token(token).claims["sub"] == "42"
    assert run("inspect", token, "--config", config).exit_code == 0
    result = run("inspect", token, "--secret", SECRET)
    assert result.exit_code == 1
    assert "not valid as a subscription token: signature does not match --secret" in result.stdout


def test_environment_signs_and_verifies() -> None:
    """Without options, the command uses the configuration with which the server would start."""
    env = {"BEACONFIRE_TOKEN_HMAC_SECRET": SECRET}
    token = create_token("connection", "--user", "42", env=env)
    assert run("inspect", token, env=env).exit_code == 0
    assert run("inspect", token, env={"BEACONFIRE_TOKEN_HMAC_SECRET": "other"}).exit_code == 1


def test_private_key_signs(tmp_path: Path) -> None:
    """The key selects the algorithm. The public key in the configuration verifies the token."""
    key = generate_private_key(SECP384R1())
    path = tmp_path / "key.pem"
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    token = create_token("connection", "--user", "42", "--private-key", str(path))
    assert inspect_token(token).header["alg"] == "ES384"
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    assert run("inspect", token, env={"BEACONFIRE_TOKEN_ECDSA_PUBLIC_KEY": public}).exit_code == 0
    result = run("connection", "--user", "42", "--private-key", str(path), "--algorithm", "ES256")
    assert result.exit_code == 2
    assert result.stderr == "algorithm ES256: expected a matching private key in PEM\n"


def test_inspect_shows_contents_and_dates() -> None:
    """The output has all claims, a date for each time claim, and the exact reason if the token is invalid."""
    token = connection_token(SECRET, "安", now_unix_s=1_700_000_000, expires_in_s=60, info={"a": "[bold]\x9b2J"})
    result = run("inspect", "-", "--secret", SECRET, stdin=token + "\n")
    assert result.exit_code == 1
    assert '"安"' in result.stdout
    assert '{"a":"[bold]\\u009b2J"}' in result.stdout
    assert "1700000060  2023-11-14 22:14:20 UTC, " in result.stdout
    assert "not valid as a connection token: claim exp: the token expired " in result.stdout


def test_inspect_shows_invalid_times() -> None:
    """A time claim with a wrong type, or too large for a date, does not make the command fail."""
    token = sign_claims(SECRET, {"exp": 10**15, "nbf": "soon", "iat": True})
    result = run("inspect", token, "--secret", SECRET)
    assert result.exit_code == 1
    assert "not a valid date" in result.stdout
    assert '"soon"' in result.stdout
    assert "claim iat must be a number (unix time); it is a boolean" in result.stdout


def test_inspect_without_a_key_names_the_missing_setting() -> None:
    """A token that cannot be verified is not valid."""
    result = run("inspect", connection_token(SECRET, "42", now_unix_s=time.time()))
    assert result.exit_code == 1
    assert "alg HS256 is not accepted: token.hmac_secret holds no key for it" in result.stdout


@pytest.mark.parametrize("token", ["garbage", "a.b.c", ""])
def test_inspect_refuses_text_that_is_not_a_token(token: str) -> None:
    """The exit code is 1. The output is one line without a traceback."""
    result = run("inspect", token, "--secret", SECRET)
    assert result.exit_code == 1
    assert result.stdout.startswith("not valid: expected a JWT")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["connection", "--user", "42"], "no key to sign with: give --secret, --private-key, or a --config"),
        (["connection", "--user", "42", "--secret", "s", "--ttl", "soon"], "--ttl: expected a duration"),
        (["connection", "--user", "42", "--secret", "s", "--info", "{"], "--info: expected JSON"),
        (["connection", "--user", "42", "--secret", "s", "--algorithm", "none"], "algorithm none: expected one of"),
        (["connection", "--user", "42", "--private-key", "/missing.pem"], "--private-key: No such file"),
        (["connection", "--user", "42", "--secret", "s", "--private-key", "k"], "expected one of them"),
        (["connection", "--user", "42", "--config", "/missing.toml"], "/missing.toml"),
        (["inspect", "e30.e30.", "--config", "/missing.toml"], "/missing.toml"),
        (["subscription", "--user", "42", "--channel", "", "--secret", "s"], "--channel: expected the name"),
    ],
)
def test_invalid_options_print_nothing_to_stdout(arguments: list[str], text: str) -> None:
    """The exit code is 2 and the reason is on standard error, so that `$(...)` is empty."""
    result = run(*arguments)
    assert result.exit_code == 2
    assert text in result.stderr
    assert result.stdout == ""
