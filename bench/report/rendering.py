"""Writes a report: renders the templates, and the plots as files for the Markdown page."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup

from bench.report import drawing
from bench.report.about import About
from bench.report.contents import contents
from bench.samples import Sample

_TEMPLATES = Path(__file__).parent / "templates"


def write(
    samples: Sequence[Sample], out_dir: Path, about: About | None = None, explanations: Mapping[str, str] | None = None
) -> None:
    """Writes `index.html`, `README.md` and one `.svg` per plot to a folder, which is created if needed.

    Without samples of a scenario, the report says that it was not measured. `explanations` are Markdown by key of the
    goal.
    """
    report = contents(samples, about or About(), explanations or {})
    drawings = {plot.name: drawing.draw(plot) for section in report.sections for plot in section.plots}
    out_dir.mkdir(parents=True, exist_ok=True)
    for name, svg in drawings.items():
        (out_dir / f"{name}.svg").write_text(drawing.standalone(svg))
    svgs = {name: Markup(svg) for name, svg in drawings.items()}
    page = _html().get_template("index.html.jinja").render(report=report, svgs=svgs)
    (out_dir / "index.html").write_text(page)
    (out_dir / "README.md").write_text(_markdown().get_template("README.md.jinja").render(report=report))


def _html() -> Environment:
    """Escapes all values. The filter `markdown` converts Markdown to HTML; HTML inside the Markdown stays text."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    renderer = MarkdownIt("commonmark", {"html": False}).enable("table")
    environment.filters["markdown"] = lambda text: Markup(renderer.render(text))
    return environment


def _markdown() -> Environment:
    """Escapes all values for Markdown. The filter `safe` passes a value unchanged."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=False,
        finalize=lambda value: value if isinstance(value, Markup) else escape_markdown(str(value)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment


def escape_markdown(text: str) -> str:
    """The text on one line with all markup characters escaped, so that Markdown shows it unchanged, also in tables."""
    return re.sub(r"([\\`*_\[\]<>|&~])", r"\\\1", " ".join(text.split()))
