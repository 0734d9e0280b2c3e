"""Options of the server process and of every transport."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from beaconfire.base.options import Options
from beaconfire.base.units import Seconds, Size


class WebSocketOptions(Options, frozen=True, kw_only=True):
    """The WebSocket transport."""

    message_size_limit: Annotated[
        Size,
        Meta(
            gt=0,
            description="Largest message from a client; a larger one gets close code 1009 before it is buffered.",
        ),
    ] = Size(65536)
    compression: Annotated[
        bool,
        Meta(
            description="Compress messages (permessage-deflate) if the client supports it: fewer bytes, more CPU time."
        ),
    ] = False
    compression_min_size: Annotated[
        Size, Meta(description="Smaller messages are sent uncompressed, because compression saves nothing.")
    ] = Size(128)
    compression_level: Annotated[
        int, Meta(ge=1, le=9, description="1 is the fastest, 9 makes the smallest messages.")
    ] = 1
    write_timeout: Annotated[
        Seconds, Meta(gt=0, description="Time within which a client must read some waiting data; then disconnect 3009.")
    ] = Seconds(10)
    close_timeout: Annotated[
        Seconds,
        Meta(gt=0, description="Time within which a client must answer a close frame; then the connection is reset."),
    ] = Seconds(5)


class SwitchOptions(Options, frozen=True, kw_only=True):
    """An endpoint without further options."""

    enabled: Annotated[bool, Meta(description="Serve this endpoint.")] = True


class StreamOptions(Options, frozen=True, kw_only=True):
    """A transport that sends to the client in one long HTTP response."""

    enabled: Annotated[bool, Meta(description="Serve this endpoint.")] = True
    max_request_body_size: Annotated[
        Size, Meta(gt=0, description="Largest body of the request that opens the stream; a larger one gets HTTP 413.")
    ] = Size(65536)
    close_timeout: Annotated[
        Seconds,
        Meta(
            description="Time within which a client must read the rest of an ended stream; then the connection is "
            "reset."
        ),
    ] = Seconds(5)


class PollOptions(Options, frozen=True, kw_only=True):
    """Long polling at `/connection/poll`; commands of these clients at `/connection/commands`."""

    enabled: Annotated[bool, Meta(description="Serve these endpoints.")] = True
    max_request_body_size: Annotated[
        Size, Meta(gt=0, description="Largest body of a request; a larger one gets HTTP 413.")
    ] = Size(65536)
    max_response_size: Annotated[
        Size,
        Meta(
            gt=0,
            description="Bytes of messages in one response. Further pushes follow in the next response; further "
            "commands are not executed and get error 111.",
        ),
    ] = Size(524288)
    max_wait: Annotated[
        Seconds, Meta(gt=0, description="Time that a request waits for a message; a client may ask for less.")
    ] = Seconds(25)


class EmulationOptions(Options, frozen=True, kw_only=True):
    """Commands of clients with a one-way transport, at `POST /emulation`."""

    max_request_body_size: Annotated[
        Size, Meta(gt=0, description="Largest body of a request with commands; a larger one gets HTTP 413.")
    ] = Size(65536)


class ServerOptions(Options, frozen=True, kw_only=True):
    """The server process: listening, HTTP and shutdown."""

    host: Annotated[str, Meta(description="Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="Port to listen on; 0 picks a free port.")] = 8000
    workers: Annotated[
        int,
        Meta(
            ge=1,
            le=256,
            description="Processes that serve clients, one for each core. With more than one, a further process has "
            "the engine, and another one supervises all of them.",
        ),
    ] = 1
    tls_cert: Annotated[
        str, Meta(description="Path of a PEM file with the certificate chain; enables HTTPS and WSS.")
    ] = ""
    tls_key: Annotated[str, Meta(description="Path of the PEM file with the private key of tls_cert.")] = ""
    backlog: Annotated[
        int, Meta(ge=1, description="Connections that the kernel holds until the server accepts them.")
    ] = 4096
    handshake_timeout: Annotated[
        Seconds, Meta(gt=0, description="Time within which a client must send its HTTP request; then it is cut off.")
    ] = Seconds(10)
    header_max_size: Annotated[
        Size,
        Meta(
            gt=0,
            description="Largest head and largest trailer of an HTTP request; a larger one gets HTTP 431 and the "
            "connection is closed.",
        ),
    ] = Size(32 * 1024)
    keep_alive_timeout: Annotated[
        Seconds, Meta(gt=0, description="Time after which an idle HTTP connection is closed.")
    ] = Seconds(60)
    send_buffer_max: Annotated[
        Size,
        Meta(
            description="Bytes that the kernel buffers for a client that does not read (SO_SNDBUF); 0 means the "
            "system default, which can be megabytes."
        ),
    ] = Size(128 * 1024)
    trusted_proxies: Annotated[
        list[str], Meta(description="Addresses of proxies whose X-Forwarded headers are used, in logs.")
    ] = []
    demo: Annotated[bool, Meta(description="Serve the chat demo at `/`.")] = False
    drain_delay: Annotated[
        Seconds,
        Meta(description="After SIGTERM: time between readiness turning negative and the end of listening."),
    ] = Seconds(0)
    drain_rate: Annotated[
        int,
        Meta(
            ge=0,
            description="After SIGTERM: sessions per second that are disconnected, so that other servers can take "
            "them; more where shutdown_timeout requires it; 0 disconnects all at once.",
        ),
    ] = 500
    shutdown_timeout: Annotated[
        Seconds, Meta(gt=0, description="After SIGTERM: time limit for the whole shutdown.")
    ] = Seconds(30)
