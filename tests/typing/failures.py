"""Catching and raising `base.errors`."""

from __future__ import annotations

from beaconfire.base import errors
from beaconfire.base.errors import BeaconfireError, CommandError, Disconnect, PayloadError


def explain(error: Exception) -> str:
    try:
        raise error
    except CommandError as refused:
        return refused.detail if refused.code.temporary else refused.code.message
    except Disconnect as ended:
        code: errors.DisconnectCode = ended.code
        ended.code.temporary = True  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
        return ended.code.reason if code.reconnect else "final"
    except PayloadError as unsuitable:
        return str(unsuitable)
    except BeaconfireError:
        return "another failure that Beaconfire raises on purpose"


def raise_wrongly(kind: int) -> None:
    if kind == 1:
        raise CommandError("permission denied")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    if kind == 2:
        raise Disconnect(errors.PERMISSION_DENIED)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    errors.SLOW.code = 3000  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


numbers: list[int] = [error.code for error in errors.ERRORS]
