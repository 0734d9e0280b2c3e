"""Loading the configuration: accepted input, refused input and error texts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from beaconfire.base.units import Seconds, Size
from beaconfire.channels.options import ChannelOptions
from beaconfire.config import (
    TABLE,
    Config,
    ConfigError,
    Problem,
    as_document,
    load,
    load_with_origins,
    secret_values,
)
from beaconfire.config.values import MASK, to_plain, to_text

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


def problems(
    path: str | None = None, env: Mapping[str, str] | None = None, overrides: Mapping[str, str] | None = None
) -> tuple[Problem, ...]:
    with pytest.raises(ConfigError) as caught:
        load(path, env or {}, overrides or {})
    return caught.value.problems


def only_problem(
    path: str | None = None, env: Mapping[str, str] | None = None, overrides: Mapping[str, str] | None = None
) -> Problem:
    (problem,) = problems(path, env, overrides)
    return problem


# --- accepted input ----------------------------------------------------------------------------------------------


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


# --- refused input -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("server.port", "70000", "expected an integer from 0 to 65535, got 70000"),
        ("server.port", '"8000"', 'expected an integer from 0 to 65535, got "8000"'),
        ("server.port", "8000.0", "expected an integer from 0 to 65535, got 8000.0"),
        ("server.port", "true", "expected an integer from 0 to 65535, got true"),
        ("server.demo", '"yes"', 'expected true or false, got "yes"'),
        ("server.demo", "1", "expected true or false, got 1"),
        ("server.host", "5", "expected text, got 5"),
        ("server.host", "2020-01-01", "expected text, got a date or time"),
        ("client.channel_limit", "0", "expected an integer of 1 or more, got 0"),
        ("client.ping_interval", '"fast"', 'expected a duration like "25s", "300ms" or "1h30m", got "fast"'),
        ("client.ping_interval", "-1", 'expected a duration like "25s", "300ms" or "1h30m", got -1'),
        ("client.queue_max_size", '"1 pound"', 'expected a size above 0 like 65536, "64KiB" or "1MB", got "1 pound"'),
        ("client.allowed_origins", '"*"', 'expected a list of text, got "*"'),
        ("client.allowed_origins", '["*", 5]', "expected a list of text, but item 2 is 5"),
        ("client.allowed_origins", '["", "*"]', "expected a list of text, but item 1 is empty"),
        ("engine.type", '"redis"', 'expected "memory", got "redis"'),
        ("log.level", '"loud"', 'expected "debug", "info", "warning" or "error", got "loud"'),
        ("plain.path", '"ws"', 'expected text that starts with "/", got "ws"'),
        ("plain.lobby_channel", '""', 'expected text that is not empty, got ""'),
    ],
)
def test_invalid_values(tmp_path: Path, name: str, value: str, message: str) -> None:
    """The problem contains the name, the file, what was expected and what was found."""
    table, _, option = name.partition(".")
    path = write(tmp_path, f"[{table}]\n{option} = {value}\n")
    assert only_problem(path) == Problem(name, path, message)


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("client.ping_intervall", "client.ping_interval"),
        ("client.hmac_secret", "token.hmac_secret"),
        ("client.token", "token"),
        ("channel.historysize", "channel.history_size"),
        ("namespaces.small.history_siz", "namespaces.small.history_size"),
        ("clients.ping_interval", "client.ping_interval"),
        ("port", "server.port"),
    ],
)
def test_unknown_option_names_the_nearest_known_option(key: str, nearest: str) -> None:
    """A misspelt or misplaced option is reported with the option that was probably meant."""
    assert only_problem(overrides={key: "1"}) == Problem(
        key, "command line", f"unknown option; the nearest known name is {nearest}"
    )


def test_unknown_tables_and_top_level_options(tmp_path: Path) -> None:
    """Unknown names at the top level of a file are reported, too."""
    path = write(tmp_path, "port = 5\n[cleint]\nping_interval = 5\n")
    assert [(problem.key, problem.text) for problem in problems(path)] == [
        ("port", "unknown option; the nearest known name is server.port"),
        ("cleint", "unknown table; the nearest known name is client"),
    ]


def test_unknown_variable_names_the_nearest_known_variable() -> None:
    """A misspelt environment variable is an error as well."""
    problem = only_problem(env={"BEACONFIRE_CLIENT_PING_INTERVALL": "5s"})
    assert problem == Problem(
        "BEACONFIRE_CLIENT_PING_INTERVALL",
        "environment",
        "unknown variable; the nearest known one is BEACONFIRE_CLIENT_PING_INTERVAL",
    )


def test_invalid_value_in_a_variable_names_option_and_variable() -> None:
    """An invalid value in the environment is reported with its option and its variable."""
    assert only_problem(env={"BEACONFIRE_SERVER_PORT": ""}) == Problem(
        "server.port", "BEACONFIRE_SERVER_PORT", 'expected an integer from 0 to 65535, got ""'
    )


def test_variables_that_are_not_utf8_are_refused() -> None:
    """Python passes such bytes as lone surrogates, which later code could not encode."""
    problem = only_problem(env={"BEACONFIRE_SERVER_HOST": "\udcff"})
    assert problem.text == r'expected text, got "\udcff"'
    problem.text.encode()


def test_all_problems_at_once(tmp_path: Path) -> None:
    """All sources are read completely. An invalid value is reported even if a later source overrides it."""
    path = write(tmp_path, "[server]\nport = -1\nfoo = 1\n[namespaces.chat]\nbar = 1\n")
    found = problems(path, {"BEACONFIRE_SERVER_PORT": "x", "BEACONFIRE_LOG_LEVEL": "y"}, {"server.port": "5", "z": "1"})
    assert [problem.key for problem in found] == [
        "server.port",
        "server.foo",
        "namespaces.chat.bar",
        "log.level",
        "server.port",
        "z",
    ]


def test_error_text_has_one_line_per_problem() -> None:
    """The text of the exception lists all problems."""
    with pytest.raises(ConfigError) as caught:
        load("missing.toml", {}, {"server.port": "x"})
    assert str(caught.value).splitlines() == [
        "missing.toml: no such file",
        'server.port (command line): expected an integer from 0 to 65535, got "x"',
    ]


def test_value_in_place_of_a_table(tmp_path: Path) -> None:
    """The error does not repeat the value, because it may be a secret in the wrong place."""
    path = write(tmp_path, 'token = "hush"\nnamespaces = 5\n')
    found = problems(path)
    assert [(problem.key, problem.text) for problem in found] == [
        ("token", "expected a table of options, got text"),
        ("namespaces", "expected a table of tables, got an integer"),
    ]
    assert only_problem(overrides={"client": "x"}).text == (
        "expected the name of an option in this table, like client.allowed_origins"
    )


def test_namespace_with_a_dot_needs_quotes(tmp_path: Path) -> None:
    """TOML reads [namespaces.news.eu] as nested tables. The error names the remedy."""
    path = write(tmp_path, "[namespaces.news.eu]\npresence = true\n")
    assert '[namespaces."news.eu"]' in only_problem(path).text


def test_yaml_name_that_is_not_text_needs_quotes(tmp_path: Path) -> None:
    """YAML reads `no` as false. The error for such a namespace names the remedy."""
    path = write(tmp_path, "namespaces:\n  no:\n    presence: true\n", "beaconfire.yaml")
    assert "put it in quotes" in problems(path)[0].text


@pytest.mark.parametrize("value", ["{", "[]", '"x"', '{"a": 1, "a": 2}', '{"chat": 5}'])
def test_namespaces_in_a_variable_must_be_a_json_object(value: str) -> None:
    """Everything except an object of objects is refused."""
    assert problems(env={"BEACONFIRE_NAMESPACES": value})[0].origin == "BEACONFIRE_NAMESPACES"


# --- secrets -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        "[token]\nhmac_secret = 31337\n",
        "[api]\nkeys = 31337\n",
        "[api]\nkeys = [31337]\n",
        "[api]\nkeys = ['31337', 5]\n",
        "[token]\nhmac_secrt = '31337'\n",
        "[tokens]\nhmac_secret = '31337'\n",
        "token = '31337'\n",
        "[token]\nhmac_secret = '31337\n",
        "[token]\nhmac_secret = 31337x\n",
        "[token]\nhmac_previous_secret = '31337'\n",
    ],
)
def test_errors_do_not_contain_secrets(tmp_path: Path, content: str) -> None:
    """No error repeats the value of a secret."""
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, content), {}, {})
    assert "31337" not in str(caught.value)


def test_errors_do_not_contain_secrets_of_variables_and_flags() -> None:
    """No error about a variable or flag repeats the value of a secret."""
    with pytest.raises(ConfigError) as caught:
        load(None, {"BEACONFIRE_API_KEYS": "[31337", "BEACONFIRE_NAMESPACES": '{"31337'}, {"api.keys": '["31337", 5]'})
    assert "31337" not in str(caught.value)


def test_errors_do_not_quote_lines_of_broken_yaml(tmp_path: Path) -> None:
    """The message of the parser quotes the line. Our error contains only the line number."""
    path = write(tmp_path, "token:\n  hmac_secret: 'a'31337\n", "beaconfire.yaml")
    problem = only_problem(path)
    assert "31337" not in problem.text
    assert "line 2" in problem.text


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


def test_mask_is_refused_as_a_secret(tmp_path: Path) -> None:
    """If the output of `config show` is used as a file, the eight asterisks must not become the secret."""
    path = write(tmp_path, f'[token]\nhmac_secret = "{MASK}"\n[api]\nkeys = ["{MASK}"]\n')
    assert [problem.key for problem in problems(path)] == ["token.hmac_secret", "api.keys"]
