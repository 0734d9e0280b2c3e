"""The configuration as start-up announces it."""

from __future__ import annotations

import re

import pytest

from beaconfire.config import TABLE, Config, load
from beaconfire.observe.metric_table import LIMITS
from beaconfire.server.announcement import (
    Field,
    announcement,
    limits,
    lines,
    notes,
    warnings,
)

SECURE = {
    "client.allowed_origins": "https://example.com",
    "token.hmac_secret": "x" * 32,
    "api.keys": "a-long-api-key",
}


def configured(**overrides: str) -> Config:
    """A secure configuration with a few options changed; `__` stands for the dot."""
    return load(None, {}, SECURE | {name.replace("__", "."): value for name, value in overrides.items()})


def announced(config: Config) -> dict[str, str]:
    return dict(announcement(config, "1.2.3", "n1", "memory", ["http://127.0.0.1:8000"]))


def test_announcement_has_version_node_engine_and_urls() -> None:
    """The URL of every endpoint."""
    fields = announced(configured(server__demo="true"))
    assert (
        fields
        | {
            "version": "1.2.3",
            "node": "n1",
            "engine": "memory",
            "websocket": "ws://127.0.0.1:8000/connection/websocket",
            "plain": "ws://127.0.0.1:8000/ws",
            "api": "http://127.0.0.1:8000/api/",
            "openapi": "http://127.0.0.1:8000/api/openapi.json",
            "metrics": "http://127.0.0.1:8000/metrics",
            "live": "http://127.0.0.1:8000/health/live",
            "ready": "http://127.0.0.1:8000/health/ready",
            "demo": "http://127.0.0.1:8000/",
            "origins": "https://example.com",
        }
        == fields
    )


def test_disabled_endpoints_are_not_announced() -> None:
    """An endpoint that does not answer has no line."""
    fields = announced(configured(plain__enabled="false", api__enabled="false"))
    assert not fields.keys() & {"plain", "api", "openapi", "demo"}
    assert fields["api_auth"] == "off"


def test_tls_addresses_become_wss() -> None:
    """A base URL with https becomes a WebSocket URL with wss, and a trailing slash is not doubled."""
    fields = dict(announcement(configured(), "1", "n", "memory", ["https://[::1]:8443/"]))
    assert fields["websocket"] == "wss://[::1]:8443/connection/websocket"
    assert fields["metrics"] == "https://[::1]:8443/metrics"


def test_every_address_is_announced() -> None:
    """Two addresses give two lines for each endpoint."""
    fields = announcement(configured(), "1", "n", "memory", ["http://a:1", "http://b:2"])
    assert [field.value for field in fields if field.name == "metrics"] == ["http://a:1/metrics", "http://b:2/metrics"]


@pytest.mark.parametrize(
    ("overrides", "auth"),
    [
        ({}, "tokens (HS256/384/512)"),
        ({"client__allow_anonymous": "true"}, "anonymous, tokens (HS256/384/512)"),
        ({"token__hmac_secret": ""}, "none: nobody can connect"),
        ({"token__hmac_secret": "", "client__insecure": "true"}, "INSECURE (anyone may do anything)"),
        (
            {"token__hmac_secret": "", "token__jwks_url": "https://user:pass@id.example/keys?key=hush"},
            "tokens (keys of id.example)",
        ),
        (
            {"subscription_token__hmac_secret": "y" * 32},
            "tokens (HS256/384/512), subscription tokens (HS256/384/512)",
        ),
    ],
)
def test_announcement_names_the_authentication_of_clients(overrides: dict[str, str], auth: str) -> None:
    """Every method, without secrets."""
    assert announced(configured(**overrides))["auth"] == auth


@pytest.mark.parametrize(
    ("overrides", "auth"),
    [
        ({}, "1 key"),
        ({"api__keys": "a,b"}, "2 keys"),
        ({"api__keys": ""}, "no key: every call is refused"),
        ({"api__insecure": "true"}, "INSECURE (no key is required)"),
    ],
)
def test_announcement_names_the_authentication_of_backends(overrides: dict[str, str], auth: str) -> None:
    """Keys are counted and never shown."""
    assert announced(configured(**overrides))["api_auth"] == auth


def test_limits_are_announced_with_readable_values() -> None:
    """Sizes with units. Zero is explained."""
    found = dict(limits(configured(client__user_connection_limit="3", server__send_buffer_max="0")))
    assert found["client.queue_max_size"] == "1MiB"
    assert found["client.user_connection_limit"] == "3"
    assert found["client.connection_rate_limit"] == "none"
    assert found["client.connection_limit"] == "automatic"
    assert found["server.send_buffer_max"] == "automatic"


def test_every_limit_is_announced() -> None:
    """All limits of the metrics, and all options whose description names the outcome at the limit."""
    found = dict(limits(Config()))
    outcome = re.compile(r"\b(more get|more pause|a larger|a longer|When it is full)\b|^Largest|^Longest")
    described = {setting.name for setting in TABLE if outcome.search(setting.description)}
    assert described - found.keys() == set()
    assert {limit for limit in LIMITS if TABLE.find(limit)} - found.keys() == set()


def test_lines_are_aligned() -> None:
    """Values start in one column."""
    assert lines([Field("a", "1"), Field("long", "2")], 80) == ["a     1", "long  2"]
    assert lines([], 80) == []


def test_lines_fit_the_terminal() -> None:
    """Limits share a paragraph, each with its value on the same line.

    Only an address may be wider than the terminal.
    """
    config = configured()
    address = f"http://{'long' * 20}.example:8000"
    shown = lines(announcement(config, "1", "n", "memory", [address]), 80)
    assert {line.split()[-1] for line in shown if len(line) > 80} <= {
        field.value for field in announcement(config, "1", "n", "memory", [address])
    }
    text = " ".join(line.strip() for line in shown)
    assert "limits" in text
    for name, value in limits(config):
        assert f"{name} {value}" in text
        assert any(f"{name} {value}" in line for line in shown)


def test_secure_configuration_has_no_warnings() -> None:
    """Warnings without a reason would not be read."""
    assert warnings(configured()) == []
    assert notes(configured()) == []


@pytest.mark.parametrize(
    ("overrides", "option"),
    [
        ({"client__insecure": "true"}, "client.insecure"),
        ({"client__allowed_origins": "https://example.com,*"}, "client.allowed_origins"),
        ({"client__allowed_origins": "*://*"}, "client.allowed_origins"),
        ({"client__allowed_origins": "*://*:*"}, "client.allowed_origins"),
        ({"client__debug_reasons": "true"}, "client.debug_reasons"),
        ({"plain__lobby": "true"}, "plain.lobby"),
        ({"api__insecure": "true"}, "api.insecure"),
        ({"api__keys": ""}, "api.keys"),
        ({"token__hmac_secret": "secret"}, "token.hmac_secret"),
        ({"token__hmac_previous_secret": "secret"}, "token.hmac_previous_secret"),
        ({"subscription_token__hmac_secret": "secret"}, "subscription_token.hmac_secret"),
        ({"token__jwks_url": "http://id.example/keys"}, "token.jwks_url"),
        ({"server__host": "0.0.0.0"}, "server.host"),
        ({"server__host": "::"}, "server.host"),
        ({"server__host": "chat.example"}, "server.host"),
    ],
)
def test_insecure_option_has_one_warning(overrides: dict[str, str], option: str) -> None:
    """The warning begins with the name of the option and ends with a remedy."""
    (warning,) = warnings(configured(**overrides))
    assert warning.startswith(f"{option} ")
    assert warning.count(". ") >= 1
    assert warning.endswith(".")


@pytest.mark.parametrize(
    "overrides",
    [
        {"plain__lobby": "true", "plain__enabled": "false"},
        {"api__keys": "", "api__enabled": "false"},
        {"server__host": "::1"},
        {"server__host": "localhost"},
        {"server__host": "0.0.0.0", "server__tls_cert": "a.pem", "server__tls_key": "b.pem"},
        {"channel__allow_subscribe_for_client": "true"},
        {"client__user_personal_channel": "true", "channel__allow_subscribe_for_client": "true"},
    ],
)
def test_harmless_options_have_no_warning(overrides: dict[str, str]) -> None:
    """An option of a disabled feature, or a host that other machines cannot reach."""
    assert warnings(configured(**overrides)) == []


def test_notes_name_clients_that_cannot_connect() -> None:
    """Browsers without allowed origins, and all clients without keys and anonymous access."""
    assert [note.partition(" ")[0] for note in notes(Config())] == ["client.allowed_origins", "No"]
    assert notes(configured(token__hmac_secret="", client__allow_anonymous="true")) == []
