"""`beaconfire token`: make connection and subscription tokens, and look into one.

The making commands print the token and nothing else, so that `TOKEN=$(beaconfire token connection …)` works.
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

token_app = typer.Typer(help="Make and inspect connection and subscription tokens.", no_args_is_help=True)

_TIME_CLAIMS = ("exp", "nbf", "iat", "expire_at")

User = Annotated[str, typer.Option("--user", help="User id; an empty text is the anonymous user.")]
Ttl = Annotated[str, typer.Option("--ttl", help='How long the token is valid, like "10m"; 0 is forever.')]
Info = Annotated[str, typer.Option("--info", help="JSON that others see of this user, in presence and publications.")]
Secret = Annotated[str, typer.Option("--secret", help="HMAC secret, instead of the configuration's.")]
ConfigFile = Annotated[
    str, typer.Option("--config", help="Configuration file whose keys, audience and issuer are used.")
]
PrivateKey = Annotated[str, typer.Option("--private-key", help="PEM file of a private key that signs the token.")]
Algorithm = Annotated[
    str, typer.Option("--algorithm", help="Like HS512 or RS256; HS256, or what suits the private key, if left out.")
]
Kid = Annotated[str, typer.Option("--kid", help="Key id to put into the header, for key sets.")]


@token_app.command()
def connection(
    user: User,
    ttl: Ttl = "1d",
    channel: Annotated[
        list[str] | None, typer.Option("--channel", help="Subscribe the connection to this channel; repeatable.")
    ] = None,
    info: Info = "",
    secret: Secret = "",
    config: ConfigFile = "",
    private_key: PrivateKey = "",
    algorithm: Algorithm = "",
    kid: Kid = "",
) -> None:
    """Print a token with which a client connects as USER."""
    options = _signing_options(secret, config, private_key, subscription=False)
    claims = _claims(options, user, ttl) | _json_claims(info=info)
    if channel:
        claims["channels"] = channel
    _print_signed(claims, options, private_key, algorithm, kid)


@token_app.command()
def subscription(
    user: User,
    channel: Annotated[str, typer.Option("--channel", help="The channel the token is for.")],
    ttl: Ttl = "1d",
    info: Info = "",
    data: Annotated[str, typer.Option("--data", help="JSON that the client gets with the subscription.")] = "",
    client: Annotated[str, typer.Option("--client", help="The only client id that may use the token.")] = "",
    secret: Secret = "",
    config: ConfigFile = "",
    private_key: PrivateKey = "",
    algorithm: Algorithm = "",
    kid: Kid = "",
) -> None:
    """Print a token with which USER subscribes to one channel."""
    if not channel:
        _refuse("--channel: expected the name of a channel")
    options = _signing_options(secret, config, private_key, subscription=True)
    claims = _claims(options, user, ttl) | {"channel": channel} | _json_claims(info=info, data=data)
    if client:
        claims["client"] = client
    _print_signed(claims, options, private_key, algorithm, kid)


@token_app.command()
def inspect(
    token: Annotated[str, typer.Argument(help="The token; - reads it from standard input.")],
    secret: Secret = "",
    config: ConfigFile = "",
) -> None:
    """Show what TOKEN says and whether it is valid; exit code 1 if it is not."""
    text = (sys.stdin.read() if token == "-" else token).strip()
    console = Console(soft_wrap=True, highlight=False)
    try:
        contents = inspect_token(text)
    except ValueError as error:
        console.print(Text(f"not valid: {error}", "bold red"))
        raise typer.Exit(1) from None
    is_subscription = bool(contents.claims.get("channel"))
    options, section = _options(secret, config, key_given=bool(secret), subscription=is_subscription)
    problem = _problem(text, options, section, is_subscription)
    if secret:
        problem = problem.replace(f"{section}.hmac_secret", "--secret")
    _print_contents(console, contents)
    kind = "subscription" if is_subscription else "connection"
    if problem:
        console.print(Text(f"not valid as a {kind} token: {problem}", "bold red"))
        raise typer.Exit(1)
    console.print(Text(f"valid {kind} token", "bold green"))


# --- settings ----------------------------------------------------------------------------------------------------


def _options(secret: str, config: str, *, key_given: bool, subscription: bool) -> tuple[TokenOptions, str]:
    """How the token is verified, and the name of the section that says so.

    The configuration is looked at if it is named or no key is given; a secret of its own takes the place of its secret.
    """
    options, section = _configured(config, subscription) if config or not key_given else (TokenOptions(), "token")
    return (msgspec.structs.replace(options, hmac_secret=secret) if secret else options), section


def _configured(config: str, subscription: bool) -> tuple[TokenOptions, str]:
    # Imported here because it knows every part of the house, and most uses of this command need none of it.
    from beaconfire.config import ConfigError, load

    try:
        loaded = load(config or None, os.environ, {})
    except ConfigError as error:
        _refuse(str(error))
    if subscription and loaded.subscription_token is not None:
        return loaded.subscription_token, "subscription_token"
    return loaded.token, "token"


# --- making ------------------------------------------------------------------------------------------------------


def _signing_options(secret: str, config: str, private_key: str, *, subscription: bool) -> TokenOptions:
    if secret and private_key:
        _refuse("--secret and --private-key: expected one of them")
    return _options(secret, config, key_given=bool(secret or private_key), subscription=subscription)[0]


def _claims(options: TokenOptions, user: str, ttl: str) -> dict[str, object]:
    """The claims every token has, such that a server with these options takes it."""
    try:
        lifetime_s = Seconds.parse(ttl)
    except ValueError as error:
        _refuse(f"--ttl: {error}")
    claims = standard_claims(user, now_unix_s=time.time(), expires_in_s=lifetime_s or None)
    if options.user_id_claim:
        claims[options.user_id_claim] = claims.pop("sub")
    if options.audience:
        claims["aud"] = options.audience
    if options.issuer:
        claims["iss"] = options.issuer
    return claims


def _json_claims(**texts: str) -> dict[str, object]:
    claims: dict[str, object] = {}
    for name, text in texts.items():
        if text:
            try:
                msgspec.json.decode(text)
            except (ValueError, RecursionError):
                _refuse(f'--{name}: expected JSON like {{"name": "Ann"}}')
            claims[name] = msgspec.Raw(text.encode())
    return claims


def _print_signed(claims: dict[str, object], options: TokenOptions, private_key: str, algorithm: str, kid: str) -> None:
    if not private_key and not options.hmac_secret:
        _refuse("no key to sign with: give --secret, --private-key, or a --config with [token] hmac_secret")
    try:
        key = Path(private_key).read_text(encoding="utf-8") if private_key else options.hmac_secret
        algorithm = algorithm or (algorithm_for(key) if private_key else "HS256")
        token = sign_claims(key, claims, algorithm=algorithm, kid=kid)
    except OSError as error:
        _refuse(f"--private-key: {error.strerror}: {private_key}")
    except ValueError as error:
        _refuse(str(error))
    typer.echo(token)


def _refuse(text: str) -> NoReturn:
    typer.echo(text, err=True)
    raise typer.Exit(2)


# --- looking -----------------------------------------------------------------------------------------------------


def _problem(token: str, options: TokenOptions, section: str, is_subscription: bool) -> str:
    """Why the token is not valid; empty if it is. Says why it cannot be told, too."""

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
            line = Text("  ").append(_printable(name).ljust(width), "cyan").append("  ").append(_shown(name, value))
            console.print(line)


def _shown(name: str, value: Any) -> str:
    text = _printable(msgspec.json.encode(value).decode())
    if name in _TIME_CLAIMS and isinstance(value, int | float) and value > 0:
        return f"{text}  {_date(value)}"
    return text


def _date(unix_s: float) -> str:
    try:
        date = datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):
        return "beyond the calendar"
    ahead_s = unix_s - time.time()
    distance = Seconds(round(abs(ahead_s)))
    for unit_s in (86400, 3600, 60):
        if distance >= 2 * unit_s:
            distance = Seconds(round(distance / unit_s) * unit_s)
            break
    return f"{date}, in {distance}" if ahead_s > 0 else f"{date}, {distance} ago"


def _printable(text: str) -> str:
    """A token is a stranger's text, and a terminal obeys control characters."""
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)
