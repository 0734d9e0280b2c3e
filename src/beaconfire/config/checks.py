"""Checks that need more than the type and bounds of one value.

They find settings that contradict each other, and text that is not a valid key, address or pattern. The functions are
pure; each yields its violations with the names of all settings involved.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from beaconfire.auth.options import TokenOptions
from beaconfire.auth.static_keys import option_problems
from beaconfire.channels.options import ChannelNameOptions, ChannelOptions
from beaconfire.config.sections import Config
from beaconfire.engines.options import DURABILITIES, EMBEDDED, EngineOptions, MigrationOptions, RedisOptions
from beaconfire.protocols.plain.options import PlainOptions
from beaconfire.session.options import ClientOptions
from beaconfire.transports.endpoint_table import ENDPOINTS
from beaconfire.transports.options import ServerOptions

_NAMESPACE_NAME = re.compile(r"[-a-zA-Z0-9_.]{2,}")
_RESERVED_PATHS = (
    *dict.fromkeys("/" + row.path.split("/")[1] for row in ENDPOINTS if row.path),
    "/client",
    "/api",
    "/metrics",
    "/health",
)
_DEMO_PATH = "/demo"


class Violation(NamedTuple):
    """`keys` are the full names of the settings involved; the first is the one to change."""

    keys: tuple[str, ...]
    text: str


def check_config(config: Config) -> Iterator[Violation]:
    """Yields every violation in the whole configuration."""
    yield from check_server(config.server)
    yield from check_client(config.client, config.namespaces)
    yield from check_token("token", config.token)
    if config.subscription_token is not None:
        yield from check_subscription_token(config.subscription_token)
    yield from check_redis(config.redis, config.engine, config.migration)
    yield from check_migration(config.migration, config.engine)
    yield from check_channel("channel", config.channel, config.engine)
    yield from check_namespace_names(config.namespaces)
    yield from check_channel_names(config.channel_names)
    yield from check_plain(config.plain, config.server.demo, config.channel_names, config.namespaces)
    for name, options in config.namespaces.items():
        yield from check_channel(f"namespaces.{name}", options, config.engine)


def check_server(server: ServerOptions) -> Iterator[Violation]:
    for present, missing in (("tls_cert", "tls_key"), ("tls_key", "tls_cert")):
        if getattr(server, present) and not getattr(server, missing):
            yield Violation((f"server.{missing}", f"server.{present}"), f"expected a path, because {present} is set")
    for proxy in server.trusted_proxies:
        if proxy == "*" and len(server.trusted_proxies) > 1:
            yield Violation(
                ("server.trusted_proxies",), 'expected "*" alone, because next to other entries it matches no address'
            )
        elif proxy != "*" and not _is_proxy(proxy):
            yield Violation(
                ("server.trusted_proxies",),
                'expected IP addresses, networks like "10.0.0.0/8", "unix:" or "*" alone, '
                f'got "{proxy}", which is never the address of a proxy',
            )


def _is_proxy(text: str) -> bool:
    """Whether uvicorn can match the address of a proxy with this text.

    uvicorn compares text that is not an IP address or network literally. Only the name of a Unix socket, as in
    X-Forwarded-For, can match that way.
    """
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
                "which browsers never send",
            )


def _can_match_an_origin(pattern: str) -> bool:
    """An origin is a scheme, a host and an optional port (RFC 6454 §6.1), or the word null."""
    scheme, separator, rest = pattern.partition("://")
    if not separator:
        return pattern in ("null", "*")  # `*` does not match slashes, so no other pattern matches a scheme
    return bool(scheme and rest) and "/" not in rest


def check_token(section: str, token: TokenOptions) -> Iterator[Violation]:
    for option, text in option_problems(token):
        yield Violation((f"{section}.{option}",), text)


def check_subscription_token(token: TokenOptions) -> Iterator[Violation]:
    if not has_key(token):
        yield Violation(
            ("subscription_token",),
            "expected a key, because without a key no subscription token can be verified. "
            "Remove the table to verify subscription tokens with the keys of [token]",
        )
    yield from check_token("subscription_token", token)


def has_key(token: TokenOptions) -> bool:
    """Whether at least one key is configured."""
    return bool(
        token.hmac_secret or token.rsa_public_key or token.ecdsa_public_key or token.eddsa_public_key or token.jwks_url
    )


def check_channel(table: str, channel: ChannelOptions, engine: EngineOptions) -> Iterator[Violation]:
    """`table` is `channel` or `namespaces.<name>`."""
    history = (f"{table}.history_size", f"{table}.history_ttl")
    if channel.history_size and not channel.history_ttl:
        yield Violation(history[::-1], "expected a duration above zero, because history_size is set")
    if channel.history_ttl and not channel.history_size:
        yield Violation(history, "expected an integer of 1 or more, because history_ttl is set")
    if channel.force_recovery and not (channel.history_size or channel.history_ttl):
        yield Violation(
            (f"{table}.force_recovery", *history),
            "expected history, because recovery reads it: set history_size and history_ttl",
        )
    yield from _check_durability(table, channel, engine)
    if channel.auto_cache_recover:
        if not channel.force_recovery:
            keys = (f"{table}.force_recovery", f"{table}.auto_cache_recover")
            yield Violation(keys, "expected true, because auto_cache_recover is set")
        if channel.force_recovery_mode != "cache":
            keys = (f"{table}.force_recovery_mode", f"{table}.auto_cache_recover")
            yield Violation(keys, 'expected "cache", because auto_cache_recover is set')
    for kind in channel.allowed_delta_types:
        if kind != "fossil":
            yield Violation((f"{table}.allowed_delta_types",), f'expected only "fossil", got "{kind}"')
    if channel.delta_publish and not channel.allowed_delta_types:
        keys = (f"{table}.allowed_delta_types", f"{table}.delta_publish")
        yield Violation(keys, 'expected ["fossil"], because delta_publish is set')
    kept_for = channel.history_meta_ttl or engine.history_meta_ttl
    if kept_for < channel.history_ttl:
        name = f"{table}.history_meta_ttl" if channel.history_meta_ttl else "engine.history_meta_ttl"
        text = f"expected at least {table}.history_ttl ({channel.history_ttl}), got {kept_for}"
        yield Violation((name, f"{table}.history_ttl"), text)
    try:
        re.compile(channel.channel_regex)
    except re.error as error:
        yield Violation((f"{table}.channel_regex",), f"expected a regular expression: {error}")


def _check_durability(table: str, channel: ChannelOptions, engine: EngineOptions) -> Iterator[Violation]:
    key = f"{table}.durability"
    if channel.durability != "memory" and not (channel.history_size or channel.history_ttl):
        yield Violation(
            (key, f"{table}.history_size", f"{table}.history_ttl"),
            f'expected "memory" without history, got "{channel.durability}": set history_size and history_ttl',
        )
    offered = DURABILITIES[engine.type]
    if channel.durability not in offered:
        others = [name for name, durabilities in DURABILITIES.items() if channel.durability in durabilities]
        yield Violation(
            (key, "engine.type"),
            f'expected {_alternatives(offered)}, because the engine "{engine.type}" offers nothing else'
            + (f'. "{channel.durability}" needs the engine {_alternatives(others)}' if others else ""),
        )


def _alternatives(values: Iterable[str]) -> str:
    return " or ".join(f'"{value}"' for value in values)


def check_redis(redis: RedisOptions, engine: EngineOptions, migration: MigrationOptions) -> Iterator[Violation]:
    """The library is installed, and the URL has a known form, if the engine is used."""
    if "redis" not in (engine.type, migration.to):
        return
    try:
        from beaconfire.engines.redis.address import parse_address  # here, because its library is an extra

        parse_address(redis.url)
    except ImportError as error:
        yield Violation(("engine.type",), f"{error}: run `pip install 'beaconfire[redis]'`")
    except ValueError as error:
        yield Violation(("redis.url",), str(error))


def check_migration(migration: MigrationOptions, engine: EngineOptions) -> Iterator[Violation]:
    if migration.to != "none" and engine.type not in EMBEDDED:
        yield Violation(
            ("migration.to", "engine.type"),
            f'expected "none", got "{migration.to}": the streams of the engine "{engine.type}" cannot be migrated yet',
        )
    if migration.to != engine.type:
        return
    if engine.type == "memory":
        yield Violation(("migration.to", "engine.type"), 'expected another engine, got "memory", which engine.type is')
    elif os.path.realpath(migration.path) == os.path.realpath(engine.path):
        yield Violation(
            ("migration.path", "engine.path"), f'expected another file, got "{migration.path}", which engine.path is'
        )


def check_namespace_names(namespaces: Mapping[str, ChannelOptions]) -> Iterator[Violation]:
    for name in namespaces:
        if not _NAMESPACE_NAME.fullmatch(name):
            yield Violation(
                (f"namespaces.{name}",),
                "expected a name of two or more of the characters a-z, A-Z, 0-9, dash, underscore and dot",
            )


def check_channel_names(names: ChannelNameOptions) -> Iterator[Violation]:
    """With two equal symbols, a channel name would be ambiguous."""
    symbols = ("private_prefix", "namespace_boundary", "user_boundary", "user_separator")
    owner: dict[str, str] = {}
    for name in symbols:
        symbol = getattr(names, name)
        if symbol and symbol in owner:
            other = owner[symbol]
            yield Violation(
                (f"channel_names.{name}", f"channel_names.{other}"),
                f'expected a symbol of its own, got "{symbol}", which is {other}',
            )
        owner.setdefault(symbol, name)


def check_plain(
    plain: PlainOptions, demo: bool, names: ChannelNameOptions, namespaces: Mapping[str, ChannelOptions]
) -> Iterator[Violation]:
    if not plain.enabled:
        return
    path = plain.path.rstrip("/")
    for reserved in (*_RESERVED_PATHS, _DEMO_PATH) if demo else _RESERVED_PATHS:
        if path == reserved or path.startswith(f"{reserved}/"):
            yield Violation(("plain.path",), f'expected a free path, got "{plain.path}", but {reserved} is in use')
    if not path and demo:
        yield Violation(("plain.path", "server.demo"), 'expected a free path, got "/", which the demo uses')
    if plain.lobby:
        yield from _check_lobby(plain.lobby_channel, names, namespaces)


def _check_lobby(
    channel: str, names: ChannelNameOptions, namespaces: Mapping[str, ChannelOptions]
) -> Iterator[Violation]:
    """Every connection subscribes to the lobby channel, so an impossible channel would make every connect fail."""
    boundary = names.namespace_boundary
    if boundary and boundary in channel:
        name = channel.removeprefix(names.private_prefix).split(boundary, 1)[0]
        if name not in namespaces:
            known = ", ".join(sorted(namespaces)) or "none"
            yield Violation(
                ("plain.lobby_channel",),
                f'expected a channel without a namespace or in a configured one (known: {known}), got "{channel}"',
            )
