"""The layout is the architecture: imports point downwards, siblings in a wing do not know each other, no cycles."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "beaconfire"

FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors", "units", "clock", "eager", "meter", "body"),
    ("messages", "identity", "options", "events", "protocols"),
    (
        "engines.base",
        "channels",
        "access",
        "outbox",
        "subscription",
        "hub",
        "room",
        "batch",
        "conflation",
        "deltas",
        "tags_filter",
        "registry",
        "origins",
        "sizes",
        "hosts",
    ),
    ("transports.base", "policy", "attachments", "cluster", "node", "keepalive", "session", "commands", "residents"),
    ("engines", "transports", "auth", "api", "observe"),
    ("loadtest",),
    (
        "config",
        "announce",
        "admission",
        "drain",
        "app",
        "server",
        "cli",
        "demo",
        "browser",
        "__init__",
    ),
)
"""Ground, words, rules, life, wings, annexes, front door. A module is found by its longest prefix here."""

WINGS = ("engines", "transports", "auth", "api", "observe")

ANNEXES: dict[str, tuple[str, ...]] = {"loadtest": ("protocols", "errors", "clock", "units", "auth.mint")}
"""Clients that live in the house, and all they may know of it. Only the command line knows them."""

RULES = (
    "channels",
    "access",
    "origins",
    "hosts",
    "outbox",
    "subscription",
    "hub",
    "room",
    "batch",
    "conflation",
    "deltas",
    "tags_filter",
    "registry",
    "sizes",
    "meter",
    "protocols",
)
FORBIDDEN_IN_RULES = {"asyncio", "socket", "ssl", "threading", "time", "random", "logging", "structlog", "uvloop"}


CONFIG_READERS = ("config", "announce", "app", "server", "cli")


def modules() -> dict[str, Path]:
    """Every module by its dotted name below the package."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        name = ".".join(path.relative_to(SOURCE).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = path
    return found


def imports(path: Path) -> set[tuple[str, bool]]:
    """What a module imports: dotted names, and whether only for type checking."""
    tree = ast.parse(path.read_text())
    for_types = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for node in ast.walk(block)
    }
    found: set[tuple[str, bool]] = set()
    for node in ast.walk(tree):
        only_types = id(node) in for_types
        if isinstance(node, ast.Import):
            found |= {(alias.name, only_types) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative imports hide the floor they point to"
            found |= {(f"{node.module}.{alias.name}", only_types) for alias in node.names}
    return found


ALL = modules()


def own(name: str) -> str | None:
    """The module of ours that an import names, if it is one."""
    name = name.removeprefix("beaconfire.") if name.startswith("beaconfire.") else ""
    while name:
        if name in ALL:
            return name
        name = name.rpartition(".")[0]
    return None


def floor(module: str) -> int:
    """The floor of a module, by its longest known prefix."""
    best = max(
        (
            (len(prefix), number)
            for number, prefixes in enumerate(FLOORS)
            for prefix in prefixes
            if module == prefix or module.startswith(prefix + ".")
        ),
        default=None,
    )
    assert best is not None, f"{module} has no place in the floor plan: give it one"
    return best[1]


def edges() -> set[tuple[str, str, bool]]:
    """All imports between our modules: from, to, only for types."""
    return {
        (module, target, only_types)
        for module, path in ALL.items()
        for name, only_types in imports(path)
        if (target := own(name)) is not None and target != module
    }


def test_imports_point_downwards() -> None:
    """Nothing imports from a floor above its own."""
    wrong = [
        f"{module} -> {target}" for module, target, types in edges() if not types and floor(target) > floor(module)
    ]
    assert wrong == []


def test_siblings_in_a_wing_do_not_know_each_other() -> None:
    """A wing imports no other wing; an engine no other engine."""
    wrong = [
        f"{module} -> {target}"
        for module, target, _ in edges()
        if (wing := module.split(".")[0]) in WINGS
        and (other := target.split(".")[0]) in WINGS
        and target not in ("engines.base", "transports.base", "transports.reset")
        and (wing != other or (wing in ("engines", "transports") and module.split(".")[1:2] != target.split(".")[1:2]))
    ]
    # The API's HTTP door checks keys, the one thing a wing takes from another.
    assert [edge for edge in wrong if edge != "api.http -> auth.keys"] == []


def test_annexes_stand_apart() -> None:
    """An annex imports the few words it shares with the server, and of the server only the command line imports it."""
    wrong = []
    for module, target, _ in edges():
        home, other = module.split(".")[0], target.split(".")[0]
        if home in ANNEXES and home != other:
            known = ANNEXES[home]
            if not any(target == prefix or target.startswith(prefix + ".") for prefix in known):
                wrong.append(f"{module} -> {target}")
        elif other in ANNEXES and home not in (other, "cli"):
            wrong.append(f"{module} -> {target}")
    assert wrong == []


def test_there_are_no_import_cycles() -> None:
    """Taking away what imports nothing left leaves nothing."""
    graph: dict[str, set[str]] = {module: set() for module in ALL}
    for module, target, only_types in edges():
        if not only_types and not module.startswith(target + "."):
            graph[module].add(target)
    while graph:
        leaves = [module for module, targets in graph.items() if not targets & graph.keys()]
        assert leaves, f"import cycle among {sorted(graph)}"
        for module in leaves:
            del graph[module]


@pytest.mark.parametrize("module", [name for name in ALL if name.split(".")[0] in RULES])
def test_rules_are_pure(module: str) -> None:
    """Rules and protocols import no event loop, no clock, no chance, no log, and have no coroutines."""
    assert {name.split(".")[0] for name, _ in imports(ALL[module])} & FORBIDDEN_IN_RULES == set()
    tree = ast.parse(ALL[module].read_text())
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef | ast.Await)]


def test_only_the_front_door_sees_the_configuration() -> None:
    """Options travel down; the configuration object does not."""
    readers = {module.split(".")[0] for module, target, _ in edges() if target == "config"}
    assert readers <= set(CONFIG_READERS)
