"""The commands rpc, send and ping: sections 5 and 13 of the protocol reference."""

from __future__ import annotations

import pytest

from beaconfire.transports.traits import Pings, SessionTraits
from tests.unit.kit import NodeHarness


@pytest.mark.parametrize(("method", "code"), [("", 108), ("echo", 108), ("ns:echo", 104)])
def test_rpc_without_a_handler_is_an_error(method: str, code: int) -> None:
    """The configured rules have no handlers."""
    assert NodeHarness().connect().request_code("rpc", method=method, data=1) == code


def test_send_without_a_handler_ends_the_session_with_3508() -> None:
    """A send has no reply that could have an error."""
    client = NodeHarness().connect()
    client.send_text('{"send":{"data":1}}')
    assert client.disconnect_code == 3508


@pytest.mark.parametrize("traits", [SessionTraits(), SessionTraits(Pings.TRANSPORT)])
def test_ping_of_a_native_client_ends_the_session_with_3501(traits: SessionTraits) -> None:
    """Section 5, rule 3. Also for clients with the transport's pings."""
    client = NodeHarness().open_session(traits)
    client.request("connect")
    assert client.request_code("ping") == 3501
