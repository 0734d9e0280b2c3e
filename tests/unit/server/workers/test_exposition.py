"""Metrics of several processes in one text of Prometheus."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from beaconfire.model.events import LimitHit
from beaconfire.observe.metrics import MetricsSink
from beaconfire.server.workers.exposition import add_label, merge


@pytest.mark.parametrize(
    ("line", "labelled"),
    [
        ("up 1\n", 'up{worker="0"} 1\n'),
        ('hits{limit="a b{"} 2\n', 'hits{worker="0",limit="a b{"} 2\n'),
        ("# HELP up text\n", "# HELP up text\n"),
    ],
)
def test_each_series_gets_the_label(line: str, labelled: str) -> None:
    """Comments stay as they are."""
    assert add_label(line, "worker", "0") == labelled


def test_merged_metrics_have_each_family_once_and_all_series() -> None:
    """A parser of Prometheus reads the merged text; the values of all processes are there."""
    texts = []
    for worker in range(3):
        sink = MetricsSink()
        for _ in range(worker):
            sink.emit(LimitHit("client.connection_limit", ""))
        texts.append(add_label(sink.exposition().decode(), "worker", str(worker)))
    merged = merge(texts)
    families = list(text_string_to_metric_families(merged))
    assert len({family.name for family in families}) == len(families)
    hits = {
        sample.labels["worker"]: sample.value
        for family in families
        for sample in family.samples
        if sample.name == "beaconfire_limit_hits_total" and sample.labels["limit"] == "client.connection_limit"
    }
    assert hits == {"0": 0, "1": 1, "2": 2}
    assert all("worker" in sample.labels for family in families for sample in family.samples)
    assert merged.count("\n") == texts[0].count("\n") + 2 * sum(
        not line.startswith("#") for line in texts[0].splitlines()
    )
