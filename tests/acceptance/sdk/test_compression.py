"""The official SDKs against servers with compression: all checks must pass as without compression.

Both the Python SDK and the WebSocket library of the JavaScript SDK offer compression by themselves.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache

import pytest
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory, PerMessageDeflate
from websockets.sync.client import connect

from tests.acceptance.deadlines import DEADLINE_S, run_scenario
from tests.acceptance.raw_peer import RawPeer
from tests.acceptance.sdk.checks import checks_of
from tests.acceptance.sdk.test_official_sdks import CONFIG, FAST_CLOCKS, Reports, run_sdk
from tests.acceptance.server_process import ServerProcess

pytestmark = pytest.mark.quiet  # as for `test_official_sdks`

COMPRESSING = {"websocket.compression": "true", "websocket.compression_min_size": "1"}
SDKS = ("python-0.7.0", "javascript-5.8.0")
CODECS = ("json", "protobuf")


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerProcess, ServerProcess]]:
    folder = tmp_path_factory.mktemp("compressing")
    with (
        ServerProcess(folder, CONFIG, COMPRESSING) as reference,
        ServerProcess(folder, CONFIG, {**FAST_CLOCKS, **COMPRESSING}) as fast,
    ):
        yield reference, fast


@pytest.fixture(scope="module")
def reports_of(servers: tuple[ServerProcess, ServerProcess]) -> Callable[[str], Reports]:
    ports = [str(server.port) for server in servers]
    return cache(lambda sdk: run_sdk(sdk, ports, CODECS))


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("sdk", SDKS)
def test_all_checks_pass_with_compression(sdk: str, codec: str, reports_of: Callable[[str], Reports]) -> None:
    """The SDK passes every check of its codec."""
    report = reports_of(sdk)[codec]
    assert {check: error for check, error in report.items() if error} == {}
    assert report.keys() - {""} == set(checks_of(sdk, codec))


def test_usual_compression_offers_are_accepted(servers: tuple[ServerProcess, ServerProcess]) -> None:
    """The offers of these two libraries and of browsers are accepted."""
    offers = {
        "permessage-deflate; server_max_window_bits=12; client_max_window_bits=12": "; server_max_window_bits=12",
        "permessage-deflate; client_max_window_bits": "",
        "permessage-deflate": "",
        "permessage-deflate; server_max_window_bits=9": "; server_max_window_bits=9",
        "permessage-deflate; server_max_window_bits=8, permessage-deflate": "",
    }

    async def scenario() -> None:
        for offer, more in offers.items():
            answer = f"permessage-deflate; server_no_context_takeover; client_no_context_takeover{more}"
            async with await RawPeer.connect_websocket(
                servers[0].port, headers=[("Sec-WebSocket-Extensions", offer)]
            ) as peer:
                assert peer.upgrade_response.headers["sec-websocket-extensions"] == answer

    run_scenario(scenario())


WINDOWS = (9, 10, 11, 12, 15)


def test_subscribers_with_different_windows_receive_all_messages(servers: tuple[ServerProcess, ServerProcess]) -> None:
    """Each client receives every message in order, with its own window or without compression."""
    url = f"ws://127.0.0.1:{servers[0].port}/ws"
    offers = [[ClientPerMessageDeflateFactory(server_max_window_bits=bits)] for bits in WINDOWS]
    texts = [f"{number} " + secrets.token_hex(2000) * 3 for number in range(5)]
    with ExitStack() as stack:
        receivers = [stack.enter_context(connect(url, extensions=offer, compression=None)) for offer in offers]
        receivers.append(stack.enter_context(connect(url, compression=None)))
        sender = stack.enter_context(connect(url, compression=None))
        for receiver, bits in zip(receivers, WINDOWS, strict=False):
            (extension,) = receiver.protocol.extensions
            assert isinstance(extension, PerMessageDeflate)
            assert extension.remote_max_window_bits == min(bits, 12)
        for text in texts:
            sender.send(text)
            for receiver in receivers:
                assert receiver.recv(timeout=DEADLINE_S) == text
