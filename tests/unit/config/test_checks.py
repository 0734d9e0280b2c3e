"""Checks across settings: each violation names all settings involved."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import pytest

from beaconfire.auth.options import TokenOptions
from beaconfire.base.units import Seconds
from beaconfire.channels.options import ChannelNameOptions, ChannelOptions
from beaconfire.config import ConfigError, checks, load
from beaconfire.config.checks import Violation
from beaconfire.engines.options import EngineOptions, EngineType, MigrationOptions, RedisOptions
from beaconfire.protocols.plain.options import PlainOptions
from beaconfire.session.options import ClientOptions
from beaconfire.transports.options import ServerOptions


def first_keys(violations: Iterable[Violation]) -> list[str]:
    return [violation.keys[0] for violation in violations]


def test_tls_needs_certificate_and_key() -> None:
    """A certificate without its key is an error, and a key without its certificate, too."""
    assert first_keys(checks.check_server(ServerOptions(tls_cert="a.pem"))) == ["server.tls_key"]
    assert first_keys(checks.check_server(ServerOptions(tls_key="a.pem"))) == ["server.tls_cert"]
    assert first_keys(checks.check_server(ServerOptions(tls_cert="a.pem", tls_key="b.pem"))) == []


@pytest.mark.parametrize(
    ("proxies", "wrong"),
    [
        ([], 0),
        (["127.0.0.1", "::1"], 0),
        (["10.0.0.0/8", "fd00::/8", "unix:", "unix:/run/nginx.sock"], 0),
        (["*"], 0),
        (["*", "127.0.0.1"], 1),
        (["localhost"], 1),
        (["127.0.0.1:8000"], 1),
        (["10.0.0.1/8"], 1),
        ([" 127.0.0.1"], 1),
        (["https://proxy.example", "", "10.0.0.*"], 3),
        (["127.0.0.1", "nonsense"], 1),
    ],
)
def test_trusted_proxies_must_match_an_address(proxies: list[str], wrong: int) -> None:
    """Text that never equals the address of a peer would silently trust no proxy."""
    violations = list(checks.check_server(ServerOptions(trusted_proxies=proxies)))
    assert first_keys(violations) == ["server.trusted_proxies"] * wrong


@pytest.mark.parametrize(("interval", "timeout", "wrong"), [(25, 8, 0), (8, 8, 1), (5, 8, 1), (0, 8, 0)])
def test_pong_timeout_is_shorter_than_ping_interval(interval: int, timeout: int, wrong: int) -> None:
    """Otherwise the server could not assign a pong to its ping. Without pings there is no such rule."""
    client = ClientOptions(ping_interval=Seconds(interval), pong_timeout=Seconds(timeout))
    assert first_keys(checks.check_client(client, {})) == ["client.pong_timeout"] * wrong


def test_namespace_of_personal_channels_must_exist() -> None:
    """No client could subscribe to a personal channel in an unknown namespace."""
    client = ClientOptions(user_personal_channel_namespace="personal")
    (violation,) = checks.check_client(client, {"chat": ChannelOptions()})
    assert "known: chat" in violation.text
    assert list(checks.check_client(client, {"personal": ChannelOptions()})) == []


@pytest.mark.parametrize(
    ("origin", "valid"),
    [
        ("*", True),
        ("null", True),
        ("https://example.com", True),
        ("https://*.example.com", True),
        ("http://localhost:*", True),
        ("capacitor://localhost", True),
        ("*://example.com", True),
        ("*.example.com", False),
        ("example.com", False),
        ("localhost:8000", False),
        ("https://example.com/", False),
        ("https://example.com/app", False),
        ("https://", False),
    ],
)
def test_allowed_origins_must_be_origins(origin: str, valid: bool) -> None:
    """An entry with a path or without a scheme would silently match no origin."""
    found = first_keys(checks.check_client(ClientOptions(allowed_origins=[origin]), {}))
    assert found == ([] if valid else ["client.allowed_origins"])


@pytest.mark.parametrize(
    ("options", "keys"),
    [
        (ChannelOptions(), []),
        (ChannelOptions(history_size=1, history_ttl=Seconds(1), force_recovery=True), []),
        (ChannelOptions(history_size=1), ["channel.history_ttl"]),
        (ChannelOptions(history_ttl=Seconds(1)), ["channel.history_size"]),
        (ChannelOptions(force_recovery=True), ["channel.force_recovery"]),
        (ChannelOptions(force_recovery=True, history_size=1), ["channel.history_ttl"]),
        (
            ChannelOptions(
                history_size=1,
                history_ttl=Seconds(1),
                force_recovery=True,
                force_recovery_mode="cache",
                auto_cache_recover=True,
            ),
            [],
        ),
        (ChannelOptions(allowed_delta_types=["fossil"], delta_publish=True), []),
        (ChannelOptions(allowed_delta_types=["fossil", "xdelta"]), ["channel.allowed_delta_types"]),
        (ChannelOptions(delta_publish=True), ["channel.allowed_delta_types"]),
        (ChannelOptions(auto_cache_recover=True), ["channel.force_recovery", "channel.force_recovery_mode"]),
        (ChannelOptions(history_size=1, history_ttl=Seconds(40 * 86400)), ["engine.history_meta_ttl"]),
        (
            ChannelOptions(history_size=1, history_ttl=Seconds(9), history_meta_ttl=Seconds(8)),
            ["channel.history_meta_ttl"],
        ),
        (ChannelOptions(channel_regex="("), ["channel.channel_regex"]),
        (ChannelOptions(channel_regex="^[a-z]+$"), []),
    ],
)
def test_channel_options_require_other_options(options: ChannelOptions, keys: list[str]) -> None:
    """Recovery requires history, history requires size and TTL, and the cache options require each other."""
    assert first_keys(checks.check_channel("channel", options, EngineOptions())) == keys


HISTORY: dict[str, Any] = {"history_size": 1, "history_ttl": Seconds(9)}


@pytest.mark.parametrize(
    ("engine", "options", "text"),
    [
        ("memory", ChannelOptions(durability="memory"), None),
        ("sqlite", ChannelOptions(durability="disk", **HISTORY), None),
        (
            "memory",
            ChannelOptions(durability="disk", **HISTORY),
            'expected "memory", because the engine "memory" offers nothing else. "disk" needs the engine "sqlite" or '
            '"redis"',
        ),
        (
            "sqlite",
            ChannelOptions(durability="replicated", **HISTORY),
            'expected "memory" or "disk", because the engine "sqlite" offers nothing else. "replicated" needs the '
            'engine "redis"',
        ),
        (
            "sqlite",
            ChannelOptions(durability="disk"),
            'expected "memory" without history, got "disk": set history_size and history_ttl',
        ),
    ],
)
def test_durability_needs_history_and_an_engine_that_offers_it(
    engine: EngineType, options: ChannelOptions, text: str | None
) -> None:
    """The message names what the engine offers, and the engines that offer more."""
    violations = list(checks.check_channel("channel", options, EngineOptions(type=engine)))
    assert [violation.text for violation in violations] == ([] if text is None else [text])
    assert all(violation.keys[0] == "channel.durability" for violation in violations)


@pytest.mark.parametrize(
    ("engine", "migration", "url", "keys"),
    [
        (EngineOptions(), MigrationOptions(), "nonsense", []),
        (EngineOptions(type="redis"), MigrationOptions(), "redis://host", []),
        (EngineOptions(type="redis"), MigrationOptions(), "nonsense", ["redis.url"]),
    ],
)
def test_the_url_of_redis_is_checked_if_it_is_used(
    engine: EngineOptions, migration: MigrationOptions, url: str, keys: list[str]
) -> None:
    """The message says which forms there are."""
    violations = list(checks.check_redis(RedisOptions(url=url), engine, migration))
    assert [violation.keys[0] for violation in violations] == keys
    assert all("expected redis://" in violation.text for violation in violations)


def test_the_library_of_redis_must_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says how."""
    monkeypatch.setitem(sys.modules, "beaconfire.engines.redis.address", None)
    (violation,) = checks.check_redis(RedisOptions(), EngineOptions(type="redis"), MigrationOptions())
    assert violation.keys == ("engine.type",)
    assert "pip install 'beaconfire[redis]'" in violation.text


@pytest.mark.parametrize(
    ("engine", "migration", "keys"),
    [
        (EngineOptions(), MigrationOptions(), []),
        (EngineOptions(), MigrationOptions(to="sqlite", path="a.db"), []),
        (EngineOptions(type="sqlite", path="a.db"), MigrationOptions(to="memory"), []),
        (EngineOptions(type="sqlite", path="a.db"), MigrationOptions(to="sqlite", path="b.db"), []),
        (EngineOptions(type="sqlite", path="a.db"), MigrationOptions(path="a.db"), []),
        (EngineOptions(), MigrationOptions(to="memory"), ["migration.to"]),
        (EngineOptions(type="redis"), MigrationOptions(to="sqlite"), ["migration.to"]),
        (EngineOptions(type="redis"), MigrationOptions(), []),
        (EngineOptions(type="sqlite", path="a.db"), MigrationOptions(to="sqlite", path="./a.db"), ["migration.path"]),
    ],
)
def test_a_migration_needs_two_places(engine: EngineOptions, migration: MigrationOptions, keys: list[str]) -> None:
    """Two engines with the same file would destroy it."""
    assert first_keys(checks.check_migration(migration, engine)) == keys


@pytest.mark.parametrize(
    ("name", "valid"), [("chat", True), ("a.b-c_1", True), ("a", False), ("a b", False), ("", False), ("chat\n", False)]
)
def test_namespace_names_must_fit_into_channel_names(name: str, valid: bool) -> None:
    """A name that cannot be the start of a channel name is refused."""
    assert first_keys(checks.check_namespace_names({name: ChannelOptions()})) == (
        [] if valid else [f"namespaces.{name}"]
    )


def test_symbols_of_channel_names_must_differ() -> None:
    """With one symbol for two purposes, a channel name would be ambiguous. Empty symbols may be equal."""
    found = checks.check_channel_names(ChannelNameOptions(user_boundary=":"))
    assert first_keys(found) == ["channel_names.user_boundary"]
    assert list(checks.check_channel_names(ChannelNameOptions(user_boundary="", private_prefix=""))) == []


@pytest.mark.parametrize(
    ("path", "demo", "valid"),
    [
        ("/ws", True, True),
        ("/apis", False, True),
        ("/api", False, False),
        ("/api/", False, False),
        ("/connection/plain", False, False),
        ("/client/ws", False, False),
        ("/metrics", False, False),
        ("/health/x", False, False),
        ("/", False, True),
        ("/", True, False),
        ("/demo", False, True),
        ("/demo", True, False),
        ("/demo/ws", True, False),
        ("/demos", True, True),
    ],
)
def test_plain_path_must_be_free(path: str, demo: bool, valid: bool) -> None:
    """The plain protocol must not use the path of another endpoint."""
    names = ChannelNameOptions()
    found = checks.check_plain(PlainOptions(path=path), demo, names, {})
    assert first_keys(found) == ([] if valid else ["plain.path"])
    assert list(checks.check_plain(PlainOptions(path=path, enabled=False), demo, names, {})) == []


@pytest.mark.parametrize(
    ("channel", "valid"), [("lobby", True), ("chat:lobby", True), ("$chat:lobby", True), ("game:lobby", False)]
)
def test_namespace_of_the_lobby_channel_must_exist(channel: str, valid: bool) -> None:
    """Every connection subscribes to the lobby channel; in an unknown namespace every connect would fail."""
    namespaces = {"chat": ChannelOptions()}
    found = checks.check_plain(PlainOptions(lobby=True, lobby_channel=channel), False, ChannelNameOptions(), namespaces)
    assert first_keys(found) == ([] if valid else ["plain.lobby_channel"])
    disabled = checks.check_plain(PlainOptions(lobby_channel=channel), False, ChannelNameOptions(), namespaces)
    assert list(disabled) == []


@pytest.mark.parametrize(
    "name",
    [
        "server.handshake_timeout",
        "server.header_max_size",
        "server.keep_alive_timeout",
        "server.shutdown_timeout",
        "client.pong_timeout",
        "client.stale_close_delay",
        "client.presence_update_interval",
        "client.queue_max_size",
        "websocket.message_size_limit",
        "websocket.write_timeout",
        "websocket.close_timeout",
        "api.request_max_size",
    ],
)
def test_limits_that_cannot_be_zero(name: str) -> None:
    """Zero does not mean "no limit" for these settings: it would end every connection, so it is refused."""
    with pytest.raises(ConfigError, match=r"expected a (duration|size) above 0 like .*, got") as caught:
        load(None, {}, {name: "0"})
    assert [problem.key for problem in caught.value.problems] == [name]


def test_subscription_token_table_needs_a_key() -> None:
    """A table without a key would refuse every token. Without the table, [token] applies."""
    assert first_keys(checks.check_subscription_token(TokenOptions(audience="x"))) == ["subscription_token"]
    assert list(checks.check_subscription_token(TokenOptions(hmac_secret="x" * 32))) == []


def test_token_problems_have_the_name_of_their_table() -> None:
    """A problem that the verifier finds is reported under the full name of the option."""
    found = checks.check_token("subscription_token", TokenOptions(rsa_public_key="nonsense", jwks_url="ftp://x"))
    assert first_keys(found) == ["subscription_token.rsa_public_key", "subscription_token.jwks_url"]


def test_loading_runs_every_check() -> None:
    """Each violation stops loading. Its origin is the source of the settings involved."""
    overrides = {
        "server.tls_cert": "x",
        "client.ping_interval": "5s",
        "token.jwks_url": "x",
        "subscription_token.audience": "x",
        "channel.force_recovery": "true",
        "namespaces.a.presence": "true",
        "channel_names.user_boundary": ":",
        "plain.path": "/api",
        "namespaces.chat.channel_regex": "(",
    }
    with pytest.raises(ConfigError) as caught:
        load(None, {}, overrides)
    assert [problem.key for problem in caught.value.problems] == [
        "server.tls_key",
        "client.pong_timeout",
        "token.jwks_url",
        "subscription_token",
        "channel.force_recovery",
        "namespaces.a",
        "channel_names.user_boundary",
        "plain.path",
        "namespaces.chat.channel_regex",
    ]
    assert {problem.origin for problem in caught.value.problems} == {"command line"}


def test_invalid_value_causes_no_second_problem() -> None:
    """A check that involves an invalid value is skipped, because the setting has its default in that case."""
    with pytest.raises(ConfigError) as caught:
        load(None, {}, {"channel.force_recovery": "true", "channel.history_size": "x", "channel.history_ttl": "1m"})
    assert [problem.key for problem in caught.value.problems] == ["channel.history_size"]
