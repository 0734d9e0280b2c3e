"""The tables of field names are complete and match the schema."""

from __future__ import annotations

from typing import get_args

from beaconfire.model import pushes
from beaconfire.protocols.centrifuge import requests, results, schema_pb2
from beaconfire.protocols.centrifuge.fields import PUSHES, REQUESTS, RESULTS


def test_every_message_has_a_name() -> None:
    """Every request, result and push has a name."""
    assert set(REQUESTS.values()) == set(get_args(requests.Request))
    assert set(RESULTS) == set(get_args(results.Result))
    assert set(PUSHES) == set(get_args(pushes.Push))


def test_requests_are_in_the_order_of_the_schema() -> None:
    """The first request in the order of field numbers counts, in both encodings."""
    numbers = {field.name: field.number for field in schema_pb2.DESCRIPTOR.message_types_by_name["Command"].fields}
    assert list(REQUESTS) == sorted(numbers.keys() - {"id"}, key=numbers.__getitem__)


def test_results_and_pushes_are_in_the_schema() -> None:
    """The names are exactly those of the schema."""
    assert {"id", "error", "push", *RESULTS.values()} == set(schema_pb2.Reply.DESCRIPTOR.fields_by_name)
    assert {"channel", *PUSHES.values()} == set(schema_pb2.Push.DESCRIPTOR.fields_by_name)
