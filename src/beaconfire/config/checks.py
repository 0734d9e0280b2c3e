"""What no single value can say: settings that contradict each other, and texts that are no key, address or pattern.

Pure functions over frozen options. Each returns what is wrong, naming every setting involved.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from beaconfire.auth.options import TokenOptions
from beaconfire.auth.static_keys import option_problems
from beaconfire.base.options import Options
from beaconfire.base.units import Seconds
from beaconfire.channels.options import ChannelNameOptions, ChannelOptions
from beaconfire.protocols.plain.options import PlainOptions
from beaconfire.session.options import ClientOptions
from beaconfire.transports.endpoints import ENDPOINTS
from beaconfire.transports.options import ServerOptions

NAMESPACE_NAME = re.compile(r"[-a-zA-Z0-9_.]{2,}")
_TAKEN_PATHS = (
    *dict.fromkeys("/" + row.path.split("/")[1] for row in ENDPOINTS if row.path),
    "/client",
    "/api",
    "/metrics",
    "/health",
)
_DEMO_PATH = "/demo"

_ABOVE_ZERO: Mapping[str, tuple[str, ...]] = {
    "server": ("handshake_timeout", "header_max_size", "keep_alive_timeout", "shutdown_timeout"),
    "client": ("pong_timeout", "stale_close_delay", "presence_update_interval", "queue_max_size", "reply_max_size"),
    "websocket": ("message_size_limit", "write_timeout", "close_timeout"),
    "http_stream": ("max_request_body_size",),
    "sse": ("max_request_body_size",),
    "uni_http_stream": ("max_request_body_size",),
    "uni_sse": ("max_request_body_size",),
    "poll": ("max_request_body_size", "max_response_size", "max_wait"),
    "emulation": ("max_request_body_size",),
    "api": ("request_max_size", "response_max_size"),
    "engine": ("history_max_bytes",),
}
"""Limits that leave nothing if they are zero: every connection would be cut at once. They can't be switched off."""


class Violation(NamedTuple):
    """`keys` are the dotted names of the settings involved, the one to look at first in front."""

    keys: tuple[str, ...]
    text: str


def check_above_zero(section: str, options: Options) -> Iterator[Violation]:
    """`section` is the name of the table that `options` are."""
    for option in _ABOVE_ZERO[section]:
        if not getattr(options, option):
            yield Violation((f"{section}.{option}",), "expected more than zero, which would let nothing through")


def check_server(server: ServerOptions) -> Iterator[Violation]:
    for present, missing in (("tls_cert", "tls_key"), ("tls_key", "tls_cert")):
        if getattr(server, present) and not getattr(server, missing):
            yield Violation((f"server.{missing}", f"server.{present}"), f"expected a path, because {present} is set")
    for proxy in server.trusted_proxies:
        if proxy == "*" and len(server.trusted_proxies) > 1:
            yield Violation(("server.trusted_proxies",), 'expected "*" alone, because beside others it trusts nobody')
        elif proxy != "*" and not _is_proxy(proxy):
            yield Violation(
                ("server.trusted_proxies",),
                'expected IP addresses, networks like "10.0.0.0/8", "unix:" or "*" alone, '
                f'got "{proxy}", which no proxy\'s address ever equals',
            )


def _is_proxy(text: str) -> bool:
    """Whether uvicorn can recognise a proxy by it. What is no address it compares literally; of such texts only what
    stands for a Unix socket in X-Forwarded-For can be meant."""
    if text.startswith("unix:"):
        return True
    try:
        _ = ipaddress.ip_network(text) if "/" in text else ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def check_client(client: ClientOptions, namespaces: Mapping[str, ChannelOptions]) -> Iterator[Violation]:
    if 0 < client.ping_interval <= client.pong_timeout:
        yield Violation(
            ("client.pong_timeout", "client.ping_interval"),
            f"expected less than client.ping_interval ({client.ping_interval}), got {client.pong_timeout}",
        )
    personal = client.user_personal_channel_namespace
    if personal and personal not in namespaces:
        known = ", ".join(sorted(namespaces)) or "none"
        yield Violation(
            ("client.user_personal_channel_namespace",),
            f'expected the name of a configured namespace (known: {known}), got "{personal}"',
        )
    for origin in client.allowed_origins:
        if not _can_match_an_origin(origin):
            yield Violation(
                ("client.allowed_origins",),
                f'expected origins like "https://example.com" or "https://*.example.com:8443", got "{origin}", '
                "which no browser ever sends",
            )


def _can_match_an_origin(pattern: str) -> bool:
    """An origin is a scheme, a host and perhaps a port, with nothing after it (RFC 6454 §6.1), or the word null."""
    scheme, separator, rest = pattern.partition("://")
    if not separator:
        return pattern in ("null", "*")  # a wildcard stops at slashes, so no other pattern can hold a scheme
    return bool(scheme and rest) and "/" not in rest


def check_token(section: str, token: TokenOptions) -> Iterator[Violation]:
    for option, text in option_problems(token):
        yield Violation((f"{section}.{option}",), text)


def check_subscription_token(token: TokenOptions) -> Iterator[Violation]:
    if not has_key(token):
        yield Violation(
            ("subscription_token",),
            "expected a key; as it stands no subscription token can be verified. "
            "Leave the table out to verify them as [token] does",
        )
    yield from check_token("subscription_token", token)


def has_key(token: TokenOptions) -> bool:
    """Whether any token at all can be verified."""
    return bool(
        token.hmac_secret or token.rsa_public_key or token.ecdsa_public_key or token.eddsa_public_key or token.jwks_url
    )


def check_channel(table: str, channel: ChannelOptions, meta_ttl: Seconds) -> Iterator[Violation]:
    """`table` is `channel` or `namespaces.<name>`; `meta_ttl` holds where the channel's own is zero."""
    history = (f"{table}.history_size", f"{table}.history_ttl")
    if channel.history_size and not channel.history_ttl:
        yield Violation(history[::-1], "expected a duration above zero, because history_size is set")
    if channel.history_ttl and not channel.history_size:
        yield Violation(history, "expected an integer of 1 or more, because history_ttl is set")
    if channel.force_recovery and not (channel.history_size or channel.history_ttl):
        yield Violation(
            (f"{table}.force_recovery", *history), "recovery reads history: set history_size and history_ttl"
        )
    if channel.auto_cache_recover:
        if not channel.force_recovery:
            keys = (f"{table}.force_recovery", f"{table}.auto_cache_recover")
            yield Violation(keys, "expected true, because auto_cache_recover is set")
        if channel.force_recovery_mode != "cache":
            keys = (f"{table}.force_recovery_mode", f"{table}.auto_cache_recover")
            yield Violation(keys, 'expected "cache", because auto_cache_recover is set')
    for kind in channel.allowed_delta_types:
        if kind != "fossil":
            yield Violation((f"{table}.allowed_delta_types",), f'expected "fossil", and nothing else, got "{kind}"')
    if channel.delta_publish and not channel.allowed_delta_types:
        keys = (f"{table}.allowed_delta_types", f"{table}.delta_publish")
        yield Violation(keys, 'expected ["fossil"], because delta_publish is set')
    kept = channel.history_meta_ttl or meta_ttl
    if kept < channel.history_ttl:
        name = f"{table}.history_meta_ttl" if channel.history_meta_ttl else "engine.history_meta_ttl"
        text = f"expected at least {table}.history_ttl ({channel.history_ttl}), got {kept}"
        yield Violation((name, f"{table}.history_ttl"), text)
    try:
        re.compile(channel.channel_regex)
    except re.error as error:
        yield Violation((f"{table}.channel_regex",), f"expected a regular expression: {error}")


def check_namespace_names(namespaces: Mapping[str, ChannelOptions]) -> Iterator[Violation]:
    for name in namespaces:
        if not NAMESPACE_NAME.fullmatch(name):
            yield Violation(
                (f"namespaces.{name}",),
                "expected a name of two or more of the characters a-z, A-Z, 0-9, dash, underscore and dot",
            )


def check_channel_names(names: ChannelNameOptions) -> Iterator[Violation]:
    """Two equal symbols would make one name readable in two ways."""
    symbols = ("private_prefix", "namespace_boundary", "user_boundary", "user_separator")
    owner: dict[str, str] = {}
    for name in symbols:
        symbol = getattr(names, name)
        if symbol and symbol in owner:
            other = owner[symbol]
            yield Violation((f"channel_names.{name}", f"channel_names.{other}"), f'"{symbol}" is {other} already')
        owner.setdefault(symbol, name)


def check_plain(
    plain: PlainOptions, demo: bool, names: ChannelNameOptions, namespaces: Mapping[str, ChannelOptions]
) -> Iterator[Violation]:
    if not plain.enabled:
        return
    path = plain.path.rstrip("/")
    for taken in (*_TAKEN_PATHS, _DEMO_PATH) if demo else _TAKEN_PATHS:
        if path == taken or path.startswith(f"{taken}/"):
            yield Violation(("plain.path",), f'expected a path of its own, got "{plain.path}", but {taken} is taken')
    if not path and demo:
        yield Violation(("plain.path", "server.demo"), 'expected a path of its own, got "/", where the demo is')
    if plain.lobby:
        yield from _check_lobby(plain.lobby_channel, names, namespaces)


def _check_lobby(
    channel: str, names: ChannelNameOptions, namespaces: Mapping[str, ChannelOptions]
) -> Iterator[Violation]:
    """Every connection enters it, so one that cannot exist would let nobody in."""
    boundary = names.namespace_boundary
    if boundary and boundary in channel:
        name = channel.removeprefix(names.private_prefix).split(boundary, 1)[0]
        if name not in namespaces:
            known = ", ".join(sorted(namespaces)) or "none"
            yield Violation(
                ("plain.lobby_channel",),
                f'expected a channel without a namespace or in a configured one (known: {known}), got "{channel}"',
            )
