"""Runs the blocks of a page in order, with one server, one folder, terminals and a browser that live until its end."""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from playwright.sync_api import Page, sync_playwright

from beaconfire.config import load
from bench.processes import HeldPort
from tests.acceptance.server_process import ServerProcess
from tests.browser.conftest import CHROMIUM_FLAGS
from tests.docs.pages import ROOT, Block

DEADLINE_S = 20.0
NODE_MODULES = ROOT / "tests" / "acceptance" / "sdk" / "node" / "node_modules"


class Terminal:
    """A shell command in the background. Tests can wait for lines of its output."""

    def __init__(self, command: str, folder: Path, environment: dict[str, str]) -> None:
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._process = subprocess.Popen(
            ["bash", "-c", f"set -euo pipefail\nexec {command.strip()}"],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stream:
            for line in stream:
                with self._changed:
                    self.lines.append(line.rstrip("\n"))
                    self._changed.notify_all()

    def type(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text)
        self._process.stdin.flush()

    def wait_lines(self, wanted: list[str]) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: all(map(self._has, wanted)), DEADLINE_S):
                raise AssertionError(f"expected {wanted}, there is {self.lines}")

    def _has(self, wanted: str) -> bool:
        """Whether the output contains a line; `…` in `wanted` matches anything."""
        return any(re.fullmatch(re.escape(wanted).replace("…", ".*"), line) for line in self.lines)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(DEADLINE_S)
        self._reader.join(DEADLINE_S)
        self._process.stdin.close()


class Stage:
    """Runs the blocks of one page in order. Replaces port 8000 by the server's port, and 9000 by a free one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self._server: ServerProcess | None = None
        self._terminals: dict[str, Terminal] = {}
        self._page: Page | None = None
        self._console: list[str] = []
        self._output = ""
        self._web_port = self._stack.enter_context(HeldPort()).number
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self._environment = {k: v for k, v in os.environ.items() if not k.startswith("BEACONFIRE_")} | {"PATH": path}
        shutil.copy(ROOT / "demo.toml", folder)
        (folder / ".venv").symlink_to(sys.prefix)

    def __enter__(self) -> Stage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def run_block(self, block: Block) -> None:
        """Raises AssertionError if the result of the block differs from its directive."""
        text = self._placed(block.text)
        verb, _, detail = block.directive.partition(": ")
        if verb == "not run":
            assert detail, "the reason is missing"
        elif verb == "writes":
            self._file(detail, text)
        elif verb == "runs" and detail == "serve":
            self._serve(text)
        elif verb == "runs" and detail.startswith("in terminal "):
            self._open_terminal(detail.removeprefix("in terminal "), text)
        elif verb.startswith("typed in terminal "):
            self._terminals[verb.removeprefix("typed in terminal ")].type(text)
        elif verb == "printed":
            assert_matches(text, self._output)
        elif verb == "printed in terminal browser":
            self._wait_console(text.splitlines())
        elif verb.startswith("printed in terminal "):
            self._terminals[verb.removeprefix("printed in terminal ")].wait_lines(text.splitlines())
        elif verb == "runs":
            self._run(detail or block.language, text)
        else:
            raise AssertionError(f"{block.directive!r} is not a directive; see tests/docs/pages.py")

    def _placed(self, text: str) -> str:
        if self._server is not None:
            text = text.replace("localhost:8000", f"127.0.0.1:{self._server.port}")
        return text.replace("9000", str(self._web_port))

    # --- directives ---

    def _serve(self, text: str) -> None:
        words = shlex.split(text)
        file, overrides = "demo.toml", {"server.demo": "true"}
        if words[:2] == ["beaconfire", "serve"]:
            file, overrides = words[words.index("--config") + 1], {}
        else:
            assert words == ["make", "run"], "expected `beaconfire serve --config …` or `make run`"
        for flag, value in itertools.pairwise(words):
            if flag == "--set":
                name, _, setting = value.partition("=")
                overrides[name] = setting
        config = (self._folder / file).read_text(encoding="utf-8")
        self._server = self._stack.enter_context(ServerProcess(self._folder, config, overrides))
        examples = self._folder / "examples"
        examples.mkdir()
        for example in (ROOT / "examples").iterdir():
            if example.is_file():
                (examples / example.name).write_text(self._placed(example.read_text(encoding="utf-8")))

    def _open_terminal(self, name: str, text: str) -> None:
        self._terminals[name] = Terminal(text, self._folder, self._environment)
        self._stack.callback(self._terminals[name].close)

    def _run(self, language: str, text: str) -> None:
        runners: dict[str, Callable[[str], None]] = {
            "sh": lambda text: self._execute(["bash", "-euo", "pipefail", "-c", text]),
            "python": lambda text: self._execute([sys.executable, self._file("block.py", text)]),
            "node": self._run_node,
            "js": self._run_in_browser,
            "toml": lambda text: assert_loads(self._file("block.toml", text)),
            "json": lambda text: json.loads(text),
        }
        assert language in runners, f"cannot run {language!r}"
        runners[language](text)

    def _file(self, name: str, text: str) -> str:
        path = self._folder / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    def _execute(self, command: list[str]) -> None:
        done = subprocess.run(
            command,
            cwd=self._folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        self._output = done.stdout

    def _run_node(self, text: str) -> None:
        modules = self._folder / "node_modules"
        assert NODE_MODULES.exists(), "the npm packages are missing: run `make services`"
        if not modules.exists():
            modules.symlink_to(NODE_MODULES)
        # Node before 22 has WebSocket behind this flag; later ones ignore it.
        self._execute(["node", "--no-warnings", "--experimental-websocket", self._file("block.mjs", text)])

    def _run_in_browser(self, text: str) -> None:
        if self._page is None:
            self._page = self._open_browser()
        # Only a module can import.
        self._page.add_script_tag(content=text, type="module" if re.search(r"^import ", text, re.M) else "")

    def _open_browser(self) -> Page:
        assert self._server is not None, "a browser needs a server: let a block with `runs: serve` come first"
        playwright = self._stack.enter_context(sync_playwright())
        chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
        assert chromium, "Chromium is needed: install it, or set its path with CHROMIUM=/path"
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
        self._stack.callback(browser.close)
        # Like code in the console, to which a page's Content-Security-Policy does not apply.
        page = browser.new_context(bypass_csp=True).new_page()
        page.on("console", lambda message: self._console.append(message.text))
        page.on("pageerror", lambda error: self._console.append(f"uncaught: {error}"))
        page.goto(f"{self._server.http}/health")
        return page

    def _wait_console(self, wanted: list[str]) -> None:
        assert self._page is not None, "no block has opened a browser"
        end_s = time.monotonic() + DEADLINE_S
        while not all(line in self._console for line in wanted):
            assert time.monotonic() < end_s, f"expected {wanted}, there is {self._console}"
            self._page.wait_for_timeout(20)


def assert_loads(file: str) -> None:
    load(file, {}, {})


def assert_matches(expected: str, actual: str) -> None:
    """`…` in `expected` matches any text on its line, and on a line of its own any number of lines."""
    lines = (
        r"(.*\n)*" if line == "…" else re.escape(line).replace("…", ".*") + r"\n" for line in expected.splitlines()
    )
    assert re.fullmatch("".join(lines), actual.rstrip() + "\n"), f"expected\n{expected}\ngot\n{actual}"
