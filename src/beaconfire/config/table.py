"""The table of settings: every option of the configuration, made by walking the structs that declare them.

Environment variables, error messages, `beaconfire config` and `docs/reference/settings.md` all read this table, so an
option is declared once, beside the code that uses it, and appears everywhere.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec
from msgspec import Meta, Struct

ENV_PREFIX = "BEACONFIRE_"
CONFIG_VARIABLE = "BEACONFIRE_CONFIG"
"""The environment variable that names the configuration file; not a setting itself."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One option. `option` is empty for a table of tables (`namespaces`), whose `type` is `dict`."""

    section: str
    option: str
    type: Any
    default: Any
    meta: Meta
    env: str

    @property
    def name(self) -> str:
        """As in messages and flags: `client.ping_interval`."""
        return f"{self.section}.{self.option}" if self.option else self.section

    @property
    def description(self) -> str:
        return self.meta.description or ""

    @property
    def secret(self) -> bool:
        """Whether the value must never be shown."""
        return bool((self.meta.extra or {}).get("secret"))


@dataclass(frozen=True, slots=True)
class Section:
    """One table of the configuration. `repeated` means a table of such tables, each under a name of its own.

    `optional` means that leaving the table out differs from leaving it empty.
    """

    name: str
    description: str
    type: type[Struct]
    optional: bool
    repeated: bool
    settings: tuple[Setting, ...]


def walk(config_type: type[Struct]) -> tuple[Section, ...]:
    """The sections of a configuration struct with all their settings, in the order of declaration.

    Every field of `config_type` must be a struct, an optional struct, or a dict of text to struct.
    """
    return tuple(_section(field) for field in msgspec.structs.fields(config_type))


def _section(field: msgspec.structs.FieldInfo) -> Section:
    base, meta = _unwrap(field.type)
    optional = get_origin(base) in (Union, UnionType)
    if optional:
        (base,) = (arm for arm in get_args(base) if arm is not NoneType)
    repeated = get_origin(base) is dict
    if repeated:
        base = get_args(base)[1]
    description = meta.description or (base.__doc__ or "").partition("\n")[0]
    return Section(field.name, description, base, optional, repeated, tuple(_settings(field.name, base)))


def _settings(section: str, options_type: type[Struct]) -> Iterator[Setting]:
    for field in msgspec.structs.fields(options_type):
        base, meta = _unwrap(field.type)
        default = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
        yield Setting(section, field.name, base, default, meta, f"{ENV_PREFIX}{section}_{field.name}".upper())


def _unwrap(annotation: Any) -> tuple[Any, Meta]:
    if get_origin(annotation) is Annotated:
        base, *extras = get_args(annotation)
        return base, next((extra for extra in extras if isinstance(extra, Meta)), Meta())
    return annotation, Meta()


class SettingsTable:
    """The sections with ways to look a setting up by whatever a person has in hand."""

    def __init__(self, config_type: type[Struct]) -> None:
        self.sections = {section.name: section for section in walk(config_type)}
        self.variables: dict[str, Setting] = {}
        for section in self.sections.values():
            for setting in self._rows(section):
                self.variables[setting.env] = setting

    def __iter__(self) -> Iterator[Setting]:
        """Every setting that a variable or a line of a file can set; a repeated section is one row."""
        return iter(self.variables.values())

    @staticmethod
    def _rows(section: Section) -> tuple[Setting, ...]:
        if not section.repeated:
            return section.settings
        meta = Meta(description=section.description)
        return (Setting(section.name, "", dict, {}, meta, f"{ENV_PREFIX}{section.name}".upper()),)

    def split(self, name: str) -> tuple[str, str]:
        """`client.ping_interval` to its table and option; the name inside a repeated section may hold dots itself:
        `namespaces.a.b.presence` is the option `presence` of the table `namespaces.a.b`."""
        table, _, option = name.rpartition(".")
        return table, option

    def section_of(self, table: str) -> Section | None:
        """The section a table belongs to: `client`, or `namespaces.small`, which is one of `namespaces`."""
        first, _, rest = table.partition(".")
        section = self.sections.get(first)
        return section if section is not None and section.repeated == bool(rest) else None

    def find(self, name: str) -> Setting | None:
        """By dotted name. `namespaces.small.presence` is found for any namespace."""
        table, option = self.split(name)
        section = self.section_of(table)
        if section is None:
            return None
        found = next((setting for setting in section.settings if setting.option == option), None)
        if found is None or not section.repeated:
            return found
        return replace(found, section=table, env=f"{ENV_PREFIX}{section.name}".upper())

    def nearest(self, name: str) -> str:
        """The known name most like an unknown one: in its own table if something there is close, else anywhere."""
        table, option = self.split(name)
        section = self.section_of(table)
        if section is not None:
            options = [setting.option for setting in section.settings]
            if close := difflib.get_close_matches(option, options, 1, 0.7):
                return f"{table}.{close[0]}"
        if option in self.sections:
            return option
        if elsewhere := [setting.name for setting in self if setting.option == option]:
            return difflib.get_close_matches(name, elsewhere, 1, 0.0)[0]
        names = [setting.name for setting in self]
        names += [] if table else list(self.sections)
        return difflib.get_close_matches(name, names, 1, 0.0)[0]

    def nearest_variable(self, variable: str) -> str:
        return difflib.get_close_matches(variable, [*self.variables, CONFIG_VARIABLE], 1, 0.0)[0]
