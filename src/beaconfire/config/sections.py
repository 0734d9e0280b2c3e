"""The whole configuration: one section of options for each part of the server."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, field

from beaconfire.api.options import ApiOptions
from beaconfire.auth.options import TokenOptions
from beaconfire.base.options import Options
from beaconfire.channels.options import ChannelNameOptions, ChannelOptions
from beaconfire.config.table import Section, SettingsTable
from beaconfire.engines.options import EngineOptions, MigrationOptions, RedisOptions
from beaconfire.observe.options import LogOptions
from beaconfire.protocols.plain.options import PlainOptions
from beaconfire.session.options import ClientOptions
from beaconfire.transports.options import (
    EmulationOptions,
    PollOptions,
    ServerOptions,
    StreamOptions,
    SwitchOptions,
    WebSocketOptions,
)


class Config(Options, frozen=True, kw_only=True):
    """All sections. Only the code that starts the server reads this; all other code gets single sections."""

    server: ServerOptions = ServerOptions()
    client: ClientOptions = ClientOptions()
    websocket: WebSocketOptions = WebSocketOptions()
    http_stream: Annotated[
        StreamOptions, Meta(description="HTTP streaming for the native protocol, at `/connection/http_stream`.")
    ] = StreamOptions()
    sse: Annotated[
        StreamOptions, Meta(description="Server-Sent Events for the native protocol, at `/connection/sse`.")
    ] = StreamOptions()
    uni_websocket: Annotated[
        SwitchOptions, Meta(description="WebSocket for unidirectional clients, at `/connection/uni_websocket`.")
    ] = SwitchOptions()
    uni_http_stream: Annotated[
        StreamOptions, Meta(description="HTTP streaming for unidirectional clients, at `/connection/uni_http_stream`.")
    ] = StreamOptions()
    uni_sse: Annotated[
        StreamOptions, Meta(description="Server-Sent Events for unidirectional clients, at `/connection/uni_sse`.")
    ] = StreamOptions()
    poll: PollOptions = PollOptions()
    emulation: EmulationOptions = EmulationOptions()
    token: TokenOptions = TokenOptions()
    subscription_token: Annotated[
        TokenOptions | None,
        Meta(description="Verification of subscription JWTs. Without this table, [token] applies to them as well."),
    ] = None
    api: ApiOptions = ApiOptions()
    channel: Annotated[ChannelOptions, Meta(description="Behavior of channels without a namespace.")] = ChannelOptions()
    namespaces: Annotated[
        dict[str, ChannelOptions],
        Meta(
            description="Behavior of channels like `chat:lobby`: a table like [namespaces.chat] with the options of "
            "[channel]."
        ),
    ] = field(default_factory=dict)
    channel_names: ChannelNameOptions = ChannelNameOptions()
    plain: PlainOptions = PlainOptions()
    engine: EngineOptions = EngineOptions()
    redis: RedisOptions = RedisOptions()
    migration: MigrationOptions = MigrationOptions()
    log: LogOptions = LogOptions()


TABLE = SettingsTable(Config)


def as_document(config: Config) -> dict[str, Any]:
    """Returns the configuration as nested tables of typed values, in the order of `TABLE`, without absent tables."""
    document: dict[str, Any] = {}
    for section in TABLE.sections.values():
        content = getattr(config, section.name)
        if section.repeated:
            document[section.name] = {name: _values(section, options) for name, options in content.items()}
        elif content is not None:
            document[section.name] = _values(section, content)
    return document


def _values(section: Section, options: Options) -> dict[str, Any]:
    return {setting.option: getattr(options, setting.option) for setting in section.settings}


def secret_values(config: Config) -> list[str]:
    """Returns every secret that is set. The log replaces these values."""
    values: list[str] = []
    for setting in TABLE:
        options = getattr(config, setting.section)
        if setting.secret and options is not None:
            value = getattr(options, setting.option)
            if value == setting.default:
                continue
            values += value if isinstance(value, list) else [value]
    return [value for value in values if value]
