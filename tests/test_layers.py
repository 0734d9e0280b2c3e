"""The layout is the architecture: imports point downwards, siblings do not import each other, and there are no cycles.

Imports for type checkers only (`if TYPE_CHECKING`) count like all other imports.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "beaconfire"

CONNECTIONS = (
    "protocols.centrifuge.connection",
    "protocols.centrifuge.polling",
    "protocols.centrifuge.unidirectional_connection",
    "protocols.plain.connection",
)
"""The connection objects of protocols. They call the operations of the session. All other modules of protocols, such as
the codecs, are below the session."""

LAYERS: tuple[tuple[str, ...], ...] = (
    ("base",),
    ("model",),
    ("engines.port", "engines.options", "protocols.port", "protocols.json_payload", "protocols.fossil"),
    ("protocols",),
    ("channels",),
    ("policy.port", "policy.tickets", "policy.tokens", "transports.port", "transports.options", "transports.traits"),
    ("delivery",),
    ("session",),
    ("node",),
    ("policy", "engines", *CONNECTIONS, "transports", "auth", "api", "observe"),
    ("loadtest", "testing"),
    ("config",),
    ("server", "web"),
    ("cli", "asgi", "__init__", "__main__"),
)
"""From the lowest layer to the highest. A module belongs to the layer of its longest prefix."""

PORTS = ("engines.port", "protocols.port", "transports.port", "policy.port", "policy.tickets", "policy.tokens")
SHARED = (
    *PORTS,
    "protocols.json_payload",
    "engines.options",
    "engines.producers",
    "engines.wire",
    "observe.options",
    "transports.endpoint_table",
    "transports.options",
    "transports.traits",
)
"""Modules that every folder of this layer may import."""

SIBLINGS = ("engines", "protocols", "transports", "policy", "auth", "api", "observe")
"""Folders of one layer. They do not import each other, and neither do the folders within the first three."""

LOADTEST_IMPORTS = ("protocols.port", "protocols.centrifuge", "model", "base", "auth.issue")
"""The load generator is a client: it may import these, without the connection objects of the server. Of the server only
the command line imports it."""

PURE = ("channels", "delivery", "model", "protocols", "base.errors", "base.units", "base.rates")
IMPURE_IN_PURE = (
    "channels.attachments",
    "channels.lanes",
    "channels.periodic",
    "channels.service",
    "channels.shared_reads",
    *CONNECTIONS,
)
"""Pure modules decide synchronously: no event loop, no clock, no randomness, no log."""
FORBIDDEN_IN_PURE = {"asyncio", "socket", "ssl", "threading", "time", "random", "logging", "structlog", "uvloop"}

CONFIG_READERS = ("config", "server", "cli", "asgi")


def modules() -> dict[str, Path]:
    """Every module by its dotted name below the package."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        name = ".".join(path.relative_to(SOURCE).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = path
    return found


ALL = modules()


def imported_names(path: Path) -> set[str]:
    """The dotted names that a module imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: use absolute imports, which name the layer"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def own_module(name: str) -> str | None:
    """The module of this package that an imported name belongs to, if any."""
    name = name.removeprefix("beaconfire.") if name.startswith("beaconfire.") else ""
    while name:
        if name in ALL:
            return name
        name = name.rpartition(".")[0]
    return None


def starts_with(module: str, *prefixes: str) -> bool:
    return any(module == prefix or module.startswith(prefix + ".") for prefix in prefixes)


def layer(module: str) -> int:
    best = max(
        (
            (len(prefix), number)
            for number, prefixes in enumerate(LAYERS)
            for prefix in prefixes
            if starts_with(module, prefix)
        ),
        default=None,
    )
    assert best is not None, f"{module} is in no layer: add it to LAYERS"
    return best[1]


EDGES = {
    (module, target)
    for module, path in ALL.items()
    for name in imported_names(path)
    if (target := own_module(name)) is not None and target != module
}
"""All imports between modules of this package: from, to."""


def test_imports_point_downwards() -> None:
    """No module imports from a higher layer."""
    assert [f"{a} -> {b}" for a, b in sorted(EDGES) if layer(b) > layer(a)] == []


def is_sibling_import(module: str, target: str) -> bool:
    """Whether the modules belong to siblings: two folders of the layer, or two folders within one of the first three.

    Files directly in `engines`, `protocols` and `transports` belong to all folders there.
    """
    if not starts_with(module, *SIBLINGS) or not starts_with(target, *SIBLINGS) or starts_with(target, *SHARED):
        return False
    one, other = module.split("."), target.split(".")
    if one[0] != other[0]:
        return True
    return one[0] in SIBLINGS[:3] and len(one) > 2 and len(other) > 2 and one[1] != other[1]


def test_siblings_do_not_import_each_other() -> None:
    """An engine imports no other engine, a transport no other transport, and the API no transport."""
    wrong = [f"{a} -> {b}" for a, b in sorted(EDGES) if is_sibling_import(a, b)]
    # The API's HTTP endpoint checks API keys.
    assert [edge for edge in wrong if edge != "api.http -> auth.keys"] == []


def test_the_load_generator_stands_apart() -> None:
    """The load generator imports only what a client needs."""
    wrong = [
        f"{a} -> {b}"
        for a, b in sorted(EDGES)
        if (starts_with(a, "loadtest") and (not starts_with(b, "loadtest", *LOADTEST_IMPORTS) or b in CONNECTIONS))
        or (starts_with(b, "loadtest") and not starts_with(a, "loadtest", "cli"))
    ]
    assert wrong == []


def test_the_load_generator_loads_nothing_of_a_server() -> None:
    """Not through other modules either. Of decisions it knows only the port of tokens."""
    loaded = {module for module in ALL if starts_with(module, "loadtest")}
    while reached := {b for a, b in EDGES if a in loaded} - loaded:
        loaded |= reached
    folders = {module.split(".")[0] for module in loaded if not starts_with(module, "policy.tokens")}
    assert folders == {"loadtest", "protocols", "model", "base", "auth"}


def test_only_connection_objects_know_the_session() -> None:
    """A codec works without a session: clients and the load generator use codecs as well."""
    users = {a for a, b in EDGES if starts_with(a, "protocols") and starts_with(b, "session", "node")}
    assert users <= set(CONNECTIONS)


def cycles(graph: dict[str, set[str]]) -> list[str]:
    """The nodes that are left when every node without outgoing edges is removed, again and again."""
    graph = {node: set(targets) for node, targets in graph.items()}
    while graph:
        leaves = [node for node, targets in graph.items() if not targets & graph.keys()]
        if not leaves:
            return sorted(graph)
        for node in leaves:
            del graph[node]
    return []


def test_there_are_no_import_cycles() -> None:
    """No module imports itself through others."""
    graph: dict[str, set[str]] = {module: set() for module in ALL}
    for a, b in EDGES:
        if not a.startswith(b + "."):  # a package may import its own modules
            graph[a].add(b)
    assert cycles(graph) == []


def test_there_are_no_cycles_between_folders() -> None:
    """Ports aside, the top folders import each other in one direction only."""
    graph: dict[str, set[str]] = {module.split(".")[0]: set() for module in ALL}
    for a, b in EDGES:
        one, other = a.split(".")[0], b.split(".")[0]
        if one != other and not starts_with(b, *SHARED, "protocols.fossil"):
            graph[one].add(other)
    assert cycles(graph) == []


@pytest.mark.parametrize("module", [m for m in ALL if starts_with(m, *PURE) and not starts_with(m, *IMPURE_IN_PURE)])
def test_rules_are_pure(module: str) -> None:
    """Rules import no event loop, clock, randomness or log, and have no coroutines."""
    assert {name.split(".")[0] for name in imported_names(ALL[module])} & FORBIDDEN_IN_PURE == set()
    tree = ast.parse(ALL[module].read_text())
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef | ast.Await)]


def test_options_travel_down_and_the_configuration_does_not() -> None:
    """Only the server and the command line import `config`."""
    readers = {a.split(".")[0] for a, b in EDGES if starts_with(b, "config")}
    assert readers <= set(CONFIG_READERS)
