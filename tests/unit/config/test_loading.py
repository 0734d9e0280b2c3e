"""Loading the configuration: accepted input, its sources and their order."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from beaconfire.base.units import Seconds, Size
from beaconfire.channels.options import ChannelOptions
from beaconfire.config import TABLE, Config, as_document, load, load_with_origins, secret_values
from beaconfire.config.values import to_plain, to_text

QUICK_START = """
[server]
host = "127.0.0.1"
port = 8000
[client]
allowed_origins = ["http://localhost:8000"]
insecure = false                      # true: development only
allow_anonymous = false
ping_interval = "25s"
pong_timeout = "8s"
user_personal_channel = true          # '#42' for user 42
[token]
hmac_secret = "secret"                # also: rsa/ecdsa/eddsa public keys, jwks_url, audience, issuer
[api]
keys = ["api_key", "second_key"]
[channel]                             # channels without a namespace
presence = true
join_leave = true
force_push_join_leave = true
history_size = 100
history_ttl = "300s"
force_recovery = true
allow_publish_for_subscriber = true
allow_presence_for_subscriber = true
allow_history_for_subscriber = true
[namespaces.small]
force_recovery = true
history_size = 2
history_ttl = "300s"
allow_subscribe_for_client = true
allow_publish_for_subscriber = true
[plain]
lobby = true                          # frames on /ws reach every connection
[engine]
type = "memory"
"""


def write(folder: Path, content: str, name: str = "beaconfire.toml") -> str:
    path = folder / name
    path.write_text(content, encoding="utf-8")
    return str(path)


def test_quick_start_file_loads(tmp_path: Path) -> None:
    """Every option of the quick start takes effect; all other options keep their defaults."""
    config = load(write(tmp_path, QUICK_START), {}, {})
    assert config.client.allowed_origins == ["http://localhost:8000"]
    assert config.client.user_personal_channel
    assert config.token.hmac_secret == "secret"
    assert config.subscription_token is None
    assert config.api.keys == ["api_key", "second_key"]
    assert config.channel.history_size == 100
    assert config.channel.history_ttl == Seconds(300)
    small = ChannelOptions(
        force_recovery=True,
        history_size=2,
        history_ttl=Seconds(300),
        allow_subscribe_for_client=True,
        allow_publish_for_subscriber=True,
    )
    assert config.namespaces == {"small": small}
    assert config.plain.lobby
    assert config.websocket == Config().websocket


def test_without_sources_every_option_has_its_default() -> None:
    """No file, no variables and no flags give the declared defaults."""
    assert load(None, {}, {}) == Config()


def test_all_file_formats_give_the_same_configuration(tmp_path: Path) -> None:
    """TOML, YAML and JSON files with the same content are equal."""
    tables = {
        "client": {"ping_interval": "10s", "pong_timeout": 2.5, "queue_max_size": "64KiB"},
        "namespaces": {"chat": {"presence": True}, "news.eu": {}},
    }
    toml = (
        '[client]\nping_interval = "10s"\npong_timeout = 2.5\nqueue_max_size = "64KiB"\n'
        '[namespaces.chat]\npresence = true\n[namespaces."news.eu"]\n'
    )
    yaml = (
        "client:\n  ping_interval: 10s\n  pong_timeout: 2.5\n  queue_max_size: 64KiB\n"
        "namespaces:\n  chat:\n    presence: true\n  news.eu:\n"
    )
    loaded = [
        load(write(tmp_path, toml), {}, {}),
        load(write(tmp_path, yaml, "beaconfire.yaml"), {}, {}),
        load(write(tmp_path, yaml, "beaconfire.yml"), {}, {}),
        load(write(tmp_path, json.dumps(tables), "beaconfire.json"), {}, {}),
    ]
    assert all(config == loaded[0] for config in loaded)
    assert loaded[0].client.queue_max_size == Size(65536)
    assert set(loaded[0].namespaces) == {"chat", "news.eu"}


def test_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    """A YAML file with only comments, or with an empty table, changes nothing."""
    assert load(write(tmp_path, "# later\n", "beaconfire.yaml"), {}, {}) == Config()
    assert load(write(tmp_path, "client:\n", "beaconfire.yaml"), {}, {}) == Config()


def test_every_default_can_be_set_by_its_variable() -> None:
    """The output of `beaconfire config env` is the default configuration: each variable is read as its default."""
    optional = {section.name for section in TABLE.sections.values() if section.optional}
    env = {setting.env: to_text(setting.default) for setting in TABLE if setting.section not in optional}
    assert load(None, env, {}) == Config()


def test_every_setting_has_its_own_variable() -> None:
    """No two settings share an environment variable."""
    names = [s.env for section in TABLE.sections.values() if not section.repeated for s in section.settings]
    assert len(names) == len(set(names))


def test_every_setting_is_documented() -> None:
    """Every setting has a description."""
    assert [setting.name for setting in TABLE if not setting.description] == []


def test_later_sources_override_single_options(tmp_path: Path) -> None:
    """The environment overrides the file, and flags override the environment. Other options stay unchanged."""
    path = write(tmp_path, '[server]\nhost = "10.0.0.1"\nport = 1\nbacklog = 7\n[namespaces.chat]\npresence = true\n')
    env = {
        "BEACONFIRE_SERVER_PORT": "2",
        "BEACONFIRE_SERVER_HOST": "10.0.0.2",
        "BEACONFIRE_NAMESPACES": '{"chat": {"join_leave": true}, "news": {}}',
        "UNRELATED": "x",
    }
    loaded = load_with_origins(path, env, {"server.port": "3", "namespaces.chat.history_size": "0"})
    assert (loaded.config.server.host, loaded.config.server.port, loaded.config.server.backlog) == ("10.0.0.2", 3, 7)
    assert loaded.config.namespaces == {
        "chat": ChannelOptions(presence=True, join_leave=True),
        "news": ChannelOptions(),
    }
    origins = {name: origin for name, origin in loaded.origins.items() if name.count(".") > 0}
    assert origins == {
        "server.host": "BEACONFIRE_SERVER_HOST",
        "server.port": "command line",
        "server.backlog": path,
        "namespaces.chat": path,
        "namespaces.chat.presence": path,
        "namespaces.chat.join_leave": "BEACONFIRE_NAMESPACES",
        "namespaces.chat.history_size": "command line",
        "namespaces.news": "BEACONFIRE_NAMESPACES",
    }


def test_environment_variable_names_the_file(tmp_path: Path) -> None:
    """BEACONFIRE_CONFIG names the file, unless the caller names another file."""
    first = write(tmp_path, "[server]\nport = 1\n", "first.toml")
    second = write(tmp_path, "[server]\nport = 2\n", "second.toml")
    assert load(None, {"BEACONFIRE_CONFIG": first}, {}).server.port == 1
    assert load(second, {"BEACONFIRE_CONFIG": first}, {}).server.port == 2


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("https://a.example, https://b.example", ["https://a.example", "https://b.example"]),
        ('["https://a.example", "https://b.example"]', ["https://a.example", "https://b.example"]),
        ("https://a.example", ["https://a.example"]),
        ("", []),
        ("[]", []),
    ],
)
def test_list_in_a_variable(given: str, expected: list[str]) -> None:
    """A list in a variable is a JSON array or text separated by commas."""
    assert load(None, {"BEACONFIRE_CLIENT_ALLOWED_ORIGINS": given}, {}).client.allowed_origins == expected


@pytest.mark.parametrize(("given", "expected"), [("true", True), ("YES", True), ("1", True), ("off", False)])
def test_boolean_in_a_variable(given: str, expected: bool) -> None:
    """Variables and flags accept the usual words for true and false."""
    assert load(None, {"BEACONFIRE_PLAIN_ENABLED": given}, {}).plain.enabled is expected


def test_namespaces_in_a_flag() -> None:
    """A flag sets one option of a namespace, whose name may contain dots, or all namespaces as JSON."""
    assert load(None, {}, {"namespaces.news.eu.presence": "true"}).namespaces == {
        "news.eu": ChannelOptions(presence=True)
    }
    assert load(None, {}, {"namespaces": '{"aa": {"presence": true}}'}).namespaces["aa"].presence


def test_subscription_tokens_have_their_own_keys() -> None:
    """A variable of [subscription_token] creates the table, which then replaces [token] for subscription tokens."""
    config = load(None, {"BEACONFIRE_SUBSCRIPTION_TOKEN_HMAC_SECRET": "x" * 32}, {"token.hmac_secret": "y" * 32})
    assert config.subscription_token is not None
    assert config.subscription_token.hmac_secret == "x" * 32


def test_kubernetes_service_variables_are_ignored() -> None:
    """Kubernetes sets these variables in every pod for a Service named beaconfire or beaconfire-server."""
    env = {
        "BEACONFIRE_SERVICE_HOST": "10.0.0.1",
        "BEACONFIRE_SERVICE_PORT": "8000",
        "BEACONFIRE_SERVICE_PORT_HTTP": "8000",
        "BEACONFIRE_PORT": "tcp://10.0.0.1:8000",
        "BEACONFIRE_PORT_8000_TCP": "tcp://10.0.0.1:8000",
        "BEACONFIRE_PORT_8000_TCP_ADDR": "10.0.0.1",
        "BEACONFIRE_SERVER_PORT": "tcp://10.0.0.2:8000",
        "BEACONFIRE_SERVER_SERVICE_HOST": "10.0.0.2",
    }
    assert load(None, env, {}) == Config()


def _plain_tree(value: object) -> object:
    return {name: _plain_tree(inner) for name, inner in value.items()} if isinstance(value, dict) else to_plain(value)


def test_document_loads_as_the_same_configuration(tmp_path: Path) -> None:
    """A configuration that is written as plain values and loaded again is equal."""
    config = load(write(tmp_path, QUICK_START), {}, {"client.stale_close_delay": "1234567.5s"})
    document = json.loads(json.dumps(_plain_tree(as_document(config))))
    assert document["client"]["ping_interval"] == "25s"
    assert load(write(tmp_path, json.dumps(document), "again.json"), {}, {}) == config


def test_secret_values_lists_every_secret() -> None:
    """The list contains every secret that is set, also those of optional tables."""
    overrides = {
        "token.hmac_secret": "one",
        "token.hmac_previous_secret": "two",
        "subscription_token.hmac_secret": "three",
        "api.keys": "four,five",
    }
    assert secret_values(load(None, {}, overrides)) == ["one", "two", "three", "four", "five"]
    assert secret_values(Config()) == []
