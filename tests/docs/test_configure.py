"""The examples of `docs/how-to/configure.md` work as described."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from beaconfire.cli.main import app
from beaconfire.config import load

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "configure.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def in_folder(folder: Path, name: str, content: str, monkeypatch: pytest.MonkeyPatch) -> str:
    (folder / name).write_text(content, encoding="utf-8")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "80")
    return name


def test_three_sources_combine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """File, environment and flag combine as the page says, and `config show` prints the output on the page."""
    name = in_folder(tmp_path, "beaconfire.toml", blocks("toml")[0], monkeypatch)
    env = {"BEACONFIRE_CLIENT_PING_INTERVAL": "20s", "BEACONFIRE_SERVER_PORT": "8080"}
    config = load(name, env, {"server.port": "9000"})
    assert (config.server.host, config.server.port, str(config.client.ping_interval)) == ("0.0.0.0", 9000, "20s")
    command, *shown = next(block for block in blocks("console") if "config show" in block).splitlines()
    arguments = command.partition("beaconfire config show ")[2].split()
    output = (
        CliRunner(env={"BEACONFIRE_CLIENT_PING_INTERVAL": "20s"}).invoke(app, ["config", "show", *arguments]).stdout
    )
    assert output.splitlines()[: len(shown) - 1] == shown[:-1]


def test_namespaces_in_toml_and_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both files give the same configuration, and the variable is merged with it."""
    toml = in_folder(tmp_path, "a.toml", blocks("toml")[1], monkeypatch)
    yaml = in_folder(tmp_path, "a.yaml", blocks("yaml")[0], monkeypatch)
    assert load(toml, {}, {}) == load(yaml, {}, {})
    (value,) = re.findall(r"BEACONFIRE_NAMESPACES='(.*)'", PAGE.read_text(encoding="utf-8"))
    merged = load(toml, {"BEACONFIRE_NAMESPACES": value}, {}).namespaces
    assert merged["chat"].history_size == 500
    assert merged["chat"].presence
    assert merged["news"].allow_subscribe_for_client


def test_problems_are_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The output of `config check` is the output on the page."""
    in_folder(tmp_path, "beaconfire.toml", "[client]\nping_intervall = 1\n[channel]\nhistory_size = 1\n", monkeypatch)
    block = next(block for block in blocks("console") if "BEACONFIRE_SERVER_PORT=http" in block)
    runner = CliRunner(env={"BEACONFIRE_SERVER_PORT": "http"})
    result = runner.invoke(app, ["config", "check", "beaconfire.toml"])
    assert result.exit_code == 1
    assert result.stderr.splitlines() == block.splitlines()[1:]
