"""From the failure of a command to the reply or the disconnect that the client gets, the same for every protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from beaconfire.base.clock import Clock
from beaconfire.base.errors import (
    INAPPROPRIATE_PROTOCOL,
    INTERNAL,
    SERVER_ERROR,
    CommandError,
    Disconnect,
    PayloadError,
)
from beaconfire.base.tasks import is_being_cancelled
from beaconfire.channels.namespaces import Namespaces
from beaconfire.model.events import CommandHandled, EventSink, report_error
from beaconfire.session.session import Session


class CommandExecution:
    """The one place that turns the failures of commands into replies and disconnects, and reports each command."""

    def __init__(self, namespaces: Namespaces, clock: Clock, events: EventSink) -> None:
        self._namespaces = namespaces
        self._now_s = clock.now_s
        self._events = events

    async def run(
        self,
        session: Session,
        method: str,
        channel: str,
        operation: Coroutine[Any, Any, None],
        ref: object,
        reply_error: Callable[[object, CommandError], None],
    ) -> None:
        """Runs a command to its end. Never raises an `Exception`.

        `operation` does the work and sends the successful reply. `method` is the name of the command in metrics and
        logs, and `channel` its channel or empty. `ref` identifies the command for `reply_error`; it is None if the
        command has no reply.
        """
        started_s = self._now_s()
        error, detail = 0, ""
        try:
            await operation
        except CommandError as failure:
            error, detail = failure.code.code, failure.detail
            if ref is not None and not session.has_ended():
                reply_error(ref, failure)
        except Disconnect as failure:
            error, detail = failure.code.code, failure.detail
            session.end(failure.code, failure.detail)
        except PayloadError as failure:
            error, detail = INAPPROPRIATE_PROTOCOL.code, str(failure)
            session.end(INAPPROPRIATE_PROTOCOL, str(failure))
        except (Exception, asyncio.CancelledError) as failure:  # reported; must not reach the event loop
            error, detail = INTERNAL.code, repr(failure)
            if isinstance(failure, asyncio.CancelledError) and is_being_cancelled():
                detail = "cancelled, because the session has ended"
                raise
            report_error(self._events, method, failure)
            _fail(session, ref, reply_error)
        finally:
            namespace = self._namespaces.label(channel)
            duration_s = self._now_s() - started_s
            event = CommandHandled(session.client, session.user, method, namespace, duration_s, error, detail)
            self._events.emit(event)


def _fail(session: Session, ref: object, reply_error: Callable[[object, CommandError], None]) -> None:
    if session.has_ended():
        return
    if ref is None:
        session.end(SERVER_ERROR)
    else:
        reply_error(ref, CommandError(INTERNAL))
