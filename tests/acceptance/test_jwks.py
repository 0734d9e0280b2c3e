"""Key sets over real HTTP: a provider on this machine that answers correctly, wrongly, slowly or not at all."""

from __future__ import annotations

import asyncio
import base64
import gc
import gzip
import json
import ssl
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

from beaconfire.auth.issue import connection_token
from beaconfire.auth.jwks import FETCH_INTERVAL_MIN_S, UNKNOWN_KIDS_MAX
from beaconfire.auth.jwks_http import BODY_BYTES_MAX
from beaconfire.auth.options import TokenOptions
from beaconfire.auth.tokens import JWTVerifier
from beaconfire.base.clock import ManualClock
from beaconfire.base.units import Seconds
from beaconfire.config import Config
from beaconfire.model.events import NoEvents
from beaconfire.policy.tokens import TokenUnverifiable
from beaconfire.server.app import App
from tests.acceptance.raw_peer import ClosedError, RawPeer
from tests.acceptance.server_process import ServerProcess
from tests.conformance.websocket.test_tls import make_certificate

KEY = Ed25519PrivateKey.generate()
PEM = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def key_set(kid: str) -> bytes:
    return json.dumps({"keys": [OKPAlgorithm.to_jwk(KEY.public_key(), as_dict=True) | {"kid": kid}]}).encode()


KEY_SET = key_set("k")


class Provider(BaseHTTPRequestHandler):
    """Answers by path. `stop` ends its endless responses. `/rotating` returns `rotating`.

    `requests` has path and headers of each request.
    """

    stop: threading.Event
    rotating = KEY_SET
    requests: ClassVar[list[tuple[str, dict[str, str]]]]

    def do_GET(self) -> None:
        self.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        match self.path:
            case "/jwks" | "http://keys.invalid/jwks":
                self.answer(200, KEY_SET)
            case "/rotating":
                self.answer(200, type(self).rotating)
            case "/moved":
                self.answer(302, b"", Location="/jwks")
            case "/file":
                self.answer(302, b"", Location="file:///etc/passwd")
            case "/loop":
                self.answer(302, b"", Location="/loop")
            case "/nowhere":
                self.answer(302, b"")
            case "/large":
                self.answer(200, b" " * (BODY_BYTES_MAX + 1))
            case "/full":
                self.answer(200, KEY_SET.ljust(BODY_BYTES_MAX))
            case "/cut":
                self.answer(200, KEY_SET[:10], **{"Content-Length": str(len(KEY_SET))})
            case "/compressed":
                self.answer(200, gzip.compress(KEY_SET), **{"Content-Encoding": "gzip"})
            case "/slow":
                self.answer_slowly()
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

    def answer_slowly(self) -> None:
        """One byte after the other, each within any timeout of a single read."""
        self.send_response(200)
        self.end_headers()
        while not self.stop.wait(0.02):
            try:
                self.wfile.write(b" ")
            except OSError:
                return

    def log_message(self, format: str, *args: object) -> None:
        """Keeps the test's output clean."""


@pytest.fixture
def handler() -> type[Provider]:
    class RunningProvider(Provider):
        stop = threading.Event()
        requests: ClassVar[list[tuple[str, dict[str, str]]]] = []

    return RunningProvider


def run_provider(handler: type[Provider], certificate: Path | None = None) -> Iterator[int]:
    """Runs the provider, over TLS if there is a certificate. Yields its port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
            server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients that refuse the certificate
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield int(server.server_address[1])
        finally:
            handler.stop.set()
            server.shutdown()
            thread.join(20)


@pytest.fixture
def provider(handler: type[Provider]) -> Iterator[str]:
    """The provider's address."""
    for port in run_provider(handler):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    return make_certificate(tmp_path)


@pytest.fixture
def secure_provider(handler: type[Provider], certificate: Path) -> Iterator[str]:
    """The address of a provider whose certificate is not trusted by default."""
    for port in run_provider(handler, certificate):
        yield f"https://localhost:{port}"


async def verify(url: str, timeout_s: float = 5) -> str:
    """The user of a valid token, verified with the key set at `url`."""
    clock = ManualClock()
    options = TokenOptions(jwks_url=url, jwks_timeout=Seconds(timeout_s))
    verifier = JWTVerifier(options, clock, NoEvents())
    token = connection_token(PEM, "42", now_unix_s=clock.unix_s(), algorithm="EdDSA", kid="k")
    try:
        return (await verifier.verify_connection(token)).user
    finally:
        await verifier.close()


@pytest.mark.parametrize("path", ["/jwks", "/moved", "/full"])
def test_a_key_set_is_fetched(provider: str, path: str) -> None:
    """Directly, after a redirect, and up to the size limit."""
    assert asyncio.run(verify(provider + path)) == "42"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/missing", "HTTP status 404"),
        ("/loop", "more than 10 redirects"),
        ("/file", "redirect to something that is not an http or https address"),
        ("/nowhere", "redirect to something that is not an http or https address"),
        ("/large", f"longer than {BODY_BYTES_MAX} bytes"),
        ("/cut", "ContentLengthError"),
        ("/compressed", "no JSON Web Key Set"),
    ],
)
def test_a_token_is_unverifiable_after_a_bad_response(provider: str, path: str, text: str) -> None:
    """Whatever is wrong with the response, the token is not called invalid, and the text names the cause."""
    with pytest.raises(TokenUnverifiable) as caught:
        asyncio.run(verify(provider + path))
    assert text in str(caught.value)


@pytest.mark.parametrize("path", ["/silent", "/slow"])
def test_a_slow_response_ends_at_the_timeout(provider: str, path: str) -> None:
    """No response, and one byte after the other: both end at the timeout and leave no thread."""

    async def scenario() -> int:
        with pytest.raises(TokenUnverifiable, match=r"no answer within 0\.3 s"):
            await verify(provider + path, timeout_s=0.3)
        return threading.active_count()

    threads = threading.active_count()
    started_s = time.monotonic()
    assert asyncio.run(scenario()) <= threads + 1  # the provider's own thread for this request
    assert time.monotonic() - started_s < 5


def test_a_refused_connection_is_unverifiable(provider: str) -> None:
    """Nothing listens at the address: an outage."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Provider) as closed:
        port = closed.server_address[1]
    with pytest.raises(TokenUnverifiable, match=r"refused|Connect call failed"):
        asyncio.run(verify(f"http://127.0.0.1:{port}/jwks"))


def test_requests_carry_no_credentials_and_ask_for_no_compression(
    provider: str, handler: type[Provider], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Passwords in ~/.netrc are not for this server; a compressed response could expand to any size."""
    (tmp_path / ".netrc").write_text("default login user password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    assert asyncio.run(verify(f"{provider}/moved")) == "42"
    assert [path for path, _ in handler.requests] == ["/moved", "/jwks"]
    for _, headers in handler.requests:
        assert "authorization" not in headers
        assert headers["accept-encoding"] == "identity"
        assert headers["accept"] == "application/jwk-set+json, application/json"


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY"])
def test_the_proxy_of_the_environment_is_used(
    provider: str, handler: type[Provider], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with other programs, with and without a scheme."""
    for other in ("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(other, raising=False)
    for proxy in (provider, provider.removeprefix("http://")):
        monkeypatch.setenv(name, proxy)
        assert asyncio.run(verify("http://keys.invalid/jwks")) == "42"
    assert [path for path, _ in handler.requests] == ["http://keys.invalid/jwks"] * 2


def test_no_proxy_is_used_for_excluded_hosts(provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`NO_PROXY` lists hosts that are asked directly."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert asyncio.run(verify(f"{provider}/jwks")) == "42"


def test_an_untrusted_certificate_is_refused(secure_provider: str, handler: type[Provider]) -> None:
    """Without a trusted certificate no request is sent."""
    with pytest.raises(TokenUnverifiable, match="certificate verify failed"):
        asyncio.run(verify(f"{secure_provider}/jwks"))
    assert handler.requests == []


def test_a_server_fetches_over_tls(
    secure_provider: str, certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that trusts the certificate accepts the token, and drains without delay."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with ServerProcess(tmp_path, CONFIG.format(url=f"{secure_provider}/jwks")) as server:
        assert asyncio.run(connect(server.port, valid("k"))) == 0
        started_s = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - started_s < 5
        assert server.log_lines("library_log") == []


def test_stopping_the_server_closes_the_http_session(provider: str) -> None:
    """After `App.stop` no HTTP session is left: an unclosed one warns, and warnings fail tests."""

    async def scenario() -> None:
        app = App(Config(token=TokenOptions(jwks_url=f"{provider}/jwks")))
        await app.start()
        assert (await app.verifiers[0].verify_connection(valid("k"))).user == "42"
        await app.stop()

    asyncio.run(scenario())
    gc.collect()


# --- a server whose keys rotate ----------------------------------------------------------------------------------

CONFIG = """
[token]
jwks_url = "{url}"
[client]
debug_reasons = true
"""


def valid(kid: str) -> str:
    return connection_token(PEM, "42", now_unix_s=time.time(), algorithm="EdDSA", kid=kid)


FLOOD = 2 * UNKNOWN_KIDS_MAX


def invented() -> str:
    """A token that no key has signed, with a kid of its own."""
    parts = json.dumps({"alg": "EdDSA", "kid": uuid4().hex}), "{}", "no signature"
    return ".".join(base64.urlsafe_b64encode(part.encode()).decode().rstrip("=") for part in parts)


async def outcome(peer: RawPeer) -> int:
    """0 if the client is connected, else the code of the error or of the close frame."""
    try:
        reply = await peer.read_reply(1)
    except ClosedError as closed:
        return closed.code
    return int(reply.get("error", {}).get("code", 0))


async def connect(port: int, token: str) -> int:
    async with await RawPeer.connect_websocket(port) as peer:
        await peer.send_json({"id": 1, "connect": {"token": token}})
        return await outcome(peer)


def test_keys_rotate_during_a_flood_of_invented_kids(provider: str, handler: type[Provider], tmp_path: Path) -> None:
    """Tokens of the new key are accepted, or get a temporary error and are accepted an interval later.

    After error 100 an SDK connects again, after 3500 it does not.
    """

    async def scenario(server: ServerProcess) -> None:
        began_s = time.monotonic()
        assert await connect(server.port, valid("k")) == 0
        async with AsyncExitStack() as stack:

            async def flood() -> list[RawPeer]:
                peers = [
                    await stack.enter_async_context(await RawPeer.connect_websocket(server.port)) for _ in range(FLOOD)
                ]
                for peer in peers:
                    await peer.send_json({"id": 1, "connect": {"token": invented()}})
                return peers

            assert {await outcome(peer) for peer in await flood()} <= {100, 3500}
            handler.rotating = key_set("new")
            rotated_s = time.monotonic()
            invalid = await flood()
            codes: list[int] = []
            while not codes or codes[-1] != 0:
                codes.append(await connect(server.port, valid("new")))
                assert codes[-1] in (0, 100), codes
                assert time.monotonic() - rotated_s < FETCH_INTERVAL_MIN_S + 10, codes
            assert {await outcome(peer) for peer in invalid} <= {100, 3500}
        assert len(handler.requests) <= 1 + (time.monotonic() - began_s) / FETCH_INTERVAL_MIN_S

    with ServerProcess(tmp_path, CONFIG.format(url=f"{provider}/rotating")) as server:
        asyncio.run(scenario(server))
