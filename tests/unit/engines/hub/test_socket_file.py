"""The socket of the hub: one hub for each path, and no other user."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from beaconfire.engines.hub import HubSocket
from beaconfire.engines.remote import remote_engine
from beaconfire.engines.wire.unix_socket import PATH_BYTES_MAX, HubSocketError, check_path, peer_problem


def test_only_the_own_user_may_connect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the moment at which the socket exists, whatever the umask is, which stays as it was."""
    path = str(tmp_path / "hub")
    modes: list[int] = []
    listen = socket.socket.listen

    class Observed(socket.socket):
        def bind(self, address: object) -> None:
            super().bind(address)  # type: ignore[arg-type]  # a path
            modes.append(stat.S_IMODE(os.stat(path).st_mode))

    monkeypatch.setattr(socket, "socket", Observed)
    previous = os.umask(0)
    try:
        listening = HubSocket(path)
        assert os.umask(0) == 0
    finally:
        os.umask(previous)
    assert listen is socket.socket.listen
    assert modes == [0o600]
    assert stat.S_IMODE(os.stat(f"{path}.lock").st_mode) == 0o600
    listening.close()


def test_a_second_hub_is_refused(tmp_path: Path) -> None:
    """With an error that names the path. The first one goes on, and after its end the path is free."""
    path = str(tmp_path / "hub")
    first = HubSocket(path)
    with pytest.raises(HubSocketError, match=f"another hub uses the socket {path}"):
        HubSocket(path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
    first.close()
    first.close()
    assert not Path(path).exists()
    HubSocket(path).close()


def test_the_socket_of_a_dead_hub_is_replaced(tmp_path: Path) -> None:
    """A hub that was killed leaves its socket and its lock file behind, but no lock."""
    path = str(tmp_path / "hub")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    Path(f"{path}.lock").touch()
    listening = HubSocket(path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
    listening.close()


def test_another_file_is_not_removed(tmp_path: Path) -> None:
    """The error names it."""
    path = tmp_path / "hub"
    path.write_text("precious")
    with pytest.raises(HubSocketError, match=f"{path} exists and is not a socket"):
        HubSocket(str(path))
    assert path.read_text() == "precious"
    path.unlink()
    HubSocket(str(path)).close()


def test_a_link_in_the_place_of_the_lock_is_not_followed(tmp_path: Path) -> None:
    """Somebody else may have put it there."""
    path = tmp_path / "hub"
    (tmp_path / "hub.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(HubSocketError, match=f"cannot create {path}.lock"):
        HubSocket(str(path))
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_that_does_not_exist_is_an_error_with_the_path(tmp_path: Path) -> None:
    """And says what the system said."""
    path = str(tmp_path / "missing" / "hub")
    with pytest.raises(HubSocketError, match=f"cannot create {path}.lock: No such file"):
        HubSocket(path)


def test_a_socket_that_the_system_refuses_is_an_error_with_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path is free afterwards."""
    path = str(tmp_path / "hub")

    class Refused(socket.socket):
        def bind(self, address: object) -> None:
            raise PermissionError(1, "Operation not permitted")

    with monkeypatch.context() as patched:
        patched.setattr(socket, "socket", Refused)
        with pytest.raises(HubSocketError, match=f"cannot create the socket {path}: Operation not permitted"):
            HubSocket(path)
    HubSocket(path).close()


def test_a_path_that_is_too_long_is_an_error_with_both_lengths() -> None:
    """At both ends, before anything is tried. Bytes count, not letters."""
    check_path("/" + "x" * (PATH_BYTES_MAX - 1))
    for path in ("/" + "x" * PATH_BYTES_MAX, "/" + "火" * (PATH_BYTES_MAX // 3) + "xxx"):
        with pytest.raises(HubSocketError, match=f"has {len(os.fsencode(path))} bytes.*{PATH_BYTES_MAX}.*{path}"):
            HubSocket(path)
        with pytest.raises(HubSocketError, match="Use a shorter path"):
            remote_engine(path, None, "1")  # type: ignore[arg-type]  # the path is checked first


def test_a_process_of_another_user_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system tells the user of the other end. Where it does not, the mode of the socket is the only protection."""
    one, other = socket.socketpair(socket.AF_UNIX)
    with one, other:
        assert peer_problem(one) == ""
        uid = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
        assert peer_problem(one) == f"the process at the other end belongs to the user {uid}, and this one to {uid + 1}"
        monkeypatch.delattr(socket, "SO_PEERCRED")
        assert peer_problem(one) == ""
