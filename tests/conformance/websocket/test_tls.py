"""WebSockets over TLS, where all writes go through the transport."""

from __future__ import annotations

import datetime
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.kernel import send_queues

from .conftest import LONG_TIMEOUT_S, LOOPS
from .raw_client import BINARY, CLOSE, PING, PONG, TEXT, RawClient, Received, client_frame, close_frame
from .server import EchoServer


def make_certificate(folder: Path) -> Path:
    """Makes a self-signed certificate for `localhost`. Certificate and key are in one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / "localhost.pem"
    path.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def context(certificate: Path) -> ssl.SSLContext:
    """The TLS settings of the server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture(scope="module", params=LOOPS)
def secure_server(request: pytest.FixtureRequest, context: ssl.SSLContext) -> Iterator[EchoServer]:
    with EchoServer(LOOPS[request.param], context) as running:
        yield running


@pytest.fixture
def trust(certificate: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate))


def test_messages_and_pings_in_order(secure_server: EchoServer, trust: ssl.SSLContext) -> None:
    """Small and large ones."""
    with RawClient.open(secure_server.port, tls=trust) as peer:
        large = b"x" * 300_000
        frames = [client_frame(TEXT, b"a"), client_frame(PING, b"p"), client_frame(BINARY, large)]
        assert peer.exchange(*frames) == [Received(TEXT, b"a"), Received(PONG, b"p"), Received(BINARY, large)]


@pytest.mark.parametrize("loop", LOOPS)
def test_slow_reader_gets_all_data_in_order_over_tls(loop: str, context: ssl.SSLContext, trust: ssl.SSLContext) -> None:
    """Twenty megabytes to a peer that reads late. The transport reports the start and the end of the congestion."""
    with (
        EchoServer(LOOPS[loop], context, write_timeout_s=LONG_TIMEOUT_S) as server,
        RawClient.open(server.port, tls=trust, receive_buffer=4096) as peer,
    ):
        peer.send(client_frame(TEXT, b"flood"), client_frame(TEXT, b"last"))
        server.wait_until(lambda: any(not echo.transport.writable for echo in server.live))
        frames = [peer.frame() for _ in range(21)]
        assert [len(frame.payload) for frame in frames] == [1_000_000] * 20 + [4]
        assert server.writable.wait(10)
        assert peer.exchange(client_frame(TEXT, b"still here")) == [Received(TEXT, b"still here")]


def test_violation_gets_a_close_frame(secure_server: EchoServer, trust: ssl.SSLContext) -> None:
    """Then the connection ends."""
    with RawClient.open(secure_server.port, tls=trust) as peer:
        assert peer.send_until_close(client_frame(TEXT, b"before"), client_frame(3), client_frame(TEXT, b"after")) == (
            [Received(TEXT, b"before")],
            1002,
        )
    secure_server.wait_until(lambda: not secure_server.live)


def test_closing_handshake_by_the_server(secure_server: EchoServer, trust: ssl.SSLContext) -> None:
    """The server's close frame is answered, and the connection ends."""
    with RawClient.open(secure_server.port, tls=trust) as peer:
        peer.send(client_frame(TEXT, b"close"))
        assert peer.frame().opcode == CLOSE
        peer.send(close_frame(3001))
        assert peer.frames_until_end() == []
    secure_server.wait_until(lambda: not secure_server.live)


def test_peer_that_reads_nothing_is_disconnected_over_tls(secure_server: EchoServer, trust: ssl.SSLContext) -> None:
    """After the write timeout. The kernel keeps no data of the connection."""
    with RawClient.open(secure_server.port, tls=trust, receive_buffer=4096) as peer:
        peer.send(client_frame(TEXT, b"flood"), client_frame(TEXT, b"more"))
        secure_server.wait_until(lambda: any(not echo.transport.writable for echo in secure_server.live))
        secure_server.wait_until(lambda: not secure_server.live)
        if sys.platform == "linux":  # other systems do not show the kernel's send queues
            secure_server.wait_until(lambda: not send_queues(secure_server.port))
