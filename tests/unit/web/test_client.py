"""The browser client agrees with the server: version, modules, codes."""

from __future__ import annotations

import json
import re
from pathlib import Path

from beaconfire import __version__
from beaconfire.base import errors
from beaconfire.transports.polling.endpoints import COMMANDS_MAX

FOLDER = Path(errors.__file__).parent.parent / "web" / "client"
MODULES = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.js")}


def test_version_is_equal_to_the_server() -> None:
    """Package and module have the version of the server, because both are released together."""
    assert json.loads((FOLDER / "package.json").read_text())["version"] == __version__
    assert f'VERSION = "{__version__}"' in MODULES["beaconfire.js"]


def test_modules_import_only_each_other() -> None:
    """Every import is a file in the same folder, and `beaconfire.js` imports every file, directly or indirectly."""
    imports = {
        name: set(re.findall(r'^(?:import|export)\b[^;"]* from "\./(\w+\.js)";', text, re.M))
        for name, text in MODULES.items()
    }
    reached, waiting = set(), ["beaconfire.js"]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += imports[name]
    assert reached == set(MODULES)
    assert not [name for name, text in MODULES.items() if re.search(r'^[^*\n]* from "(?!\./)', text, re.M)]


def test_codes_are_equal_to_the_server() -> None:
    """Each named code, and the limit of commands in a request, has the same value in the server."""
    found = dict(re.findall(r"^export const (\w+) = (\d{3,4});", MODULES["constants.js"], re.M))
    known = {
        name: str(value.code)
        for name, value in vars(errors).items()
        if isinstance(value, errors.ErrorCode | errors.DisconnectCode | errors.UnsubscribeCode)
    }
    known["BATCH_COMMANDS_MAX"] = str(COMMANDS_MAX)
    foreign = {"MESSAGE_TOO_BIG", "UNSUBSCRIBED_INVALIDATED", "RESUBSCRIBE_FROM"}
    assert {name: code for name, code in found.items() if name not in foreign} == {
        name: known[name] for name in found if name not in foreign
    }
    assert len(found) > len(foreign) + 5
