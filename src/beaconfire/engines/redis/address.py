"""Where the servers are: the parts of `redis.url`."""

from __future__ import annotations

import re
import ssl
from typing import Final, Literal, TypeAlias
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from msgspec import Struct

Kind: TypeAlias = Literal["single", "sentinel", "cluster"]

PORT: Final = 6379
SENTINEL_PORT: Final = 26379

_SCHEMES: Final[dict[str, tuple[Kind, bool]]] = {
    "redis": ("single", False),
    "rediss": ("single", True),
    "redis+sentinel": ("sentinel", False),
    "rediss+sentinel": ("sentinel", True),
    "redis+cluster": ("cluster", False),
    "rediss+cluster": ("cluster", True),
}
_EXPECTED: Final = (
    "redis://[user:password@]host[:port][/database], redis+sentinel://host[:port],…/master_name[/database] "
    "or redis+cluster://host[:port],…; rediss instead of redis is TLS"
)


class Host(Struct, frozen=True, order=True):
    """A host name or address and a port."""

    name: str
    port: int

    def __str__(self) -> str:
        return f"[{self.name}]:{self.port}" if ":" in self.name else f"{self.name}:{self.port}"


class Address(Struct, frozen=True, kw_only=True):
    """The parts of the URL. `hosts` are servers, sentinels, or some nodes of a cluster."""

    kind: Kind
    hosts: tuple[Host, ...]
    master_name: str = ""
    """Of the group of servers that the sentinels watch."""
    database: int = 0
    username: str = ""
    password: str = ""
    sentinel_username: str = ""
    sentinel_password: str = ""
    tls: bool = False
    ca_file: str = ""
    """Certificates that are trusted instead of those of the system."""

    def __str__(self) -> str:
        """For logs: without passwords."""
        hosts = ",".join(map(str, self.hosts))
        path = "/".join(part for part in (self.master_name, str(self.database) if self.database else "") if part)
        scheme = ("rediss" if self.tls else "redis") + ("" if self.kind == "single" else f"+{self.kind}")
        return f"{scheme}://{hosts}" + (f"/{path}" if path else "")

    def __repr__(self) -> str:
        return f"<Address {self}>"

    def ssl_context(self) -> ssl.SSLContext | None:
        """None without TLS. Reads `ca_file`: raises OSError if that fails."""
        return ssl.create_default_context(cafile=self.ca_file or None) if self.tls else None


def parse_address(url: str) -> Address:
    """Raises ValueError, which never contains the password, for anything but a URL of the forms above."""
    try:
        parts = urlsplit(url)
        kind, tls = _SCHEMES[parts.scheme.lower()]
    except (KeyError, ValueError):
        raise ValueError(f"expected {_EXPECTED}") from None
    userinfo, _, hosts = parts.netloc.rpartition("@")
    username, _, password = userinfo.partition(":")
    found = tuple(_host(text, SENTINEL_PORT if kind == "sentinel" else PORT) for text in hosts.split(","))
    if kind == "single" and len(found) > 1:
        raise ValueError("several hosts need the scheme redis+sentinel or redis+cluster")
    master_name, database = _path(parts, kind)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    extra = {name: options.pop(name, "") for name in ("sentinel_username", "sentinel_password", "ca_file")}
    if options:
        raise ValueError(f"unknown option {next(iter(options))!r}; there are {', '.join(extra)}")
    return Address(
        kind=kind,
        hosts=found,
        master_name=master_name,
        database=database,
        username=unquote(username),
        password=unquote(password),
        tls=tls,
        **extra,
    )


def _host(text: str, port: int) -> Host:
    match = re.fullmatch(r"(?:\[([^\]]+)\]|([^:\[\]]+))(?::(\d+))?", text.strip())
    if match is None or int(match[3] or port) not in range(1, 65536):
        raise ValueError(f"expected host:port, got {text.strip()!r}")
    return Host(match[1] or match[2], int(match[3] or port))


def _path(parts: SplitResult, kind: Kind) -> tuple[str, int]:
    """The name of the master and the number of the database."""
    names = [unquote(part) for part in parts.path.split("/") if part]
    master_name = ""
    if kind == "sentinel":
        if not names:
            raise ValueError("the name of the master is missing: redis+sentinel://host:port/master_name")
        master_name = names.pop(0)
    if kind == "cluster" and names:
        raise ValueError("a cluster has no databases: leave out the path")
    if len(names) > 1 or (names and not names[0].isdecimal()):
        raise ValueError(f"expected the number of a database as path, got {'/'.join(names)!r}")
    return master_name, int(names[0]) if names else 0
