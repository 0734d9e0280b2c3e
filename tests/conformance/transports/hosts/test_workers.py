"""The suite of all transports with four worker processes: each connection and each request may reach another one."""

from __future__ import annotations

from tests.conformance.transports.client_transports import CLIENT_TRANSPORTS
from tests.conformance.transports.test_polling import *  # noqa: F403
from tests.conformance.transports.test_requests import *  # noqa: F403
from tests.conformance.transports.test_scenario import *  # noqa: F403
from tests.conformance.transports.test_unidirectional import *  # noqa: F403

HOST = "workers"
TRANSPORTS = tuple(CLIENT_TRANSPORTS)
