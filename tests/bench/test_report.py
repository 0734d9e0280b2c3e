"""The report: it shows all samples, names what is missing, marks load-bound results, and escapes all text."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench.goals import GOALS
from bench.report import About, Machine, PeerFacts, formatting, write
from bench.report.contents import read_explanations
from bench.report.rendering import escape_markdown
from bench.samples import Sample, Spread, Value, append

ROOT = Path(__file__).parents[2]
ONE: dict[str, Value] = {"subscribers": 1000, "in_flight": 1, "codec": "json"}
SVG_BYTES_MAX = 60_000


def fanout(peer: str, cpu_us: float, rounds: int = 3, **busy: float) -> list[Sample]:
    return [
        Sample(scenario="fanout", peer=peer, variant=ONE, round=round, metrics={"cpu_us": cpu_us + round, **busy})
        for round in range(rounds)
    ]


def growth(peer: str, axis: str, places: Sequence[int], metrics: Sequence[str] = ("cpu_us",)) -> list[Sample]:
    scenario = "latency" if axis == "rate" else f"growth_{axis}"
    return [
        Sample(scenario=scenario, peer=peer, variant={axis: place}, round=0, metrics=dict.fromkeys(metrics, 7.0))
        for place in places
    ]


class Page(HTMLParser):
    """Text and tags of a page. Asserts that all tags are closed."""

    VOID = ("meta", "br", "hr", "img")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        found = {name: value or "" for name, value in attrs}
        self.ids += [found["id"]] if "id" in found else []
        self.links += [found[name] for name in ("href", "src", "xlink:href") if name in found]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)


def report(
    out: Path, samples: Sequence[Sample], about: About | None = None, explanations: dict[str, str] | None = None
) -> tuple[Page, str]:
    """The HTML page and the Markdown."""
    write(samples, out, about, explanations)
    return Page((out / "index.html").read_text()), (out / "README.md").read_text()


# --- what was measured ----------------------------------------------------------------------------------------------


def test_report_without_samples(tmp_path: Path) -> None:
    """Everything is reported as not measured."""
    page, markdown = report(tmp_path, [])
    assert f"{len(GOALS)} not measured" in page.text
    assert "Scenarios that were not measured: Fan-out, Fan-out compared with send(), Rooms" in page.text
    assert f"0 met, 0 missed, {len(GOALS)} not measured" in markdown
    assert "The machine was not recorded." in page.text


def test_partial_samples(tmp_path: Path) -> None:
    """The report has medians, spreads and ratios of the samples, and names missing peers and scenarios."""
    page, markdown = report(tmp_path, [*fanout("beaconfire", 7.0), *fanout("centrifugo", 14.0)])
    assert "Beaconfire JSON 8.00 µs 7.00 [7.50 8.50] 9.00" in page.text
    assert "Centrifugo JSON 15.0 µs 1.88× 14.0 [14.5 15.5] 16.0" in page.text
    assert "Not measured: Beaconfire with two workers, Go with gorilla/websocket" in page.text
    assert "| 1,000 subscribers · 1 in flight | **Beaconfire** | 8.00 µs |" in markdown
    assert "| 1,000 subscribers · 1 in flight | Centrifugo | 15.0 µs (1.88×) |" in markdown
    assert "Scenarios that were not measured: Fan-out compared with send(), Rooms" in markdown


def test_a_peer_alone_has_no_ratio(tmp_path: Path) -> None:
    """Without samples of Beaconfire there is no ratio, and one round has no spread."""
    page, _ = report(tmp_path, fanout("node-ws", 14.0, rounds=1))
    assert "Node.js with ws JSON 14.0 µs" in page.text
    assert "14.0 [" not in page.text
    assert not re.search(r"14\.0 µs \d", page.text)


def test_unknown_names_are_shown(tmp_path: Path) -> None:
    """A scenario, peer or metric that is not in the catalogue is shown with its own name."""
    unknown = Sample(scenario="odd", peer="odder", variant={"how": "oddly"}, round=0, metrics={"oddness": 12345.6})
    page, markdown = report(tmp_path, [unknown])
    assert "odd Peer oddness how: oddly odder 12,346" in page.text
    assert "| how: oddly | odder | 12,346 |" in markdown


def test_unsupported_scenarios_are_not_missing(tmp_path: Path) -> None:
    """A peer without a needed capability is listed as not supported."""
    about = About(
        peers={
            "beaconfire": PeerFacts(title="Beaconfire 1", capabilities=frozenset({"fanout", "api"})),
            "centrifugo": PeerFacts(title="Centrifugo 6", capabilities=frozenset({"fanout", "api"})),
            "c-loop": PeerFacts(title="C loop", capabilities=frozenset({"fanout"})),
        }
    )
    api = Sample(scenario="api", peer="beaconfire", variant={"batch": 1}, round=0, metrics={"cpu_us": 90.0})
    page, markdown = report(tmp_path, [api], about)
    assert "Not measured: Centrifugo 6. Not supported by: C loop." in page.text
    assert "Not measured: Centrifugo 6.\n\nNot supported by: C loop." in markdown


def test_load_bound_results_are_marked(tmp_path: Path) -> None:
    """If the load side limited a measurement, both pages mark its row and its goal, and explain the mark."""
    bound = fanout("centrifugo", 6.0, load_busy=0.97, server_busy=0.5)
    page, markdown = report(tmp_path, [*fanout("beaconfire", 7.0, load_busy=0.97, server_busy=0.99), *bound])
    for text in (page.text, markdown):
        assert text.count("⚠ load-bound in 3 of 3 rounds") == 1
        assert text.count("⚠ load-bound: Centrifugo") == 1
        assert text.count("⚠ load-bound: the load side was busy") == 1
    unmarked, markdown = report(tmp_path, fanout("beaconfire", 7.0))
    assert "⚠" not in unmarked.text + markdown


# --- goals ----------------------------------------------------------------------------------------------------------


def test_missed_goals_are_explained(tmp_path: Path) -> None:
    """A missed goal has its explanation or a note that there is none. A goal that is met has neither."""
    samples = [*fanout("beaconfire", 9.0), *fanout("centrifugo", 9.0), *fanout("python-socketio", 9.0)]
    explanations = {"fanout-cpu-centrifugo": "Because *physics*.", "memory-bytes": "Unneeded."}
    page, markdown = report(tmp_path, samples, explanations=explanations)
    assert "Because physics ." in page.text
    assert "Because *physics*." in markdown
    assert "times better, ≥ 10× less than python-socketio Not yet explained." in page.text
    assert page.text.count("Not yet explained.") == markdown.count("Not yet explained.") == 1
    assert "Unneeded" not in page.text + markdown


def test_explanations_are_read_by_key(tmp_path: Path) -> None:
    """The text below the key of a goal is its explanation. A heading that is not a key is an error."""
    path = tmp_path / "explanations.md"
    assert read_explanations(path) == {}
    path.write_text("# Title\n\n## memory-bytes\n\nTwo\n\n### parts\n\nof it.\n\n## stall \n\nOther.\n")
    assert read_explanations(path) == {"memory-bytes": "Two\n\n### parts\n\nof it.", "stall": "Other."}
    path.write_text("## memory-bites\n\nNo.\n")
    with pytest.raises(ValueError, match="no goal has the key 'memory-bites'"):
        read_explanations(path)


# --- plots ----------------------------------------------------------------------------------------------------------


def test_growth_is_plotted(tmp_path: Path) -> None:
    """A scenario with an axis has a plot in the page and as a small file. The text in the plot is text."""
    samples = [*growth("beaconfire", "subscribers", (100, 15000)), *growth("centrifugo", "subscribers", (100, 15000))]
    page, markdown = report(tmp_path, samples)
    assert "svg" in page.tags
    svg = (tmp_path / "growth_subscribers-cpu_us.svg").read_text()
    words = " ".join("".join(node.itertext()) for node in ElementTree.fromstring(svg).iter() if node.tag[-4:] == "text")
    assert "Beaconfire" in words
    assert "15k" in words
    assert len(svg) < SVG_BYTES_MAX
    assert "![CPU per delivery by subscribers](growth_subscribers-cpu_us.svg)" in markdown


def test_latency_is_plotted_by_percentile(tmp_path: Path) -> None:
    """Latency has a plot against the rate for each measured percentile."""
    report(tmp_path, growth("beaconfire", "rate", (100, 200), ("p50_us", "p99_us", "p999_us", "max_us")))
    assert {path.stem for path in tmp_path.glob("*.svg")} == {"latency-p50_us", "latency-p99_us", "latency-p999_us"}


def test_a_single_position_has_no_plot(tmp_path: Path) -> None:
    """One position on the axis is not enough for a curve."""
    page, _ = report(tmp_path, growth("beaconfire", "channels", (10,)))
    assert "svg" not in page.tags


def test_pages_are_reproducible_and_self_contained(tmp_path: Path) -> None:
    """The same samples give the same bytes. Ids are unique, and all links point to an id of the page."""
    samples = [*growth("beaconfire", "channels", (10, 1000)), *growth("beaconfire", "subscribers", (100, 15000))]
    page, _ = report(tmp_path / "one", samples)
    report(tmp_path / "two", samples)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    assert len(set(page.ids)) == len(page.ids)
    assert {link[1:] for link in page.links} <= set(page.ids)
    assert not page.tags & {"script", "link", "img"}


# --- text -----------------------------------------------------------------------------------------------------------


def test_text_is_escaped(tmp_path: Path) -> None:
    """Titles, configurations, variants, facts and explanations are shown unchanged and never interpreted as markup."""
    evil = "<script>alert('&|*_`')</script>"
    machine = Machine(cpu=evil, cores=1, kernel=evil, python=evil, date=evil, command="make bench")
    about = About(machine=machine, peers={"beaconfire": PeerFacts(title=evil, configuration=evil)})
    places: list[dict[str, Value]] = [{"subscribers": place, "kind": evil} for place in (10, 1000)]
    samples = [
        Sample(scenario="growth_subscribers", peer="beaconfire", variant=variant, round=0, metrics={"cpu_us": 1.0})
        for variant in places
    ]
    missed = [*fanout("beaconfire", 9.0), *fanout("c-loop", 1.0)]
    page, markdown = report(tmp_path, [*samples, *missed], about, {"fanout-cpu-c-loop": evil})
    assert "script" not in page.tags
    assert page.text.count(evil) >= 8
    assert escape_markdown(evil) in markdown
    assert evil not in markdown.replace(f"\n{evil}\n", "")  # an explanation is trusted Markdown
    ElementTree.fromstring((tmp_path / "growth_subscribers-cpu_us.svg").read_text())


def test_about_is_written_and_read(tmp_path: Path) -> None:
    """A written file is read unchanged. A missing file gives an empty object. An invalid file is named in the error."""
    about = About(machine=Machine.here("make bench"), peers={"x": PeerFacts(title="X", capabilities=frozenset("ab"))})
    path = tmp_path / "new" / "about.json"
    about.write(path)
    assert About.read(path) == about
    assert About.read(tmp_path / "none.json") == About()
    path.write_text('{"peers": 1}')
    with pytest.raises(ValueError, match=r"about\.json"):
        About.read(path)


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        ("cpu_us", 7.0649, "7.06 µs"),
        ("cpu_us", 0.0412, "0.0412 µs"),
        ("p99_us", 999.7, "1,000 µs"),
        ("p99_us", 12_345, "12.3 ms"),
        ("max_us", 2_500_000, "2.50 s"),
        ("per_second", 4_200_000, "4.20 M/s"),
        ("per_second", 138_000, "138 k/s"),
        ("per_second", 950, "950 /s"),
        ("bytes", 8704, "8.50 KiB"),
        ("bytes", 3_145_728, "3.00 MiB"),
        ("server_busy", 0.978, "98 %"),
        ("cpu_us", 0, "0 µs"),
        ("what", 12.345, "12.3"),
    ],
)
def test_quantities(metric: str, value: float, text: str) -> None:
    """Three significant digits and a suitable unit."""
    assert formatting.quantity(metric, value) == text


def test_a_spread_has_the_unit_of_its_median() -> None:
    """So the numbers can be compared with the median."""
    assert formatting.interval("cpu_us", Spread(5, 900, 950, 1100, 1200, 1300)) == "0.900 [0.950 1.20] 1.30"


def test_command_line(tmp_path: Path) -> None:
    """The command writes a report from the samples and the other files of their folder. An invalid file is an error."""
    append(tmp_path / "samples.jsonl", *fanout("beaconfire", 9.0), *fanout("centrifugo", 9.0))
    About(peers={"beaconfire": PeerFacts(title="Beaconfire 1.2")}).write(tmp_path / "about.json")
    (tmp_path / "explanations.md").write_text("## fanout-cpu-centrifugo\n\nPhysics.\n")

    def run() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "bench.report", str(tmp_path / "samples.jsonl"), str(tmp_path / "out")]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert run().returncode == 0
    markdown = (tmp_path / "out" / "README.md").read_text()
    assert "**Beaconfire 1.2**" in markdown
    assert "Physics." in markdown
    (tmp_path / "samples.jsonl").write_text("nonsense")
    failed = run()
    assert failed.returncode == 2
    assert "line 1 is not a sample" in failed.stderr
