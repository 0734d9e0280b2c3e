"""Wrong options of `beaconfire bench`: the error names the option and a valid value, and nothing is started."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from beaconfire.cli.main import app

URL = "ws://127.0.0.1:9"


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("FORCE_COLOR", raising=False)


def error_of(*arguments: str) -> str:
    """The text on standard error, as one line."""
    result = CliRunner().invoke(app, ["bench", *arguments])
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    return re.sub(r"[\s│╭╮╰╯─]+", " ", result.stderr)


@pytest.mark.parametrize(
    ("arguments", "option", "remedy"),
    [
        (["localhost:8000"], "URL", "like ws://localhost:8000/connection/websocket"),
        ([URL, "--connections", "0"], "--connections", "greater than or equal to 1"),
        ([URL, "--connections", "900000"], "--connections", "sysctl"),
        ([URL, "--channels", "2", "--rooms", "2"], "--rooms", "either --channels or --rooms"),
        ([URL, "--connections", "5", "--rooms", "6"], "--rooms", "raise --connections"),
        ([URL, "--connections", "1", "--processes", "2"], "--processes", "at most as many as connections"),
        ([URL, "--rate", "fast"], "--rate", "like 100/s"),
        ([URL, "--rate", "0"], "--rate", "like 100/s"),
        ([URL, "--duration", "0"], "--duration", "more than zero"),
        ([URL, "--duration", "long"], "--duration", "300ms"),
        ([URL, "--warm-up", "-1"], "--warm-up", "zero or more"),
        ([URL, "--payload", "8"], "--payload", "64 bytes"),
        ([URL, "--payload", "big"], "--payload", "64KiB"),
        ([URL, "--p99", "0"], "--p99", "more than zero"),
        ([URL, "--token", "nowhere.txt"], "--token", "No such file"),
        ([URL, "--token", "nowhere.txt", "--token-secret", "hush"], "--token", "not both"),
    ],
)
def test_wrong_options(arguments: list[str], option: str, remedy: str) -> None:
    """Exit code 2, the name of the option, and the remedy; never a secret."""
    text = error_of(*arguments)
    assert option in text
    assert remedy in text
    assert "hush" not in text


def test_empty_token_file(tmp_path: Path) -> None:
    """The error names the command that creates a token."""
    file = tmp_path / "tokens"
    file.write_text("\n")
    assert "beaconfire token connection" in error_of(URL, "--token", str(file))
