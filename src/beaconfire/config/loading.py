"""Loads the configuration from a file, environment variables and flags; a later source wins for each setting.

Loading is strict: an unknown name, an invalid value or contradicting settings are errors. All errors of all sources
are reported together, each with the full name of the setting, its origin, what was expected and what was found.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from beaconfire.base.errors import BeaconfireError
from beaconfire.config.checks import check_config
from beaconfire.config.descriptions import describe_value
from beaconfire.config.files import DocumentError, parse_json, read_file
from beaconfire.config.sections import TABLE, Config
from beaconfire.config.table import CONFIG_VARIABLE, ENV_PREFIX, Section
from beaconfire.config.values import InvalidValue, read_value

_COMMAND_LINE = "command line"


@dataclass(frozen=True, slots=True)
class Problem:
    """One error in the configuration.

    `key` is a full setting name, an environment variable, or empty if the whole file is unusable. `origin` is the
    source: a file name, an environment variable or the command line.
    """

    key: str
    origin: str
    text: str

    def __str__(self) -> str:
        place = f"{self.key} ({self.origin})" if self.key else self.origin
        return f"{place}: {self.text}"


class ConfigError(BeaconfireError):
    """The configuration can't be used. `problems` has all reasons."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration, and the origin of each setting that a source set, by full name."""

    config: Config
    origins: Mapping[str, str]


def load(path: str | None, env: Mapping[str, str], overrides: Mapping[str, str]) -> Config:
    """Returns the configuration from the three sources. Raises ConfigError.

    If `path` is None, `BEACONFIRE_CONFIG` in `env` names the file; without that variable there is no file.
    `overrides` maps full names to text: `{"client.ping_interval": "10s"}`. A list replaces the list of an earlier
    source.
    """
    return load_with_origins(path, env, overrides).config


def load_with_origins(path: str | None, env: Mapping[str, str], overrides: Mapping[str, str]) -> Loaded:
    """Like `load`, and also returns the origin of every value."""
    loader = _Loader()
    path = path or env.get(CONFIG_VARIABLE) or None
    if path is not None:
        loader.add_file(path)
    loader.add_environment(env)
    loader.add_overrides(overrides)
    return loader.finish()


class _Loader:
    """Collects values and problems from one source after the other."""

    def __init__(self) -> None:
        self._values: dict[str, dict[str, Any]] = {}
        """Values by table (`client`, `namespaces.small`) and option. An empty table is present without options."""
        self._origins: dict[str, str] = {}
        self._invalid: set[str] = set()
        """Names of settings whose last value is invalid."""
        self._problems: list[Problem] = []

    # --- sources

    def add_file(self, path: str) -> None:
        try:
            document = read_file(path)
        except DocumentError as error:
            self._problems.append(Problem("", path, str(error)))
            return
        for name, content in document.items():
            section = TABLE.sections.get(name)
            if section is None:
                kind = "table" if isinstance(content, dict) else "option"
                self._report(name, path, f"unknown {kind}; the nearest known name is {TABLE.nearest(name)}")
            elif section.repeated:
                self._add_tables(section, content, path)
            else:
                self._add_table(name, content, path)

    def add_environment(self, env: Mapping[str, str]) -> None:
        for variable, text in sorted(env.items()):
            if not variable.startswith(ENV_PREFIX) or variable == CONFIG_VARIABLE or _is_kubernetes(variable, text):
                continue
            setting = TABLE.variables.get(variable)
            if setting is None:
                nearest = TABLE.nearest_variable(variable)
                self._report(variable, "environment", f"unknown variable; the nearest known one is {nearest}")
            elif setting.option:
                self._add_value(setting.section, setting.option, text, variable, from_text=True)
            else:
                self._add_tables_as_json(TABLE.sections[setting.section], text, variable)

    def add_overrides(self, overrides: Mapping[str, str]) -> None:
        for name, text in overrides.items():
            section = TABLE.sections.get(name)
            if section is None:
                self._add_value(*TABLE.split(name), text, _COMMAND_LINE, from_text=True)
            elif section.repeated:
                self._add_tables_as_json(section, text, _COMMAND_LINE)
            else:
                example = section.settings[0].name
                self._report(name, _COMMAND_LINE, f"expected the name of an option in this table, like {example}")

    # --- tables and values

    def _add_tables_as_json(self, section: Section, text: str, origin: str) -> None:
        try:
            content = parse_json(text)
        except DocumentError as error:
            self._report(section.name, origin, f"expected a JSON object of tables: {error}")
            return
        self._add_tables(section, content, origin)

    def _add_tables(self, section: Section, content: object, origin: str) -> None:
        if content is None:
            return
        if not isinstance(content, dict):
            found = describe_value(content, secret=True)
            self._report(section.name, origin, f"expected a table of tables, got {found}")
            return
        for name, table in content.items():
            key = f"{section.name}.{name}"
            if isinstance(name, str):
                self._add_table(key, table, origin)
            else:
                self._report(key, origin, f"expected a name, got {describe_value(name)}: put it in quotes")

    def _add_table(self, table: str, content: object, origin: str) -> None:
        if content is not None and not isinstance(content, dict):
            # The value may be a secret in the wrong place.
            self._report(table, origin, f"expected a table of options, got {describe_value(content, secret=True)}")
            return
        self._values.setdefault(table, {})
        self._origins.setdefault(table, origin)
        for option, value in (content or {}).items():
            self._add_value(table, str(option), value, origin, from_text=False)

    def _add_value(self, table: str, option: str, value: object, origin: str, *, from_text: bool) -> None:
        name = f"{table}.{option}" if table else option
        setting = TABLE.find(name)
        if setting is None:
            self._report(name, origin, _unknown_option(table, name, value))
            return
        try:
            self._values.setdefault(table, {})[option] = read_value(setting, value, from_text)
        except InvalidValue as error:
            self._report(name, origin, str(error))
            return
        self._invalid.discard(name)
        self._origins[name] = origin
        self._origins.setdefault(table, origin)

    def _report(self, key: str, origin: str, text: str) -> None:
        self._invalid.add(key)
        self._problems.append(Problem(key, origin, text))

    # --- result

    def finish(self) -> Loaded:
        """Builds the configuration and checks it as a whole. Raises ConfigError.

        A contradiction that involves an invalid value is not reported, because the value is not the one that was
        written.
        """
        config = self._build()
        for violation in check_config(config):
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


def _is_kubernetes(variable: str, text: str) -> bool:
    """Whether Kubernetes set this variable for a Service named `beaconfire` or `beaconfire-…`.

    Every pod in the namespace of the Service gets these variables (Docker-links form). Their names may equal our own:
    `BEACONFIRE_SERVER_PORT` holds an address like tcp://10.0.0.1:8000. They are not settings.
    """
    return bool(
        _KUBERNETES.fullmatch(variable) or (variable.endswith("_PORT") and re.match(r"(tcp|udp|sctp)://", text))
    )
