"""The commands rpc, send and ping: sections 5 and 13 of the protocol reference."""

from __future__ import annotations

import pytest

from beaconfire.session.traits import SessionTraits
from tests.unit.kit import NodeHarness


@pytest.mark.parametrize(("method", "code"), [("", 108), ("echo", 108), ("ns:echo", 104)])
def test_rpc_needs_a_handler(method: str, code: int) -> None:
    """And there is none."""
    assert NodeHarness().connect().request_code("rpc", method=method, data=1) == code


def test_send_needs_a_handler() -> None:
    """Since it has no reply, the session ends with 3508."""
    client = NodeHarness().connect()
    client.send_text('{"send":{"data":1}}')
    assert client.disconnect_code == 3508


@pytest.mark.parametrize("traits", [SessionTraits(), SessionTraits(app_pings=False)])
def test_ping_is_no_native_command(traits: SessionTraits) -> None:
    """3501 (section 5, rule 3), also for clients with the transport's pings."""
    client = NodeHarness().open_session(traits)
    client.request("connect")
    assert client.request_code("ping") == 3501
