"""A small file system in memory that only the programs of one test see, so that it can be full."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

_MOUNT = 'mount -t tmpfs -o size="$1" tmpfs "$2" && echo mounted && exec cat'


class SmallDisk:
    """A tmpfs in a mount namespace of its own, until the `with` block ends.

    A process that waits keeps the namespace, so servers on the disk can end and start. Needs the right to mount: root
    with CAP_SYS_ADMIN, or user namespaces.
    """

    def __init__(self, folder: Path, size_bytes: int) -> None:
        """`folder` is the mount point, as the programs in the namespace see it."""
        self.folder = folder
        self._size_bytes = size_bytes
        self._user = [] if os.geteuid() == 0 else ["--user"]

    def __enter__(self) -> Self:
        self.folder.mkdir()
        user = [*self._user, "--map-root-user"] if self._user else []
        command = ["unshare", *user, "--mount", "sh", "-c", _MOUNT, "sh", str(self._size_bytes), str(self.folder)]
        self._holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != b"mounted\n":
            _, reason = self._holder.communicate()
            pytest.fail(
                f"cannot mount a small disk: {reason.decode().strip()}. Run the tests as root, or allow user "
                "namespaces; in a container, add the capability SYS_ADMIN"
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._holder.communicate()

    @property
    def launcher(self) -> list[str]:
        """The program that executes another one in the namespace."""
        options = [f"--target={self._holder.pid}", *self._user, "--mount"]
        return ["nsenter", *options, *(["--preserve-credentials"] if self._user else []), "--"]

    def outside(self, path: Path) -> Path:
        """The same path, for programs outside of the namespace."""
        return Path(f"/proc/{self._holder.pid}/root{path}")

    def free_bytes(self) -> int:
        return shutil.disk_usage(self.outside(self.folder)).free
