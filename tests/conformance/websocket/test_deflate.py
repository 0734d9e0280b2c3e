"""Compressed messages over a real connection (RFC 7692; like Autobahn 12 and 13)."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator

import pytest
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.sync.client import connect

from beaconfire.model.events import LimitHit
from beaconfire.transports.websocket.deflate import deflate

from .raw_client import BINARY, CONTINUATION, HEADERS, PING, PONG, TEXT, RawClient, Received, client_frame, request
from .server import MESSAGE_SIZE_LIMIT, EchoServer

COMPRESSED = 4
"""Reserved bit 1, in the form of `client_frame`."""

OFFER = "permessage-deflate; client_max_window_bits"
ACCEPTED = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
TOO_BIG = LimitHit("websocket.message_size_limit", "")
LONG = b"hello, world. " * 100


@pytest.fixture
def compressing_peer(server: EchoServer) -> Iterator[RawClient]:
    """A client that has negotiated compression."""
    with RawClient.open(server.port, "/deflate", extensions=OFFER) as connected:
        yield connected


def compressed(opcode: int, data: bytes, level: int = 1) -> bytes:
    return client_frame(opcode, deflate(data, level), reserved=COMPRESSED)


@pytest.mark.parametrize("pieces", [1, 2])
def test_negotiation(server: EchoServer, pieces: int) -> None:
    """The response header, for a request in one segment or several. Two headers are one list."""
    table = {
        (OFFER,): ACCEPTED,
        ("permessage-deflate; server_max_window_bits=15",): f"{ACCEPTED}; server_max_window_bits=12",
        ("permessage-deflate; server_max_window_bits=9", "permessage-deflate"): f"{ACCEPTED}; server_max_window_bits=9",
        ("permessage-deflate; server_max_window_bits=8", "permessage-deflate"): ACCEPTED,
        ("permessage-deflate; server_max_window_bits=8",): None,
        ("permessage-deflate; unknown",): None,
        ("something-else",): None,
    }
    for offers, accepted in table.items():
        headers = HEADERS + tuple(("Sec-WebSocket-Extensions", offer) for offer in offers)
        with RawClient(server.port) as peer:
            data = request("/deflate", headers)
            for at in range(0, len(data), len(data) // pieces + 1):
                peer.send(data[at : at + len(data) // pieces + 1])
            response = peer.response()
            assert (response.status, response.headers.get("sec-websocket-extensions")) == (101, accepted)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_both_directions_are_compressed(compressing_peer: RawClient, opcode: int) -> None:
    """Compressed and uncompressed messages may alternate; each is independent."""
    for _ in range(3):
        compressing_peer.send(compressed(opcode, LONG), client_frame(opcode, LONG), compressed(opcode, b"short"))
        assert compressing_peer.message() == (True, Received(opcode, LONG))
        assert compressing_peer.message() == (True, Received(opcode, LONG))
        assert compressing_peer.message() == (False, Received(opcode, b"short"))
    assert compressing_peer.exchange(compressed(opcode, b"")) == [Received(opcode, b"")]


@pytest.mark.parametrize("window_bits", [9, 10, 11, 12])
def test_requested_window_is_respected(server: EchoServer, window_bits: int) -> None:
    """A client with a small window can inflate messages that are much larger than the window."""
    block = os.urandom(3000)
    data = b"".join(block + LONG for _ in range(20))
    offer = f"permessage-deflate; server_max_window_bits={window_bits}"
    with RawClient.open(server.port, "/deflate", extensions=offer) as peer:
        peer.send(client_frame(BINARY, data), compressed(BINARY, data))
        for _ in range(2):
            assert peer.message(window_bits) == (True, Received(BINARY, data))


@pytest.mark.parametrize("chop", [1, 7, 997])
def test_any_segmentation(compressing_peer: RawClient, chop: int) -> None:
    """Messages are independent of TCP segments."""
    data = compressed(TEXT, LONG) + compressed(TEXT, b"x" * 100) + client_frame(TEXT, b"y")
    for at in range(0, len(data), chop):
        compressing_peer.send(data[at : at + chop])
    assert [compressing_peer.message()[1].payload for _ in range(3)] == [LONG, b"x" * 100, b"y"]


@pytest.mark.parametrize("size", [1, 3, 50])
def test_compressed_message_in_fragments(compressing_peer: RawClient, size: int) -> None:
    """Only the first fragment has the compression bit. Text is checked across fragments; pings may come in between."""
    text = "ÄÖÜ 水 " * 40
    payload = deflate(text.encode(), 9)
    pieces = [payload[at : at + size] for at in range(0, len(payload), size)]
    compressing_peer.send(client_frame(TEXT, pieces[0], final=False, reserved=COMPRESSED))
    compressing_peer.send(*(client_frame(CONTINUATION, piece, final=False) for piece in pieces[1:]))
    compressing_peer.send(client_frame(PING, b"still here"), client_frame(CONTINUATION))
    assert compressing_peer.message() == (False, Received(PONG, b"still here"))
    assert compressing_peer.message() == (True, Received(TEXT, text.encode()))
    assert compressing_peer.exchange(client_frame(TEXT, b"on")) == [Received(TEXT, b"on")]


@pytest.mark.parametrize("opcode", [TEXT, BINARY, PING, PONG, 8])
@pytest.mark.parametrize("reserved", [1, 2, 3, 5, 6, 7])
def test_other_reserved_bits_are_violations(server: EchoServer, opcode: int, reserved: int) -> None:
    """With or without the compression bit."""
    with RawClient.open(server.port, "/deflate", extensions=OFFER) as peer:
        assert peer.send_until_close(client_frame(opcode, deflate(b"x", 1), reserved=reserved)) == ([], 1002)


@pytest.mark.parametrize("opcode", [PING, PONG, 8, CONTINUATION])
def test_compression_bit_only_on_the_first_data_frame(server: EchoServer, opcode: int) -> None:
    """Control frames and later fragments must not have it (sections 6 and 6.1)."""
    begin = client_frame(TEXT, b"\x00", final=False) if opcode == CONTINUATION else b""
    with RawClient.open(server.port, "/deflate", extensions=OFFER) as peer:
        assert peer.send_until_close(begin, client_frame(opcode, b"\x03\xe8", reserved=COMPRESSED)) == ([], 1002)


@pytest.mark.parametrize("extensions", ["", "permessage-deflate; unknown"])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_no_compression_without_negotiation(server: EchoServer, extensions: str, opcode: int) -> None:
    """Without an acceptable offer, neither side may send compressed messages."""
    with RawClient.open(server.port, "/deflate", extensions=extensions) as peer:
        peer.send(client_frame(opcode, LONG))
        assert peer.message() == (False, Received(opcode, LONG))
        assert peer.send_until_close(compressed(opcode, LONG)) == ([], 1002)


@pytest.mark.parametrize("behind", [b"", client_frame(PING, b"")])
def test_invalid_compressed_data_is_a_violation(server: EchoServer, behind: bytes) -> None:
    """Data that cannot be inflated, or inflates to invalid text: 1007. With both readers of the server."""
    for payload in (b"\xff\xff", b"", deflate(LONG, 1)[:-5], deflate(b"\xff", 1)):
        with RawClient.open(server.port, "/deflate", extensions=OFFER) as peer:
            assert peer.send_until_close(client_frame(TEXT, payload, reserved=COMPRESSED), behind) == ([], 1007)


def test_size_limit_is_for_the_inflated_message(server: EchoServer, compressing_peer: RawClient) -> None:
    """A message of exactly the limit is accepted with any compression; one more byte is not."""
    whole = b"x" * MESSAGE_SIZE_LIMIT
    compressing_peer.send(compressed(BINARY, whole), client_frame(BINARY, whole), compressed(BINARY, whole, 0))
    for _ in range(3):
        assert len(compressing_peer.message()[1].payload) == MESSAGE_SIZE_LIMIT
    half = deflate(whole + b"x", 1)
    cut = len(half) // 2
    fragments = client_frame(BINARY, half[:cut], final=False, reserved=COMPRESSED) + client_frame(
        CONTINUATION, half[cut:]
    )
    for message in (compressed(BINARY, whole + b"x"), client_frame(BINARY, whole + b"x"), fragments):
        server.events.clear()
        with RawClient.open(server.port, "/deflate", extensions=OFFER) as peer:
            assert peer.send_until_close(message) == ([], 1009)
        assert server.events == [TOO_BIG]


def test_decompression_bomb_is_refused(server: EchoServer) -> None:
    """300 MB at a ratio of 1,000 to 1, in one frame or in fragments: 1009, and the limit is counted."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = b"".join(compressor.compress(bytes(1 << 20)) for _ in range(300)) + compressor.flush(zlib.Z_SYNC_FLUSH)[:-4]
    assert len(bomb) < MESSAGE_SIZE_LIMIT // 3
    first = client_frame(BINARY, bomb[:1000], final=False, reserved=COMPRESSED)
    for frames in (client_frame(BINARY, bomb, reserved=COMPRESSED), first + client_frame(CONTINUATION, bomb[1000:])):
        server.events.clear()
        with RawClient.open(server.port, "/deflate", extensions=OFFER) as peer:
            assert peer.send_until_close(frames) == ([], 1009)
        assert server.events == [TOO_BIG]


@pytest.mark.parametrize(
    "factory",
    [
        None,
        ClientPerMessageDeflateFactory(),
        ClientPerMessageDeflateFactory(server_max_window_bits=12, client_max_window_bits=9),
        ClientPerMessageDeflateFactory(server_max_window_bits=9),
        ClientPerMessageDeflateFactory(server_no_context_takeover=True, client_no_context_takeover=True),
        ClientPerMessageDeflateFactory(server_max_window_bits=15, client_max_window_bits=15),
    ],
)
def test_compression_with_a_client_library(server: EchoServer, factory: ClientPerMessageDeflateFactory | None) -> None:
    """The library `websockets`, with its default offer and with others."""
    extensions = [factory] if factory else None
    with connect(
        f"ws://127.0.0.1:{server.port}/deflate", extensions=extensions, compression=None if factory else "deflate"
    ) as client:
        assert [extension.name for extension in client.protocol.extensions] == ["permessage-deflate"]
        for message in ("", "short", "ÄÖÜ " * 100, LONG * 50, LONG, b"\x00" * 300_000):
            client.send(message)
            assert client.recv() == message
        client.send(["in ", "many ", "pieces" * 1000])
        assert client.recv() == "in many " + "pieces" * 1000
