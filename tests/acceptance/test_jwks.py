"""Key sets over real HTTP: a provider on this machine that answers well, badly, slowly or not at all."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from uuid import uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from jwt.algorithms import OKPAlgorithm

from beaconfire.auth.fetch import BODY_SIZE_MAX, fetch_body
from beaconfire.auth.issue import connection_token
from beaconfire.auth.jwks import FETCH_PAUSE_S, UNKNOWN_KIDS_MAX
from beaconfire.auth.options import TokenOptions
from beaconfire.auth.tokens import JWTVerifier
from beaconfire.base.clock import ManualClock
from beaconfire.base.units import Seconds
from beaconfire.model.events import NoEvents
from beaconfire.policy.tokens import TokenUnverifiable
from tests.acceptance.raw_peer import ClosedError, RawPeer
from tests.acceptance.server_process import ServerProcess

KEY = Ed25519PrivateKey.generate()
PEM = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def key_set(kid: str) -> bytes:
    return json.dumps({"keys": [OKPAlgorithm.to_jwk(KEY.public_key(), as_dict=True) | {"kid": kid}]}).encode()


KEY_SET = key_set("k")


class Provider(BaseHTTPRequestHandler):
    """Answers by path. `stop` ends its endless answers. `/rotating` answers `rotating` and notes it."""

    stop: threading.Event
    rotating = KEY_SET
    asked: ClassVar[list[str]]

    def do_GET(self) -> None:
        match self.path:
            case "/jwks":
                self.answer(200, KEY_SET)
            case "/rotating":
                self.asked.append(self.path)
                self.answer(200, type(self).rotating)
            case "/moved":
                self.answer(302, b"", Location="/jwks")
            case "/file":
                self.answer(302, b"", Location="file:///etc/passwd")
            case "/round":
                self.answer(302, b"", Location="/round")
            case "/big":
                self.answer(200, b" " * (BODY_SIZE_MAX + 1))
            case "/full":
                self.answer(200, KEY_SET.ljust(BODY_SIZE_MAX))
            case "/cut":
                self.answer(200, KEY_SET[:10], **{"Content-Length": str(len(KEY_SET))})
            case "/trickle":
                self.trickle()
            case "/silent":
                self.stop.wait(30)
            case _:
                self.answer(404, b"not found")

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def trickle(self) -> None:
        """One byte every now and then, each well within any timeout of a single read."""
        self.send_response(200)
        self.end_headers()
        while not self.stop.wait(0.02):
            try:
                self.wfile.write(b" ")
            except OSError:
                return

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the test's output."""


@pytest.fixture
def handler() -> type[Provider]:
    class RunningProvider(Provider):
        stop = threading.Event()
        asked: ClassVar[list[str]] = []

    return RunningProvider


@pytest.fixture
def provider(handler: type[Provider]) -> Iterator[str]:
    """The provider's address."""

    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            handler.stop.set()
            server.shutdown()
            thread.join(20)


def verify(url: str, timeout_s: float = 5) -> str:
    """The user of a good token, verified with the key set at `url`."""
    clock = ManualClock()
    options = TokenOptions(jwks_url=url, jwks_timeout=Seconds(timeout_s))
    verifier = JWTVerifier(options, clock, NoEvents())
    token = connection_token(PEM, "42", now_unix_s=clock.unix_s(), algorithm="EdDSA", kid="k")
    return asyncio.run(verifier.verify_connection(token)).user


@pytest.mark.parametrize("path", ["/jwks", "/moved", "/full"])
def test_a_key_set_is_fetched(provider: str, path: str) -> None:
    """Directly, after a redirect, and up to the size limit."""
    assert verify(provider + path) == "42"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/missing", "HTTP Error 404"),
        ("/round", "redirect error that would lead to an infinite loop"),
        ("/file", "not allowed"),
        ("/big", f"longer than {BODY_SIZE_MAX} bytes"),
        ("/cut", "no JSON Web Key Set"),
    ],
)
def test_a_bad_answer_is_unverifiable(provider: str, path: str, text: str) -> None:
    """Whatever is wrong with the answer, the token is not called invalid, and the text says what it was."""
    with pytest.raises(TokenUnverifiable) as caught:
        verify(provider + path)
    assert text in str(caught.value)


@pytest.mark.parametrize("path", ["/silent", "/trickle"])
def test_a_slow_answer_does_not_hold_the_client(provider: str, path: str) -> None:
    """Silence and a trickle of bytes both end at the timeout, for the waiter and for the thread behind it."""
    began_s = time.monotonic()
    with pytest.raises(TokenUnverifiable):
        verify(provider + path, timeout_s=0.3)  # also waits for the thread: asyncio.run joins the executor
    assert time.monotonic() - began_s < 5
    with pytest.raises(TimeoutError):
        fetch_body(provider + path, 0.1)


def test_nobody_there_is_unverifiable(provider: str) -> None:
    """A refused connection is an outage."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Provider) as closed:
        port = closed.server_address[1]
    with pytest.raises(TokenUnverifiable, match="refused"):
        verify(f"http://127.0.0.1:{port}/jwks")


# --- a server whose keys rotate ----------------------------------------------------------------------------------

CONFIG = """
[token]
jwks_url = "{url}/rotating"
[client]
debug_reasons = true
"""


def honest(kid: str) -> str:
    return connection_token(PEM, "42", now_unix_s=time.time(), algorithm="EdDSA", kid=kid)


FLOOD = 2 * UNKNOWN_KIDS_MAX


def invented() -> str:
    """A token of nobody, with a key id of its own."""
    parts = json.dumps({"alg": "EdDSA", "kid": uuid4().hex}), "{}", "no signature"
    return ".".join(base64.urlsafe_b64encode(part.encode()).decode().rstrip("=") for part in parts)


async def verdict(peer: RawPeer) -> int:
    """0 for a client that is connected, the code of an error or of a close frame for one that is not."""
    try:
        reply = await peer.read_reply(1)
    except ClosedError as closed:
        return closed.code
    return int(reply.get("error", {}).get("code", 0))


async def show(port: int, token: str) -> int:
    async with await RawPeer.connect_websocket(port) as peer:
        await peer.send_json({"id": 1, "connect": {"token": token}})
        return await verdict(peer)


def test_keys_rotate_during_a_flood_of_invented_kids(provider: str, handler: type[Provider], tmp_path: Path) -> None:
    """Whatever strangers ask for, a user of the new key is accepted, or told to come back and accepted a pause later.

    100 is an error that SDKs connect again after, 3500 one that locks a user out for good.
    """

    async def scenario(server: ServerProcess) -> None:
        began_s = time.monotonic()
        assert await show(server.port, honest("k")) == 0
        async with AsyncExitStack() as stack:

            async def flood() -> list[RawPeer]:
                peers = [
                    await stack.enter_async_context(await RawPeer.connect_websocket(server.port)) for _ in range(FLOOD)
                ]
                for peer in peers:
                    await peer.send_json({"id": 1, "connect": {"token": invented()}})
                return peers

            assert {await verdict(peer) for peer in await flood()} <= {100, 3500}
            handler.rotating = key_set("new")
            rotated_s = time.monotonic()
            strangers = await flood()
            codes: list[int] = []
            while not codes or codes[-1] != 0:
                codes.append(await show(server.port, honest("new")))
                assert codes[-1] in (0, 100), codes
                assert time.monotonic() - rotated_s < FETCH_PAUSE_S + 10, codes
            assert {await verdict(peer) for peer in strangers} <= {100, 3500}
        assert len(handler.asked) <= 1 + (time.monotonic() - began_s) / FETCH_PAUSE_S

    with ServerProcess(tmp_path, CONFIG.format(url=provider)) as server:
        asyncio.run(scenario(server))
