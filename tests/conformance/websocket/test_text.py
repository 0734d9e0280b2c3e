"""UTF-8 in text messages: valid text in all divisions, early failure for invalid text (like Autobahn 6)."""

from __future__ import annotations

import pytest

from .raw_client import CONTINUATION, PING, PONG, TEXT, RawClient, Received, client_frame
from .server import EchoServer

VALID = [
    "Hello-µ@ßöäüàá-UTF-8!!".encode(),
    "κόσμε".encode(),
    b"\x00\x7f",
    b"\xc2\x80\xdf\xbf",
    b"\xe0\xa0\x80\xef\xbf\xbf\xef\xbf\xbe",
    b"\xf0\x90\x80\x80\xf4\x8f\xbf\xbf",
    b"\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbd",
    b"\xf0\x9f\xbf\xbe\xf4\x8f\xbf\xbe",
]
INVALID = [
    b"\x80",
    b"\xbf",
    b"\x80\xbf\x80\xbf",
    b"\xc0 \xc1 ",
    b"\xe0 \xef ",
    b"\xf0 \xf7 ",
    b"\xc3",
    b"\xe0\x80",
    b"\xf0\x80\x80",
    b"\xef\xbf",
    b"\xfe",
    b"\xff",
    b"\xfe\xfe\xff\xff",
    b"\xc0\xaf",
    b"\xe0\x80\xaf",
    b"\xf0\x80\x80\xaf",
    b"\xf8\x80\x80\x80\xaf",
    b"\xfc\x80\x80\x80\x80\xaf",
    b"\xc1\xbf",
    b"\xe0\x9f\xbf",
    b"\xf0\x8f\xbf\xbf",
    b"\xc0\x80",
    b"\xed\xa0\x80",
    b"\xed\xaf\xbf",
    b"\xed\xb0\x80",
    b"\xed\xa0\x80\xed\xb0\x80",
    b"\xf4\x90\x80\x80",
    b"\xf7\xbf\xbf\xbf",
    b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
]


@pytest.mark.parametrize("text", VALID)
def test_valid_text_is_accepted_at_every_division(peer: RawClient, text: bytes) -> None:
    """A character may be divided between two fragments, with a ping in between."""
    frames: list[bytes] = []
    expected: list[Received] = []
    for cut in range(len(text) + 1):
        frames += [
            client_frame(TEXT, text[:cut], final=False),
            client_frame(PING),
            client_frame(CONTINUATION, text[cut:]),
        ]
        expected += [Received(PONG, b""), Received(TEXT, text)]
    assert peer.exchange(*frames) == expected


@pytest.mark.parametrize("text", INVALID)
def test_invalid_text_is_a_violation_at_every_division(server: EchoServer, text: bytes) -> None:
    """Whole or divided, it never reaches the session."""
    for cut in range(len(text) + 1):
        with RawClient.open(server.port) as peer:
            fragments = [client_frame(TEXT, text[:cut], final=False), client_frame(CONTINUATION, text[cut:])]
            assert peer.send_until_close(*(fragments if cut else [client_frame(TEXT, text)])) == ([], 1007)


def test_first_invalid_fragment_ends_the_connection(peer: RawClient) -> None:
    """Before the message is complete."""
    good = "κόσμε".encode()
    frames, code = peer.send_until_close(
        client_frame(TEXT, good, final=False), client_frame(CONTINUATION, b"\xf4\x90", final=False)
    )
    assert (frames, code) == ([], 1007)


def test_messages_do_not_share_state(peer: RawClient) -> None:
    """Text that is valid only as the continuation of the previous message is invalid."""
    frames, code = peer.send_until_close(client_frame(TEXT, "é".encode()), client_frame(TEXT, b"\xa9"))
    assert (frames, code) == ([Received(TEXT, "é".encode())], 1007)
