"""The configuration: a file, then environment variables, then flags, each setting only what it names.

Loading is strict. An unknown key, a wrong value or a contradiction stops it, and *all* of them are told at once, each
with its name, where it came from, what was expected and what was found.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from msgspec import Meta, field

from beaconfire.api.options import ApiOptions
from beaconfire.auth.options import TokenOptions
from beaconfire.base.errors import BeaconfireError
from beaconfire.base.options import Options
from beaconfire.channels.options import ChannelNameOptions, ChannelOptions
from beaconfire.config import checks
from beaconfire.config.files import FileProblem, parse_json, read_file
from beaconfire.config.table import CONFIG_VARIABLE, ENV_PREFIX, Section, SettingsTable
from beaconfire.config.values import ValueProblem, found, read
from beaconfire.engines.options import EngineOptions
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


class Config(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that can be set. Only the front door looks at this; the house gets the sections."""

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
        SwitchOptions, Meta(description="WebSocket for clients that only listen, at `/connection/uni_websocket`.")
    ] = SwitchOptions()
    uni_http_stream: Annotated[
        StreamOptions,
        SwitchOptions,
        Meta(description="HTTP streaming for clients that only listen, at `/connection/uni_http_stream`."),
    ] = StreamOptions()
    uni_sse: Annotated[
        StreamOptions,
        SwitchOptions,
        Meta(description="Server-Sent Events for clients that only listen, at `/connection/uni_sse`."),
    ] = StreamOptions()
    poll: PollOptions = PollOptions()
    emulation: EmulationOptions = EmulationOptions()
    token: TokenOptions = TokenOptions()
    subscription_token: Annotated[
        TokenOptions | None,
        Meta(description="How subscription JWTs are verified, if otherwise than in [token]. Leave it out if not."),
    ] = None
    api: ApiOptions = ApiOptions()
    channel: Annotated[ChannelOptions, Meta(description="How channels without a namespace behave.")] = ChannelOptions()
    namespaces: Annotated[
        dict[str, ChannelOptions],
        Meta(
            description="Options for channels like `chat:lobby`: those of [channel], in a table like [namespaces.chat]."
        ),
    ] = field(default_factory=dict)
    channel_names: ChannelNameOptions = ChannelNameOptions()
    plain: PlainOptions = PlainOptions()
    engine: EngineOptions = EngineOptions()
    log: LogOptions = LogOptions()


TABLE = SettingsTable(Config)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong. `key` is a dotted name, a variable, or empty for a whole file; `origin` is where it stands."""

    key: str
    origin: str
    text: str

    def __str__(self) -> str:
        where = f"{self.key} ({self.origin})" if self.key else self.origin
        return f"{where}: {self.text}"


class ConfigError(BeaconfireError):
    """The configuration cannot be used; `problems` has every reason."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration and the origin of each setting that is not its default, by dotted name."""

    config: Config
    origins: Mapping[str, str]


def load(path: str | None, env: Mapping[str, str], overrides: Mapping[str, str]) -> Config:
    """The configuration from its three sources, later ones winning option by option. Raises ConfigError.

    `path` may be None; then `BEACONFIRE_CONFIG` in `env` names the file, and without that there is none. `overrides`
    are dotted names and texts, as in `{"client.ping_interval": "10s"}`. A list is replaced, not extended.
    """
    return load_with_origins(path, env, overrides).config


def load_with_origins(path: str | None, env: Mapping[str, str], overrides: Mapping[str, str]) -> Loaded:
    """As `load`, remembering where every value came from."""
    collector = _Collector()
    path = path or env.get(CONFIG_VARIABLE) or None
    if path is not None:
        collector.add_file(path)
    collector.add_environment(env)
    collector.add_overrides(overrides)
    return collector.finish()


class _Collector:
    """Gathers values and problems source by source."""

    def __init__(self) -> None:
        self._values: dict[str, dict[str, Any]] = {}
        """By table: `client`, `namespaces.small`. A table that is there but empty counts."""
        self._origins: dict[str, str] = {}
        self._invalid: set[str] = set()
        self._problems: list[Problem] = []

    def add_file(self, path: str) -> None:
        try:
            document = read_file(path)
        except FileProblem as problem:
            self._problems.append(Problem("", path, str(problem)))
            return
        self._add_document(document, path)

    def add_environment(self, env: Mapping[str, str]) -> None:
        for variable, text in sorted(env.items()):
            if not variable.startswith(ENV_PREFIX) or variable == CONFIG_VARIABLE or _from_kubernetes(variable, text):
                continue
            setting = TABLE.variables.get(variable)
            if setting is None:
                nearest = TABLE.nearest_variable(variable)
                self._refuse(variable, "environment", f"unknown variable; the nearest known one is {nearest}")
            elif setting.option:
                self._add_value(setting.section, setting.option, text, variable, from_text=True)
            else:
                self._add_text_table(setting.name, text, variable)

    def add_overrides(self, overrides: Mapping[str, str]) -> None:
        for name, text in overrides.items():
            section = TABLE.sections.get(name)
            if section is None:
                self._add_value(*TABLE.split(name), text, "command line", from_text=True)
            elif section.repeated:
                self._add_text_table(name, text, "command line")
            else:
                example = section.settings[0].name
                self._refuse(name, "command line", f"expected the name of an option in this table, like {example}")

    def _add_document(self, document: Mapping[str, object], origin: str) -> None:
        for name, content in document.items():
            section = TABLE.sections.get(name)
            if section is None:
                kind = "table" if isinstance(content, dict) else "option"
                self._refuse(name, origin, f"unknown {kind}; the nearest known name is {TABLE.nearest(name)}")
            elif section.repeated:
                self._add_tables(section, content, origin)
            else:
                self._add_table(name, content, origin)

    def _add_tables(self, section: Section, content: object, origin: str) -> None:
        if content is None:
            return
        if not isinstance(content, dict):
            self._refuse(section.name, origin, f"expected a table of tables, got {found(content, secret=True)}")
            return
        for name, inner in content.items():
            if isinstance(name, str):
                self._add_table(f"{section.name}.{name}", inner, origin)
            else:
                self._refuse(f"{section.name}.{name}", origin, f"expected a name, got {found(name)}: put it in quotes")

    def _add_table(self, table: str, content: object, origin: str) -> None:
        if content is not None and not isinstance(content, dict):
            self._refuse(table, origin, f"expected a table of options, got {found(content, secret=True)}")
            return
        self._values.setdefault(table, {})
        self._origins.setdefault(table, origin)
        for option, value in (content or {}).items():
            self._add_value(table, str(option), value, origin, from_text=False)

    def _add_text_table(self, name: str, text: str, origin: str) -> None:
        try:
            content = parse_json(text)
        except FileProblem as problem:
            self._refuse(name, origin, f"expected a JSON object of tables: {problem}")
            return
        self._add_tables(TABLE.sections[name], content, origin)

    def _add_value(self, table: str, option: str, value: object, origin: str, *, from_text: bool) -> None:
        name = f"{table}.{option}" if table else option
        setting = TABLE.find(name)
        if setting is None:
            self._refuse(name, origin, _unknown_option(table, name, value))
            return
        try:
            self._values.setdefault(table, {})[option] = read(setting, value, from_text)
        except ValueProblem as problem:
            self._refuse(name, origin, str(problem))
            return
        self._invalid.discard(name)
        self._origins[name] = origin
        self._origins.setdefault(table, origin)

    def _refuse(self, key: str, origin: str, text: str) -> None:
        self._invalid.add(key)
        self._problems.append(Problem(key, origin, text))

    def finish(self) -> Loaded:
        """Builds the configuration and checks it as a whole. Raises ConfigError.

        A contradiction that involves a refused value is not told: the value's own problem comes first.
        """
        config = self._build()
        for violation in _violations(config):
            if not self._invalid.intersection(violation.keys):
                origins = dict.fromkeys(self._origins[key] for key in violation.keys if key in self._origins)
                self._problems.append(Problem(violation.keys[0], ", ".join(origins) or "default", violation.text))
        if self._problems:
            raise ConfigError(self._problems)
        return Loaded(config, self._origins)

    def _build(self) -> Config:
        sections: dict[str, Any] = {}
        for section in TABLE.sections.values():
            if section.repeated:
                prefix = f"{section.name}."
                sections[section.name] = {
                    table.removeprefix(prefix): section.type(**values)
                    for table, values in self._values.items()
                    if table.startswith(prefix)
                }
            elif section.name in self._values:
                sections[section.name] = section.type(**self._values[section.name])
        return Config(**sections)


def _unknown_option(table: str, name: str, value: object) -> str:
    if isinstance(value, dict) and table.startswith("namespaces."):
        dotted = name.partition(".")[2]
        return f'unknown option; a namespace with a dot in its name needs quotes: [namespaces."{dotted}"]'
    return f"unknown option; the nearest known name is {TABLE.nearest(name)}"


_KUBERNETES = re.compile(
    rf"{ENV_PREFIX}(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)


def _from_kubernetes(variable: str, text: str) -> bool:
    """Whether this describes a Kubernetes Service called beaconfire or beaconfire-something.

    Every pod of the Service's namespace gets such variables unasked (Docker-links form), `BEACONFIRE_PORT` and even
    `BEACONFIRE_SERVER_PORT` among them, holding an address like tcp://10.0.0.1:8000. They are nobody's settings.
    """
    return bool(
        _KUBERNETES.fullmatch(variable) or (variable.endswith("_PORT") and re.match(r"(tcp|udp|sctp)://", text))
    )


def _violations(config: Config) -> Iterator[checks.Violation]:
    meta_ttl = config.engine.history_meta_ttl
    yield from itertools.chain(
        checks.check_above_zero("server", config.server),
        checks.check_above_zero("client", config.client),
        checks.check_above_zero("websocket", config.websocket),
        checks.check_above_zero("http_stream", config.http_stream),
        checks.check_above_zero("sse", config.sse),
        checks.check_above_zero("uni_http_stream", config.uni_http_stream),
        checks.check_above_zero("uni_sse", config.uni_sse),
        checks.check_above_zero("poll", config.poll),
        checks.check_above_zero("emulation", config.emulation),
        checks.check_above_zero("api", config.api),
        checks.check_above_zero("engine", config.engine),
        checks.check_server(config.server),
        checks.check_client(config.client, config.namespaces),
        checks.check_token("token", config.token),
        checks.check_subscription_token(config.subscription_token) if config.subscription_token is not None else (),
        checks.check_channel("channel", config.channel, meta_ttl),
        checks.check_namespace_names(config.namespaces),
        checks.check_channel_names(config.channel_names),
        checks.check_plain(config.plain, config.server.demo, config.channel_names, config.namespaces),
    )
    for name, options in config.namespaces.items():
        yield from checks.check_channel(f"namespaces.{name}", options, meta_ttl)


def secret_values(config: Config) -> list[str]:
    """Every secret that is set, for whoever must keep them out of logs."""
    values: list[str] = []
    for setting in TABLE:
        content = getattr(config, setting.section)
        if setting.secret and content is not None:
            value = getattr(content, setting.option)
            values += value if isinstance(value, list) else [value]
    return [value for value in values if value]


def as_document(config: Config) -> dict[str, Any]:
    """The configuration as nested tables of typed values, in the order of the settings table, without absent tables."""
    document: dict[str, Any] = {}
    for section in TABLE.sections.values():
        content = getattr(config, section.name)
        if section.repeated:
            document[section.name] = {name: _options(section, inner) for name, inner in content.items()}
        elif content is not None:
            document[section.name] = _options(section, content)
    return document


def _options(section: Section, content: Options) -> dict[str, Any]:
    return {setting.option: getattr(content, setting.option) for setting in section.settings}
