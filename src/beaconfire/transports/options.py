"""Settings of the server's listening socket and of every transport."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from beaconfire.base.options import Options
from beaconfire.base.units import Seconds, Size


class WebSocketOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The WebSocket transport."""

    message_size_limit: Annotated[
        Size,
        Meta(description="Largest message from a client; beyond it close code 1009, before memory is taken."),
    ] = Size(65536)
    compression: Annotated[
        bool,
        Meta(description="Compress messages (permessage-deflate) for clients that offer it: fewer bytes, more CPU."),
    ] = False
    compression_min_size: Annotated[
        Size, Meta(description="Smaller messages are sent as they are, because compressing gains nothing.")
    ] = Size(128)
    compression_level: Annotated[int, Meta(ge=1, le=9, description="1 is fastest, 9 makes the smallest messages.")] = 1
    write_timeout: Annotated[
        Seconds, Meta(description="How long a connection may take nothing of what waits for it; then 3009.")
    ] = Seconds(10)
    close_timeout: Annotated[
        Seconds,
        Meta(description="How long a client has to answer a close frame before the TCP connection is reset."),
    ] = Seconds(5)


class SwitchOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An endpoint that has nothing else to be set."""

    enabled: Annotated[bool, Meta(description="Serve it.")] = True


class StreamOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A transport whose server's half is a response that does not end."""

    enabled: Annotated[bool, Meta(description="Serve it.")] = True
    max_request_body_size: Annotated[
        Size, Meta(description="Largest body of the request that opens it; beyond it HTTP 413.")
    ] = Size(65536)
    close_timeout: Annotated[
        Seconds,
        Meta(description="How long a client has to read the rest of an ended stream before the connection is reset."),
    ] = Seconds(5)


class PollOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Long polling, at `/connection/poll`, and commands of such clients, at `/connection/commands`."""

    enabled: Annotated[bool, Meta(description="Serve it.")] = True
    max_request_body_size: Annotated[Size, Meta(description="Largest body of a request; beyond it HTTP 413.")] = Size(
        65536
    )
    max_response_size: Annotated[
        Size,
        Meta(
            description="Bytes of messages with which an answer is full. News that is left comes with the next one; "
            "commands that are left are not done and get error 111."
        ),
    ] = Size(524288)
    max_wait: Annotated[
        Seconds, Meta(description="How long a request waits for something new; a client may ask for less.")
    ] = Seconds(25)


class EmulationOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The client's half of such transports, `POST /emulation`."""

    max_request_body_size: Annotated[
        Size, Meta(description="Largest body of a request with commands; beyond it HTTP 413.")
    ] = Size(65536)


class ServerOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The process: sockets, HTTP and shutdown."""

    host: Annotated[str, Meta(description="Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="Port to listen on; 0 takes a free one.")] = 8000
    tls_cert: Annotated[str, Meta(description="Path of a PEM certificate chain; serves HTTPS and WSS.")] = ""
    tls_key: Annotated[str, Meta(description="Path of its PEM private key.")] = ""
    backlog: Annotated[int, Meta(ge=1, description="Connections the kernel holds until they are accepted.")] = 4096
    handshake_timeout: Annotated[
        Seconds, Meta(description="How long a connection may take to send its HTTP request; then it is cut.")
    ] = Seconds(10)
    header_max_size: Annotated[
        Size,
        Meta(
            description="Largest HTTP request head, and largest trailer; beyond it HTTP 431 and the connection is cut."
        ),
    ] = Size(32 * 1024)
    keep_alive_timeout: Annotated[Seconds, Meta(description="How long an idle HTTP connection is kept.")] = Seconds(60)
    send_buffer_max: Annotated[
        Size,
        Meta(
            description="Bytes the kernel buffers for one connection whose client does not read (SO_SNDBUF); "
            "0 leaves it to the system, which may take megabytes."
        ),
    ] = Size(128 * 1024)
    trusted_proxies: Annotated[
        list[str], Meta(description="Addresses whose X-Forwarded headers are believed, in logs.")
    ] = []
    demo: Annotated[bool, Meta(description="Serve the chat demo at `/`.")] = False
    drain_delay: Annotated[
        Seconds, Meta(description="After SIGTERM: time between readiness going red and the end of listening.")
    ] = Seconds(0)
    drain_window: Annotated[
        Seconds, Meta(description="After SIGTERM: time over which sessions are told to reconnect elsewhere.")
    ] = Seconds(5)
    shutdown_timeout: Annotated[Seconds, Meta(description="After SIGTERM: hard limit for everything together.")] = (
        Seconds(30)
    )
