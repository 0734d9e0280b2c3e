"""Reading configuration files, and errors of files that cannot be read or parsed."""

from __future__ import annotations

from pathlib import Path

import pytest

from beaconfire.config.files import DocumentError, parse_json, read_file


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.ini", b"", "expected a file name that ends in .toml, .yaml, .yml or .json"),
        ("a.toml", b"a = \n", "Invalid value (at line 1, column 5)"),
        ("a.toml", b"a = '\xff'\n", "is not UTF-8 text (byte 5)"),
        ("a.toml", b"[a]\nb = 1\nb = 2\n", "Cannot overwrite a value (at line 3, column 6)"),
        ("a.json", b'{"a": }', "Expecting value (line 1, column 7)"),
        ("a.json", b"[]", "expected tables of options at the top level"),
        ("a.json", b'{"a": 1, "a": 2}', 'duplicate key "a"'),
        ("a.yaml", b"a: 1\na: 2\n", 'duplicate key "a" (line 2, column 1)'),
        ("a.yaml", b"a:\n  b: 1\n  b: 2\n", 'duplicate key "b" (line 3, column 3)'),
        ("a.yaml", b"a: \x01\n", "contains a character that YAML does not allow"),
        ("a.yaml", b"? [1]\n: 2\n", "found unhashable key (line 1, column 3)"),
        ("a.yaml", b"!!python/object/apply:os.getcwd []\n", None),
        ("a.yaml", b"just text\n", "expected tables of options at the top level"),
    ],
)
def test_unusable_files_are_refused_with_a_reason(
    tmp_path: Path, name: str, content: bytes, message: str | None
) -> None:
    """Every kind of broken file has its own error text. A YAML tag that would run code is refused, too."""
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DocumentError) as caught:
        read_file(str(path))
    if message is not None:
        assert str(caught.value) == message


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    """A missing file and a folder are errors, unlike an empty file."""
    with pytest.raises(DocumentError, match="no such file"):
        read_file(str(tmp_path / "missing.toml"))
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(DocumentError, match="cannot be read"):
        read_file(str(tmp_path / "folder.toml"))


def test_extension_is_case_insensitive(tmp_path: Path) -> None:
    """The extension selects the format in upper and lower case."""
    (tmp_path / "A.TOML").write_text("[a]\n", encoding="utf-8")
    assert read_file(str(tmp_path / "A.TOML")) == {"a": {}}


def test_yaml_merge_keys_may_be_overridden(tmp_path: Path) -> None:
    """A key that overrides a merged key is not a duplicate."""
    content = "a: &base {x: 1, y: 1}\nb: &derived\n  <<: *base\n  y: 2\nc:\n  <<: *derived\n  y: 3\n"
    (tmp_path / "a.yaml").write_text(content, encoding="utf-8")
    assert read_file(str(tmp_path / "a.yaml")) == {"a": {"x": 1, "y": 1}, "b": {"x": 1, "y": 2}, "c": {"x": 1, "y": 3}}


def test_json_values_are_returned_unchanged() -> None:
    """Nested objects, lists and null keep their values."""
    assert parse_json('{"a": {"b": [1, null]}}') == {"a": {"b": [1, None]}}
