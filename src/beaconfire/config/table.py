"""The table of settings: every option of the configuration with its type, bounds, default and description.

The table is made from the option structs. The loader, error messages, `beaconfire config` and
`docs/reference/settings.md` all read it, so a new option needs no code besides its declaration.
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
"""The environment variable that names the configuration file. It is not a setting."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One option. For a repeated section as a whole (`namespaces`), `option` is empty and `type` is `dict`."""

    section: str
    option: str
    type: Any
    default: Any
    meta: Meta
    env: str

    @property
    def name(self) -> str:
        """The full name, as in messages and flags: `client.ping_interval`."""
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
    """One table of the configuration.

    `repeated` means that the table contains named tables with these settings: `[namespaces.chat]`. `optional` means
    that a missing table and an empty table differ.
    """

    name: str
    description: str
    type: type[Struct]
    optional: bool
    repeated: bool
    settings: tuple[Setting, ...]


def list_sections(config_type: type[Struct]) -> tuple[Section, ...]:
    """Returns the sections of a configuration struct in the order of declaration.

    Every field of `config_type` must be a struct, an optional struct, or a dict from str to struct.
    """
    return tuple(_section(field) for field in msgspec.structs.fields(config_type))


def _section(field: msgspec.structs.FieldInfo) -> Section:
    base, meta = _unwrap(field.type)
    optional = get_origin(base) in (Union, UnionType)
    if optional:
        (base,) = (member for member in get_args(base) if member is not NoneType)
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
    """All sections and settings, with lookup by section, full name and environment variable."""

    def __init__(self, config_type: type[Struct]) -> None:
        self.sections = {section.name: section for section in list_sections(config_type)}
        self.variables: dict[str, Setting] = {}
        for section in self.sections.values():
            for setting in self._rows(section):
                self.variables[setting.env] = setting

    def __iter__(self) -> Iterator[Setting]:
        """Every setting that one environment variable can set. A repeated section counts as one setting."""
        return iter(self.variables.values())

    @staticmethod
    def _rows(section: Section) -> tuple[Setting, ...]:
        if not section.repeated:
            return section.settings
        meta = Meta(description=section.description)
        return (Setting(section.name, "", dict, {}, meta, f"{ENV_PREFIX}{section.name}".upper()),)

    def split(self, name: str) -> tuple[str, str]:
        """Splits `client.ping_interval` into table and option.

        The name of a namespace may contain dots: `namespaces.a.b.presence` is the option `presence` of the table
        `namespaces.a.b`.
        """
        table, _, option = name.rpartition(".")
        return table, option

    def section_of(self, table: str) -> Section | None:
        """Returns the section of a table: `client` for `client`, `namespaces` for `namespaces.small`."""
        first, _, rest = table.partition(".")
        section = self.sections.get(first)
        return section if section is not None and section.repeated == bool(rest) else None

    def find(self, name: str) -> Setting | None:
        """Returns the setting with this full name. `namespaces.small.presence` is found for every namespace."""
        table, option = self.split(name)
        section = self.section_of(table)
        if section is None:
            return None
        setting = next((setting for setting in section.settings if setting.option == option), None)
        if setting is None or not section.repeated:
            return setting
        return replace(setting, section=table, env=f"{ENV_PREFIX}{section.name}".upper())

    def nearest(self, name: str) -> str:
        """Returns the known name that is most similar to an unknown name.

        A similar option of the same table comes first, then the same option of another table, then any name.
        """
        table, option = self.split(name)
        section = self.section_of(table)
        if section is not None:
            options = [setting.option for setting in section.settings]
            if close := difflib.get_close_matches(option, options, 1, 0.7):
                return f"{table}.{close[0]}"
        if option in self.sections:
            return option
        if same_option := [setting.name for setting in self if setting.option == option]:
            return _closest(name, same_option)
        names = [setting.name for setting in self]
        return _closest(name, names if table else [*names, *self.sections])

    def nearest_variable(self, variable: str) -> str:
        """Returns the known environment variable that is most similar to an unknown variable."""
        return _closest(variable, [*self.variables, CONFIG_VARIABLE])


def _closest(word: str, candidates: list[str]) -> str:
    return difflib.get_close_matches(word, candidates, 1, 0.0)[0]
