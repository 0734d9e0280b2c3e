"""The format of published data: section 13 of the protocol reference."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import Raw

from beaconfire.base.errors import CommandError
from beaconfire.channels.data_format import check_data
from beaconfire.channels.namespaces import Namespace
from beaconfire.channels.options import ChannelOptions


@pytest.mark.parametrize(
    ("name", "data", "code"),
    [
        ("", b"\xff", 0),
        ("", b"", 107),
        ("json", b"\xff", 107),
        ("json", b"{", 107),
        ("json", b"", 107),
        ("json_object", b'{"a":', 107),
        ("json_object", b"", 107),
        ("binary", b"\xff", 0),
        ("binary", b"", 0),
    ],
)
def test_data_must_have_the_format_of_the_namespace(name: Any, data: bytes, code: int) -> None:
    """Any bytes from a Protobuf client or a backend."""
    namespace = Namespace("", ChannelOptions(publication_data_format=name), 1.0)
    if code == 0:
        check_data(Raw(data), namespace)
        return
    with pytest.raises(CommandError) as raised:
        check_data(Raw(data), namespace)
    assert raised.value.code.code == code
