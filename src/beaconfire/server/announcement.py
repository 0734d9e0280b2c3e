"""The start-up announcement: what is running and where, every limit, and warnings about insecure options.

Pure functions of the configuration. `server.announce` writes the fields to the log, or the text to the terminal.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from textwrap import TextWrapper
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from beaconfire.auth.options import TokenOptions
from beaconfire.auth.static_keys import option_weaknesses
from beaconfire.config import Config
from beaconfire.config.checks import has_key
from beaconfire.config.values import to_text
from beaconfire.server.endpoint_paths import endpoint_path, is_enabled
from beaconfire.session.options import ClientOptions
from beaconfire.transports.endpoint_table import ENDPOINT_LIMITS, ENDPOINTS

_TOKEN_REMEDIES = {
    "hmac_secret": "Take the one that `beaconfire config init` makes.",
    "hmac_previous_secret": "Remove it as soon as no token made with it is in use.",
    "jwks_url": "Use an https address.",
}
_LIMITS = (
    "client.connection_limit",
    "client.connection_rate_limit",
    "client.user_connection_limit",
    "client.channel_limit",
    "client.gap_rate_limit",
    "client.message_rate_limit",
    "client.byte_rate_limit",
    "client.queue_max_size",
    "client.reply_max_size",
    "client.concurrent_calls_max",
    "client.decision_timeout",
    "client.command_queue_max",
    "client.stale_close_delay",
    "client.pong_timeout",
    "client.history_max_publication_limit",
    "client.recovery_max_publication_limit",
    "client.tags_filter_max_nodes",
    "client.tags_filter_max_values",
    "engine.history_max_bytes",
    *ENDPOINT_LIMITS,
    "channel_names.max_length",
    "server.backlog",
    "server.handshake_timeout",
    "server.header_max_size",
    "server.keep_alive_timeout",
    "server.send_buffer_max",
    "server.shutdown_timeout",
    "api.request_max_size",
    "api.response_max_size",
    "api.batch_max",
)
_ZERO_MEANS = {"client.connection_limit": "automatic", "server.send_buffer_max": "automatic"}


class Field(NamedTuple):
    """One fact. `name` is the stable name of the field in logs."""

    name: str
    value: str


def announcement(
    config: Config, version: str, node_id: str, engine_name: str, addresses: Sequence[str]
) -> tuple[Field, ...]:
    """What is running. `addresses` are base URLs that answer, like `http://127.0.0.1:8000`."""
    return (
        Field("version", version),
        Field("node", node_id),
        Field("engine", engine_name),
        *_endpoints(config, addresses),
        Field("auth", _auth(config)),
        Field("api_auth", _api_auth(config)),
        Field("origins", ", ".join(config.client.allowed_origins) or "none"),
        Field("namespaces", ", ".join(config.namespaces) or "none"),
        *limits(config),
    )


def lines(fields: Sequence[Field], width: int) -> list[str]:
    """The fields for a terminal of `width` columns: values aligned and wrapped, all limits in one paragraph."""
    facts = [field for field in fields if field.name not in _LIMITS]
    if found := [f"{field.name}\N{NO-BREAK SPACE}{field.value}" for field in fields if field.name in _LIMITS]:
        facts.append(Field("limits", ", ".join(found)))
    indent = max((len(field.name) for field in facts), default=0) + 2
    wrapper = TextWrapper(max(width, 2 * indent), subsequent_indent=" " * indent, break_long_words=False)
    wrapper.break_on_hyphens = False  # an address must stay whole, to be clicked
    return [
        line.replace("\N{NO-BREAK SPACE}", " ")
        for field in facts
        for line in wrapper.wrap(f"{field.name:<{indent}}{field.value}")
    ]


def limits(config: Config) -> tuple[Field, ...]:
    """Every limit: the name of its setting, and its value as text, for example `64KiB`."""
    return tuple(Field(name, _limit(name, _value(config, name))) for name in _LIMITS)


def _value(config: Config, name: str) -> Any:
    section, _, option = name.partition(".")
    return getattr(getattr(config, section), option)


def _limit(name: str, value: object) -> str:
    return to_text(value) if value else _ZERO_MEANS.get(name, "none")


def _endpoints(config: Config, addresses: Sequence[str]) -> Iterator[Field]:
    for base in addresses:
        base = base.rstrip("/")
        for row in ENDPOINTS:
            if row.announced and is_enabled(config, row):
                scheme_base = "ws" + base.removeprefix("http") if row.scheme == "ws" else base
                yield Field(row.name, f"{scheme_base}{endpoint_path(config, row)}")
        if config.api.enabled:
            yield Field("api", f"{base}/api/")
            yield Field("openapi", f"{base}/api/openapi.json")
        yield Field("metrics", f"{base}/metrics")
        yield Field("live", f"{base}/health/live")
        yield Field("ready", f"{base}/health/ready")
        if config.server.demo:
            yield Field("demo", f"{base}/")


def _auth(config: Config) -> str:
    """How clients authenticate, the most open way first."""
    modes = []
    if config.client.insecure:
        modes.append("INSECURE (anyone may do anything)")
    if config.client.allow_anonymous:
        modes.append("anonymous")
    if algorithms := _algorithms(config.token):
        modes.append(f"tokens ({algorithms})")
    if config.subscription_token is not None:
        modes.append(f"subscription tokens ({_algorithms(config.subscription_token)})")
    return ", ".join(modes) or "none: nobody can connect"


def _algorithms(token: TokenOptions) -> str:
    families = (
        (token.hmac_secret, "HS256/384/512"),
        (token.rsa_public_key, "RS256/384/512"),
        (token.ecdsa_public_key, "ES256/384/512"),
        (token.eddsa_public_key, "EdDSA"),
        (token.jwks_url, f"keys of {urlsplit(token.jwks_url).hostname}"),
    )
    return ", ".join(words for key, words in families if key)


def _api_auth(config: Config) -> str:
    if not config.api.enabled:
        return "off"
    if config.api.insecure:
        return "INSECURE (no key is required)"
    count = len(config.api.keys)
    return f"{count} {'key' if count == 1 else 'keys'}" if count else "no key: every call is refused"


# --- warnings ----------------------------------------------------------------------------------------------------


def warnings(config: Config) -> list[str]:
    """Everything insecure in the configuration. Each warning names the option and the remedy."""
    return [*_client_warnings(config), *_api_warnings(config), *_token_warnings(config), *_network_warnings(config)]


def notes(config: Config) -> list[str]:
    """Facts that are safe but may surprise: which clients cannot connect."""
    found = []
    client = config.client
    if not client.allowed_origins:
        found.append(
            "client.allowed_origins is empty: browsers are refused, other clients are not. "
            'Add the origins of your pages, like "https://example.com".'
        )
    if not (client.insecure or client.allow_anonymous or has_key(config.token)):
        found.append(
            "No client can connect: set token.hmac_secret, a public key or token.jwks_url, or client.allow_anonymous."
        )
    return found


def _client_warnings(config: Config) -> Iterator[str]:
    client = config.client
    if client.insecure:
        yield (
            "client.insecure is on: anyone may connect as anyone, subscribe and publish anywhere. "
            "For development only; switch it off and give clients tokens."
        )
    if _any_origin(client):
        yield (
            'client.allowed_origins holds "*": pages of any web site may connect from their visitors\' browsers. '
            "List the origins of your own pages instead."
        )
    if client.debug_reasons:
        yield (
            "client.debug_reasons is on: refusals tell which claim or check failed, which helps attackers as well. "
            "Switch it off in production."
        )
    if config.plain.enabled and config.plain.lobby:
        yield (
            f"plain.lobby is on: any client that reaches {config.plain.path} may send to all others there, without a "
            "handshake. Switch it off unless you want that."
        )


def _any_origin(client: ClientOptions) -> bool:
    return any(set(origin) <= set("*:/") for origin in client.allowed_origins)


def _api_warnings(config: Config) -> Iterator[str]:
    api = config.api
    if not api.enabled:
        return
    if api.insecure:
        yield (
            "api.insecure is on: any client that reaches this port may publish anywhere and disconnect anyone. "
            "For development only; switch it off and set api.keys."
        )
    elif not api.keys:
        yield "api.keys is empty: every API call is answered with 401. Add a key, or set api.enabled to false."


def _token_warnings(config: Config) -> Iterator[str]:
    sections = {"token": config.token, "subscription_token": config.subscription_token}
    for section, token in sections.items():
        for option, weakness in option_weaknesses(token) if token is not None else ():
            yield f"{section}.{option} {weakness}. {_TOKEN_REMEDIES[option]}"


def _network_warnings(config: Config) -> Iterator[str]:
    server = config.server
    if not server.tls_cert and not _is_loopback(server.host):
        yield (
            f"server.host is {server.host} and there is no TLS: tokens, API keys and messages cross the network "
            "readable. Set server.tls_cert and server.tls_key, or keep this port behind a proxy that encrypts."
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
