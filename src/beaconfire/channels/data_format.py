"""Whether published data has the format that its namespace demands."""

from __future__ import annotations

from msgspec import Raw

from beaconfire.base.errors import (
    BAD_REQUEST,
    CommandError,
    PayloadError,
)
from beaconfire.channels.namespaces import Namespace
from beaconfire.protocols.json_payload import check_json


def check_data(data: Raw, namespace: Namespace) -> None:
    """Checks data against the namespace's publication_data_format. Raises CommandError 107.

    JSON must be valid for JSON subscribers, because data that they cannot get would end their sessions.
    """
    wanted = namespace.options.publication_data_format
    if wanted == "binary":
        return
    if not bytes(data):
        raise CommandError(BAD_REQUEST, "data must not be empty")
    if wanted == "":
        return
    expected = "a JSON object" if wanted == "json_object" else "JSON"
    try:
        text = bytes(check_json(data))
    except PayloadError as error:
        raise CommandError(BAD_REQUEST, f"data must be {expected}; {error}") from error
    if wanted == "json_object" and not text.startswith(b"{"):
        raise CommandError(BAD_REQUEST, f"data must be {expected}")
