"""The command line: its output on both streams, and its exit codes."""

from __future__ import annotations

import json
import shlex
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from typer.testing import CliRunner, Result

from beaconfire import __version__
from beaconfire.base.errors import BeaconfireError
from beaconfire.cli.main import app
from beaconfire.config import Config, load
from beaconfire.config.values import MASK
from beaconfire.server.announcement import warnings


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of the test run must not change the configuration or color the output."""
    import os

    for name in [*os.environ]:
        if name.startswith("BEACONFIRE_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("FORCE_COLOR", raising=False)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "beaconfire.toml"
    path.write_text(
        '[client]\nallowed_origins = ["https://example.com"]\n'
        '[token]\nhmac_secret = "0123456789abcdef0123456789abcdef"\n'
        '[api]\nkeys = ["hush-hush", "hush"]\n[namespaces."news.eu"]\npresence = true\n[namespaces.no]\n',
        encoding="utf-8",
    )
    return str(path)


def test_version_is_printed() -> None:
    """The command and the option print the same line."""
    assert run("version").stdout == f"beaconfire {__version__}\n"
    assert run("--version").stdout == f"beaconfire {__version__}\n"


# --- config ----------------------------------------------------------------------------------------------------------


def test_show_prints_every_value_with_its_origin(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default output is TOML with the origin of each value in a comment."""
    monkeypatch.setenv("BEACONFIRE_CLIENT_PING_INTERVAL", "20s")
    result = run("config", "show", file, "--set", "server.port=9000")
    assert result.exit_code == 0
    rows = {tuple(line.split("  # ")[0].split()): line.partition("# ")[2] for line in result.stdout.splitlines()}
    assert rows["port", "=", "9000"] == "command line"
    assert rows["ping_interval", "=", '"20s"'] == "BEACONFIRE_CLIENT_PING_INTERVAL"
    assert rows["allowed_origins", "=", '["https://example.com"]'] == file
    assert rows["pong_timeout", "=", '"8s"'] == "default"
    assert '[namespaces."news.eu"]' in result.stdout


def test_show_writes_valid_files_with_masked_secrets(file: str) -> None:
    """The output of each format can be parsed. All formats have the same values and contain no secret."""
    toml, yaml_, json_ = (run("config", "show", file, "--format", name).stdout for name in ("toml", "yaml", "json"))
    parsed = tomllib.loads(toml)
    assert yaml.safe_load(yaml_) == parsed
    assert parsed["api"]["keys"] == [MASK, MASK]
    assert parsed["token"]["hmac_secret"] == MASK
    assert parsed["token"]["hmac_previous_secret"] == ""
    assert set(parsed["namespaces"]) == {"news.eu", "no"}
    entry = json.loads(json_)["namespaces"]["news.eu"]["presence"]
    assert entry == {"value": True, "from": file}
    assert not any("hush" in text or "0123456789" in text for text in (toml, yaml_, json_))


def test_show_reports_problems_like_serve(tmp_path: Path) -> None:
    """Problems go to standard error with exit code 2 and no traceback."""
    result = run("config", "show", str(tmp_path / "missing.toml"))
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "missing.toml" in result.stderr
    assert "Traceback" not in result.stderr


def test_check_prints_ok(file: str) -> None:
    """For a valid file the command prints only ok."""
    result = run("config", "check", file)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "ok\n", "")


def test_check_lists_all_problems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For an invalid configuration the command prints the problems of all sources and exits with 1."""
    path = tmp_path / "bad.toml"
    path.write_text("[client]\nping_intervall = 5\nchannel_limit = 0\n", encoding="utf-8")
    monkeypatch.setenv("BEACONFIRE_SERVER_PORT", "x")
    result = run("config", "check", str(path))
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        "error: 3 problems in the configuration",
        f"  client.ping_intervall  ({path})",
        "    unknown option; the nearest known name is client.ping_interval",
        f"  client.channel_limit  ({path})",
        "    expected an integer of 1 or more, got 0",
        "  server.port  (BEACONFIRE_SERVER_PORT)",
        '    expected an integer from 0 to 65535, got "x"',
    ]


def test_check_warns_about_insecure_options(file: str) -> None:
    """Warnings do not make the check fail. A note says which clients are refused."""
    result = run("config", "check", file, "--set", "client.insecure=true", "--set", "client.allowed_origins=")
    assert result.exit_code == 0
    assert result.stdout == "ok\n"
    warning, note = result.stderr.splitlines()
    assert warning.startswith("warning: client.insecure is on")
    assert note.startswith("note: client.allowed_origins is empty")


def test_check_reads_the_file_named_by_the_environment(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an argument the command checks the file that BEACONFIRE_CONFIG names, like `serve`."""
    monkeypatch.setenv("BEACONFIRE_CONFIG", file + ".missing")
    assert run("config", "check").exit_code == 1
    monkeypatch.setenv("BEACONFIRE_CONFIG", file)
    assert run("config", "check").exit_code == 0


def test_doc_of_one_setting() -> None:
    """The output has name, description, type with bounds, default and variable."""
    assert run("config", "doc", "server.port").stdout.split("\n") == [
        "server.port",
        "    Port to listen on; 0 picks a free port.",
        "    integer from 0 to 65535, default 8000",
        "    BEACONFIRE_SERVER_PORT",
        "",
        "",
    ]


def test_doc_of_namespaces() -> None:
    """The command documents an option of any namespace, and the table of all namespaces."""
    assert run("config", "doc", "namespaces.chat.presence").stdout.startswith("namespaces.chat.presence\n")
    assert run("config", "doc", "namespaces").stdout.startswith("[namespaces.<name>]\n")


def test_doc_of_a_table_and_of_all_tables() -> None:
    """With a table the command documents its settings, without an argument all tables."""
    assert "log.level" in run("config", "doc", "log").stdout
    assert "server.port" not in run("config", "doc", "log").stdout
    everything = run("config", "doc").stdout
    assert all(name in everything for name in ("log.level", "server.port", "[namespaces.<name>]"))


def test_doc_of_an_unknown_setting() -> None:
    """The error names the nearest known setting; the exit code is 2."""
    result = run("config", "doc", "client.ping_intervall")
    assert result.exit_code == 2
    assert "client.ping_interval" in result.stderr


def test_env_prints_the_defaults() -> None:
    """A shell that reads the output gets the default configuration."""
    output = run("config", "env").stdout
    env = dict(assignment.split("=", 1) for assignment in shlex.split(output, comments=True))
    assert env["BEACONFIRE_CLIENT_PING_INTERVAL"] == "25s"
    assert env["BEACONFIRE_NAMESPACES"] == "{}"
    assert load(None, env, {}) == Config()
    assert "# BEACONFIRE_SUBSCRIPTION_TOKEN_HMAC_SECRET=" in output


def test_init_prints_a_valid_file_with_new_secrets(tmp_path: Path) -> None:
    """The starter file loads without problems and warnings. Two starter files have different secrets."""
    first, second = run("config", "init").stdout, run("config", "init").stdout
    path = tmp_path / "beaconfire.toml"
    path.write_text(first, encoding="utf-8")
    config = load(str(path), {}, {})
    assert warnings(config) == []
    assert config.token.hmac_secret not in second
    assert config.api.keys[0] not in second
    assert len(config.token.hmac_secret) == 64
    assert config.channel.force_recovery


def test_commented_out_namespace_of_the_starter_file_is_valid(tmp_path: Path) -> None:
    """Without the comment signs the example namespace loads."""
    head, example = run("config", "init").stdout.split("# [namespaces.news]\n")
    path = tmp_path / "beaconfire.toml"
    path.write_text(head + "[namespaces.news]\n" + example.replace("# ", ""), encoding="utf-8")
    assert load(str(path), {}, {}).namespaces["news"].auto_cache_recover


def test_demo_configuration_is_valid() -> None:
    """The file of `make run` loads without warnings."""
    config = load(str(Path(__file__).resolve().parents[3] / "demo.toml"), {}, {})
    assert config.server.demo
    assert warnings(config) == []


# --- serve -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """A fake server that records its configuration and exits with 7."""
    configs: list[Config] = []

    def run(config: Config) -> int:
        configs.append(config)
        return 7

    server = ModuleType("beaconfire.server.process")
    server.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "beaconfire.server.process", server)
    return configs


def test_serve_runs_the_server_with_file_and_flags(file: str, served: list[Config]) -> None:
    """Flags override the configuration. The exit code is that of the server."""
    flags = ["--host", "::1", "--port", "0", "--set", "client.ping_interval=20s", "--log-level", "debug"]
    result = run("serve", "--config", file, *flags, "--log-format", "json")
    assert result.exit_code == 7
    (config,) = served
    assert (config.server.host, config.server.port) == ("::1", 0)
    assert str(config.client.ping_interval) == "20s"
    assert (config.log.level, config.log.format) == ("debug", "json")
    assert config.api.keys == ["hush-hush", "hush"]


def test_serve_refuses_an_invalid_configuration(served: list[Config]) -> None:
    """No server starts, and the exit code is 2."""
    result = run("serve", "--port", "x", "--set", "clint.insecure=true")
    assert result.exit_code == 2
    assert "server.port" in result.stderr
    assert "client.insecure" in result.stderr
    assert served == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["--set", "client.insecure"],
        ["--set", "=1"],
        ["--set", "server.port=1", "--set", "server.port=2"],
        ["--port", "1", "--set", "server.port=2"],
        ["--unknown"],
    ],
)
def test_serve_refuses_invalid_flags(arguments: list[str], served: list[Config]) -> None:
    """An incomplete, unknown or repeated flag is wrong usage: exit code 2, and no server starts."""
    result = run("serve", *arguments)
    assert result.exit_code == 2
    assert "Traceback" not in result.stderr
    assert served == []


@pytest.mark.parametrize(
    ("error", "exit_code", "message"),
    [
        (OSError(98, "Address already in use"), 1, "Address already in use"),
        (BeaconfireError("no such engine"), 2, "no such engine"),
    ],
)
def test_failures_are_printed_as_one_line(
    error: Exception, exit_code: int, message: str, served: list[Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors of Beaconfire and of the operating system are printed without a traceback."""

    def run_failing(config: Config) -> int:
        raise error

    monkeypatch.setattr(sys.modules["beaconfire.server.process"], "run", run_failing)
    result = run("serve")
    assert result.exit_code == exit_code
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
