"""`beaconfire token`: create connection and subscription tokens, and inspect a token.

The commands that create a token print only the token, so that `TOKEN=$(beaconfire token connection …)` works.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn

import msgspec
import typer
from rich.console import Console
from rich.text import Text

from beaconfire.auth.issue import (
    TokenContents,
    algorithm_for,
    inspect_token,
    sign_claims,
    standard_claims,
)
from beaconfire.auth.options import TokenOptions
from beaconfire.auth.tokens import JWTVerifier
from beaconfire.base.clock import SystemClock
from beaconfire.base.units import Seconds
from beaconfire.model.events import NoEvents
from beaconfire.policy.tokens import TokenError

token_app = typer.Typer(help="Create and inspect connection and subscription tokens.", no_args_is_help=True)

_TIME_CLAIMS = ("exp", "nbf", "iat", "expire_at")

User = Annotated[str, typer.Option("--user", help="User ID; an empty text means the anonymous user.")]
Ttl = Annotated[str, typer.Option("--ttl", help='How long the token is valid, like "10m"; 0 means without expiry.')]
Info = Annotated[
    str, typer.Option("--info", help="JSON about the user that other clients see in presence and publications.")
]
Secret = Annotated[str, typer.Option("--secret", help="HMAC secret; replaces the secret of the configuration.")]
ConfigFile = Annotated[str, typer.Option("--config", help="Configuration file with the keys, audience and issuer.")]
PrivateKey = Annotated[str, typer.Option("--private-key", help="PEM file with the private key that signs the token.")]
Algorithm = Annotated[
    str,
    typer.Option(
        "--algorithm", help="Algorithm, like HS512 or RS256. Default: HS256, or the algorithm of the private key."
    ),
]
Kid = Annotated[str, typer.Option("--kid", help="Key ID in the header of the token, for key sets.")]


@token_app.command()
def connection(
    user: User,
    ttl: Ttl = "1d",
    channel: Annotated[
        list[str] | None, typer.Option("--channel", help="Subscribe the connection to this channel; may be repeated.")
    ] = None,
    info: Info = "",
    secret: Secret = "",
    config: ConfigFile = "",
    private_key: PrivateKey = "",
    algorithm: Algorithm = "",
    kid: Kid = "",
) -> None:
    """Print a token that lets a client connect as USER."""
    options = _load_signing_options(secret, config, private_key, subscription=False)
    claims = _make_claims(options, user, ttl) | _parse_json_claims(info=info)
    if channel:
        claims["channels"] = channel
    _print_signed(claims, options, private_key, algorithm, kid)


@token_app.command()
def subscription(
    user: User,
    channel: Annotated[str, typer.Option("--channel", help="Channel of the subscription.")],
    ttl: Ttl = "1d",
    info: Info = "",
    data: Annotated[str, typer.Option("--data", help="JSON that the client receives with the subscription.")] = "",
    client: Annotated[str, typer.Option("--client", help="Client ID; no other client may use the token.")] = "",
    secret: Secret = "",
    config: ConfigFile = "",
    private_key: PrivateKey = "",
    algorithm: Algorithm = "",
    kid: Kid = "",
) -> None:
    """Print a token that lets USER subscribe to one channel."""
    if not channel:
        _fail("--channel: expected the name of a channel")
    options = _load_signing_options(secret, config, private_key, subscription=True)
    claims = _make_claims(options, user, ttl) | {"channel": channel} | _parse_json_claims(info=info, data=data)
    if client:
        claims["client"] = client
    _print_signed(claims, options, private_key, algorithm, kid)


@token_app.command()
def inspect(
    token: Annotated[str, typer.Argument(help="The token; - reads the token from standard input.")],
    secret: Secret = "",
    config: ConfigFile = "",
) -> None:
    """Show the header and claims of TOKEN and whether it is valid; exit code 1 if it is not."""
    text = (sys.stdin.read() if token == "-" else token).strip()
    console = Console(soft_wrap=True, highlight=False)
    try:
        contents = inspect_token(text)
    except ValueError as error:
        console.print(Text(f"not valid: {error}", "bold red"))
        raise typer.Exit(1) from None
    is_subscription = bool(contents.claims.get("channel"))
    options, section = _select_options(secret, config, key_given=bool(secret), subscription=is_subscription)
    problem = _find_problem(text, options, section, is_subscription)
    if secret:
        problem = problem.replace(f"{section}.hmac_secret", "--secret")
    _print_contents(console, contents)
    kind = "subscription" if is_subscription else "connection"
    if problem:
        console.print(Text(f"not valid as a {kind} token: {problem}", "bold red"))
        raise typer.Exit(1)
    console.print(Text(f"valid {kind} token", "bold green"))


# --- settings ----------------------------------------------------------------------------------------------------


def _select_options(secret: str, config: str, *, key_given: bool, subscription: bool) -> tuple[TokenOptions, str]:
    """Returns the token options and the name of their section.

    The configuration is read if a file is named or if no key is given. `secret` replaces the secret of the
    configuration.
    """
    options, section = _load_options(config, subscription) if config or not key_given else (TokenOptions(), "token")
    return (msgspec.structs.replace(options, hmac_secret=secret) if secret else options), section


def _load_options(config: str, subscription: bool) -> tuple[TokenOptions, str]:
    # Imported here because the configuration imports the options of every part; most uses of this command need none.
    from beaconfire.config import ConfigError, load

    try:
        loaded = load(config or None, os.environ, {})
    except ConfigError as error:
        _fail(str(error))
    if subscription and loaded.subscription_token is not None:
        return loaded.subscription_token, "subscription_token"
    return loaded.token, "token"


# --- creating ----------------------------------------------------------------------------------------------------


def _load_signing_options(secret: str, config: str, private_key: str, *, subscription: bool) -> TokenOptions:
    if secret and private_key:
        _fail("--secret and --private-key: expected one of them, not both")
    return _select_options(secret, config, key_given=bool(secret or private_key), subscription=subscription)[0]


def _make_claims(options: TokenOptions, user: str, ttl: str) -> dict[str, object]:
    """Returns the claims of every token, so that a server with these options accepts it."""
    try:
        lifetime_s = Seconds.parse(ttl)
    except ValueError as error:
        _fail(f"--ttl: {error}")
    claims = standard_claims(user, now_unix_s=time.time(), expires_in_s=lifetime_s or None)
    if options.user_id_claim:
        claims[options.user_id_claim] = claims.pop("sub")
    if options.audience:
        claims["aud"] = options.audience
    if options.issuer:
        claims["iss"] = options.issuer
    return claims


def _parse_json_claims(**texts: str) -> dict[str, object]:
    claims: dict[str, object] = {}
    for name, text in texts.items():
        if text:
            try:
                msgspec.json.decode(text)
            except (ValueError, RecursionError):
                _fail(f'--{name}: expected JSON like {{"name": "Ann"}}')
            claims[name] = msgspec.Raw(text.encode())
    return claims


def _print_signed(claims: dict[str, object], options: TokenOptions, private_key: str, algorithm: str, kid: str) -> None:
    if not private_key and not options.hmac_secret:
        _fail("no key to sign with: give --secret, --private-key, or a --config with [token] hmac_secret")
    try:
        key = Path(private_key).read_text(encoding="utf-8") if private_key else options.hmac_secret
        algorithm = algorithm or (algorithm_for(key) if private_key else "HS256")
        token = sign_claims(key, claims, algorithm=algorithm, kid=kid)
    except OSError as error:
        _fail(f"--private-key: {error.strerror}: {private_key}")
    except ValueError as error:
        _fail(str(error))
    typer.echo(token)


def _fail(text: str) -> NoReturn:
    typer.echo(text, err=True)
    raise typer.Exit(2)


# --- inspecting --------------------------------------------------------------------------------------------------


def _find_problem(token: str, options: TokenOptions, section: str, is_subscription: bool) -> str:
    """Returns why the token is not valid or cannot be verified; empty if it is valid."""

    async def verify(verifier: JWTVerifier) -> None:
        try:
            await (verifier.verify_subscription(token) if is_subscription else verifier.verify_connection(token))
        finally:
            await verifier.close()

    try:
        asyncio.run(verify(JWTVerifier(options, SystemClock(), NoEvents(), section=section)))
    except (TokenError, ValueError) as error:
        return str(error)
    return ""


def _print_contents(console: Console, contents: TokenContents) -> None:
    for title, members in (("header", contents.header), ("claims", contents.claims)):
        console.print(Text(title, "bold"))
        width = max(map(len, members), default=0)
        for name, value in members.items():
            line = Text("  ").append(_escape(name).ljust(width), "cyan").append("  ").append(_format_claim(name, value))
            console.print(line)


def _format_claim(name: str, value: Any) -> str:
    text = _escape(msgspec.json.encode(value).decode())
    if name in _TIME_CLAIMS and isinstance(value, int | float) and value > 0:
        return f"{text}  {_format_date(value)}"
    return text


def _format_date(unix_s: float) -> str:
    try:
        date = datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):
        return "not a valid date"
    ahead_s = unix_s - time.time()
    distance = Seconds(round(abs(ahead_s)))
    for unit_s in (86400, 3600, 60):
        if distance >= 2 * unit_s:
            distance = Seconds(round(distance / unit_s) * unit_s)
            break
    return f"{date}, in {distance}" if ahead_s > 0 else f"{date}, {distance} ago"


def _escape(text: str) -> str:
    """Escapes control characters, because a token is untrusted text and a terminal executes them."""
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)
