"""The fixture that every test of this folder uses: blocking calls on an event loop fail."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from blockbuster import BlockingError

from beaconfire.config.files import read_file


def test_reading_a_file_on_an_event_loop_fails(tmp_path: Path) -> None:
    """Elsewhere it is allowed."""
    path = tmp_path / "beaconfire.toml"
    path.write_text("[server]\nport = 0\n")
    assert read_file(str(path)) == {"server": {"port": 0}}

    async def read() -> None:
        read_file(str(path))

    with pytest.raises(BlockingError):
        asyncio.run(read())
