"""The servers that are measured, including Beaconfire.

Each peer is a package with its program or its configuration, and has an entry here.
"""

from __future__ import annotations

from collections.abc import Mapping

from bench.peers.base import Peer
from bench.peers.beaconfire import Beaconfire
from bench.peers.c_loop import CLoop
from bench.peers.centrifugo import Centrifugo
from bench.peers.django_channels import DjangoChannels
from bench.peers.go_gorilla import GoGorilla
from bench.peers.node_socketio import NodeSocketIo
from bench.peers.node_ws import NodeWs
from bench.peers.python_socketio import PythonSocketIo
from bench.peers.python_websockets import PythonWebsockets

_ALL: tuple[Peer, ...] = (
    Beaconfire(),
    Beaconfire(workers=2),
    Centrifugo(),
    GoGorilla(),
    NodeWs(),
    NodeSocketIo(),
    PythonSocketIo(),
    DjangoChannels(),
    PythonWebsockets(),
    CLoop(),
)

PEERS: Mapping[str, Peer] = {peer.name: peer for peer in _ALL}
"""By their names in samples, in the order of reports."""
