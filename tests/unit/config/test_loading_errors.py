"""Loading the configuration: refused input and error texts, which contain no secrets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from beaconfire.config import ConfigError, Problem, load
from beaconfire.config.values import MASK
from tests.unit.config.test_loading import write


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
        ("engine.type", '"kafka"', 'expected "memory", "sqlite" or "redis", got "kafka"'),
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


def test_mask_is_refused_as_a_secret(tmp_path: Path) -> None:
    """If the output of `config show` is used as a file, the eight asterisks must not become the secret."""
    path = write(tmp_path, f'[token]\nhmac_secret = "{MASK}"\n[api]\nkeys = ["{MASK}"]\n')
    assert [problem.key for problem in problems(path)] == ["token.hmac_secret", "api.keys"]
