"""The schema against that of the official SDK, and the generated module against the schema."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from centrifuge.protocol import client_pb2
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto
from msgspec import Struct

from beaconfire.model import position, publication, pushes
from beaconfire.model import requests as model_requests
from beaconfire.protocols.centrifuge import requests, results, schema_pb2

REPOSITORY = Path(__file__).parents[4]
PACKAGE = Path("beaconfire/protocols/centrifuge")

MESSAGES = list(schema_pb2.DESCRIPTOR.message_types_by_name)
ENVELOPES = {"Command", "Reply", "Push", "Error", "EmulationRequest"}
OTHER_NAMES = {"StreamPosition": "SincePosition"}
NEWER_THAN_THE_SDK = {("Publication", "epoch"), ("SubscribeRequest", "type")}
OUR_OWN = {"Conflate"}
"""Messages that the protocol does not have."""
OUR_OWN_FROM = 1000
"""Field numbers that the protocol will not come to."""
ELSEWHERE = {(push, "channel") for push in ("JoinPush", "LeavePush", "SubscribePush", "UnsubscribePush")}
"""Fields of our messages that stand around the message in this protocol."""


def test_the_generated_module_is_up_to_date(tmp_path: Path) -> None:
    """The committed module is what `scripts/protobuf` generates from the schema."""
    script = REPOSITORY / "scripts/protobuf"
    environment = {**os.environ, "PYTHON": sys.executable}
    subprocess.run([script, tmp_path], check=True, timeout=50, env=environment)
    for name in ("schema_pb2.py", "schema_pb2.pyi"):
        assert (tmp_path / PACKAGE / name).read_text() == (REPOSITORY / "src" / PACKAGE / name).read_text()


@pytest.mark.parametrize("name", [name for name in MESSAGES if name not in OUR_OWN])
def test_a_message_agrees_with_the_sdk(name: str) -> None:
    """Every field has the number, type and name of the official SDK, or is an addition of Beaconfire."""
    theirs = {field.number: field for field in declared_fields(client_pb2.DESCRIPTOR, name)}
    for field in declared_fields(schema_pb2.DESCRIPTOR, name):
        if (name, field.name) in NEWER_THAN_THE_SDK or field.number >= OUR_OWN_FROM:
            continue
        other = theirs[field.number]
        assert (field.name, field.type, field.label) == (other.name, other.type, other.label)


def declared_fields(schema: FileDescriptor, message: str) -> Iterable[FieldDescriptorProto]:
    """The fields as the schema declares them. This form exists in all versions of protobuf that we support."""
    declaration = DescriptorProto()
    schema.message_types_by_name[message].CopyToProto(declaration)
    return declaration.field


OURS = {
    name: kind
    for module in (position, publication, pushes, model_requests, requests, results)
    for name, kind in vars(module).items()
}


@pytest.mark.parametrize("name", [name for name in MESSAGES if name not in ENVELOPES])
def test_a_message_has_the_fields_of_the_model(name: str) -> None:
    """A message has the same field names in Protobuf and in JSON."""
    ours = OURS.get(OTHER_NAMES.get(name, name)) or OURS[f"{name}Push"]
    assert issubclass(ours, Struct)
    fields = set(schema_pb2.DESCRIPTOR.message_types_by_name[name].fields_by_name)
    assert fields == {field for field in ours.__struct_fields__ if (ours.__name__, field) not in ELSEWHERE}


def test_both_schemas_can_be_loaded_in_one_process() -> None:
    """A process may use the server and an SDK: the full names of their messages differ."""
    assert schema_pb2.DESCRIPTOR.package != client_pb2.DESCRIPTOR.package
