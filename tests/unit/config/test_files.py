"""Reading configuration files, and refusing those that cannot be read for what they say."""

from __future__ import annotations

from pathlib import Path

import pytest

from beaconfire.config.files import FileProblem, parse_json, read_file


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.ini", b"", "expected a file name that ends in .toml, .yaml, .yml or .json"),
        ("a.toml", b"a = \n", "Invalid value (at line 1, column 5)"),
        ("a.toml", b"a = '\xff'\n", "is not UTF-8 text (byte 5)"),
        ("a.toml", b"[a]\nb = 1\nb = 2\n", "Cannot overwrite a value (at line 3, column 6)"),
        ("a.json", b'{"a": }', "Expecting value (line 1, column 7)"),
        ("a.json", b"[]", "expected tables of options at the top"),
        ("a.json", b'{"a": 1, "a": 2}', 'the key "a" comes twice'),
        ("a.yaml", b"a: 1\na: 2\n", 'the key "a" comes twice (line 2, column 1)'),
        ("a.yaml", b"a:\n  b: 1\n  b: 2\n", 'the key "b" comes twice (line 3, column 3)'),
        ("a.yaml", b"a: \x01\n", "holds a character that YAML does not allow"),
        ("a.yaml", b"? [1]\n: 2\n", "found unhashable key (line 1, column 3)"),
        ("a.yaml", b"!!python/object/apply:os.getcwd []\n", None),
        ("a.yaml", b"just text\n", "expected tables of options at the top"),
    ],
)
def test_what_is_wrong_with_a_file(tmp_path: Path, name: str, content: bytes, message: str | None) -> None:
    """Each kind of broken file is refused with a reason; a tag that would run code is one of them."""
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(FileProblem) as caught:
        read_file(str(path))
    if message is not None:
        assert str(caught.value) == message


def test_files_that_are_not_there(tmp_path: Path) -> None:
    """A missing file and a folder are told apart from an empty file."""
    with pytest.raises(FileProblem, match="no such file"):
        read_file(str(tmp_path / "missing.toml"))
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(FileProblem, match="cannot be read"):
        read_file(str(tmp_path / "folder.toml"))


def test_extensions_in_capitals(tmp_path: Path) -> None:
    """The format is told by the extension, however it is written."""
    (tmp_path / "A.TOML").write_text("[a]\n", encoding="utf-8")
    assert read_file(str(tmp_path / "A.TOML")) == {"a": {}}


def test_yaml_merges(tmp_path: Path) -> None:
    """Shared options may be merged and overridden, which is no key written twice."""
    content = "a: &base {x: 1, y: 1}\nb: &derived\n  <<: *base\n  y: 2\nc:\n  <<: *derived\n  y: 3\n"
    (tmp_path / "a.yaml").write_text(content, encoding="utf-8")
    assert read_file(str(tmp_path / "a.yaml")) == {"a": {"x": 1, "y": 1}, "b": {"x": 1, "y": 2}, "c": {"x": 1, "y": 3}}


def test_json_values() -> None:
    """Nested objects come out as they are."""
    assert parse_json('{"a": {"b": [1, null]}}') == {"a": {"b": [1, None]}}
