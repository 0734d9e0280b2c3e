"""A backend that publishes through the HTTP API."""

from __future__ import annotations

import http.client
import json
from collections.abc import Sequence

from bench.load import HttpLoad, LoadError
from bench.load.client import Outcome
from bench.peers.base import Peer, Running
from bench.peers.centrifuge import API_KEY, api_request
from bench.scenarios.base import DATA, Effort, Measured, Metrics, Subject, find_count, metrics

CONNECTIONS = 8
BATCH = 100


class Api:
    """Publishes over keep-alive connections, one message or a hundred per request, to channels without subscribers."""

    name = "api"

    def supports(self, peer: Peer) -> bool:
        return "api" in peer.capabilities

    def measure(self, subject: Subject, effort: Effort) -> Measured:
        port = subject.running.port
        yield (
            {"batch": 1},
            flood_api(subject.running, [api_request(port, "publish", _json(publication("bench")))], 1, effort),
        )
        yield {"batch": BATCH}, flood_api(subject.running, [batch_request(port, ["bench"] * BATCH)], BATCH, effort)


def flood_api(running: Running, requests: Sequence[bytes], publishes: int, effort: Effort) -> Metrics:
    """A closed loop over each request in turn. Costs and rates are per publish; a request contains `publishes`."""
    outcomes: list[Outcome] = []
    cpu_s = 0.0
    for request in requests:
        with HttpLoad(running.port, CONNECTIONS, request) as load:
            count = find_count(load.flood, CONNECTIONS, effort.seconds / len(requests))
            before_s = running.cpu_s()
            outcome = load.flood(count)
            cpu_s += running.cpu_s() - before_s
        if outcome.not_2xx:
            raise LoadError(f"{outcome.not_2xx} of {outcome.answered} requests were refused")
        outcomes.append(outcome)
    return metrics(_total(outcomes), cpu_s, publishes * sum(outcome.answered for outcome in outcomes))


def _total(outcomes: Sequence[Outcome]) -> Outcome:
    """The sum of all seconds; the latencies are those of the first outcome."""
    return Outcome(
        seconds=sum(outcome.seconds for outcome in outcomes),
        latency_us=outcomes[0].latency_us,
        cpu_s=sum(outcome.cpu_s for outcome in outcomes),
    )


def publication(channel: str) -> dict[str, str]:
    return {"channel": channel, "data": DATA}


def batch_request(port: int, channels: Sequence[str]) -> bytes:
    """A request that publishes once in each channel."""
    return api_request(port, "batch", _batch(channels))


def call_api(running: Running, method: str, body: dict[str, object]) -> bytes:
    """Calls the HTTP API once and returns the response body. Raises LoadError if the call fails."""
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=30)
    try:
        headers = {"X-API-Key": API_KEY, "Content-Type": "application/json"}
        connection.request("POST", f"/api/{method}", _json(body), headers)
        response = connection.getresponse()
        answer = response.read()
    finally:
        connection.close()
    if response.status != 200 or b'"error"' in answer:
        raise LoadError(f"{method} was refused: {response.status} {answer[:200].decode(errors='replace')}")
    return answer


def publish_in(running: Running, channels: Sequence[str]) -> None:
    """Publishes once in each channel."""
    for start in range(0, len(channels), 1000):
        call_api(running, "batch", {"commands": _commands(channels[start : start + 1000])})


def _batch(channels: Sequence[str]) -> bytes:
    return _json({"commands": _commands(channels)})


def _commands(channels: Sequence[str]) -> list[dict[str, object]]:
    return [{"publish": publication(channel)} for channel in channels]


def _json(body: object) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()
