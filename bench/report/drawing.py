"""Draws plots as SVG: text stays text, ids are unique within a page, and lines follow the page's colour scheme."""

from __future__ import annotations

import io
import math
import re
from typing import Any
from xml.sax.saxutils import quoteattr

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator
from matplotlib.typing import RcKeyType

from bench.report import formatting
from bench.report.curves import Line, Plot

STYLES: dict[str, tuple[str, str]] = {
    "beaconfire": ("#e8590c", "o"),
    "beaconfire-2-workers": ("#f0a202", "h"),
    "centrifugo": ("#4c7ee0", "s"),
    "go-gorilla": ("#1098ad", "D"),
    "node-ws": ("#4f9a2e", "^"),
    "node-socketio": ("#9c8412", "v"),
    "python-socketio": ("#ae5fd0", "P"),
    "channels": ("#d6487e", "X"),
    "websockets": ("#a8683c", "<"),
    "c-loop": ("#868e96", "d"),
}
"""Colour and marker. Every colour is visible on white and on near-black."""

_OTHER_STYLE = ("#868e96", ">")
_INK = "#010203"  # a placeholder for the colour of the surrounding text; replaced at the end
_PLACES_NAMED_MAX = 6
_LOGARITHMIC_FROM = 20.0
_DECADES_FOR_FEW_TICKS = 2.5
_SETTINGS: dict[RcKeyType, Any] = {
    "svg.fonttype": "none",
    "font.size": 9,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
_STANDALONE = (
    "<style>svg{color:#23262b;background:#fff}"
    "@media(prefers-color-scheme:dark){svg{color:#d7dae0;background:#15181d}}</style>"
)


def draw(plot: Plot) -> str:
    """The plot as an `<svg>` element for a page; `standalone` makes a file from it."""
    with mpl.rc_context({**_SETTINGS, "svg.hashsalt": plot.name}):
        legend_rows = (len(plot.lines) + 1) // 2
        figure = Figure(figsize=(5.4, 3.1 + 0.2 * legend_rows), layout="constrained")
        axes = figure.add_subplot()
        for number, line in enumerate(plot.lines):
            _draw_line(axes, line, second=any(line.peer == other.peer for other in plot.lines[:number]))
        _shape_axes(axes, plot)
        figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8.5, handlelength=2.4)
        stream = io.StringIO()
        FigureCanvasSVG(figure).print_svg(stream, metadata={"Date": None})  # type: ignore[no-untyped-call]
    return _trim(stream.getvalue(), plot)


def standalone(svg: str) -> str:
    """An `<svg>` element as the text of a file, with its own colours for light and dark mode."""
    head, _, rest = svg.partition(">")
    return f"{head}>{_STANDALONE}{rest}\n"


def _draw_line(axes: Axes, line: Line, second: bool) -> None:
    colour, marker = STYLES.get(line.peer, _OTHER_STYLE)
    ours = line.peer == "beaconfire"
    axes.plot(
        [place for place, _ in line.points],
        [value for _, value in line.points],
        color=colour,
        marker=marker,
        markersize=4.5,
        markeredgewidth=0,
        linewidth=2.4 if ours else 1.4,
        linestyle="--" if second else "-",
        zorder=3 if ours else 2,
        label=line.label,
    )


def _shape_axes(axes: Axes, plot: Plot) -> None:
    places = sorted({place for line in plot.lines for place, _ in line.points})
    values = [value for line in plot.lines for _, value in line.points]
    axes.set_xscale("log")
    if len(places) <= _PLACES_NAMED_MAX:
        axes.xaxis.set_major_locator(FixedLocator(places))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: formatting.count(value)))
    lowest, highest = min(values), max(values)
    if lowest > 0 and highest / lowest >= _LOGARITHMIC_FROM:
        axes.set_yscale("log")
        decades = math.log10(highest / lowest)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < _DECADES_FOR_FEW_TICKS else (1,)))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(0, highest * 1.1 or 1)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: formatting.tick(plot.metric, value)))
    axes.set_xlabel(plot.axis)
    axes.grid(axis="y", color=_INK, alpha=0.15, linewidth=0.7)
    axes.tick_params(length=3)


def _trim(svg: str, plot: Plot) -> str:
    """Removes the prologue, metadata and unused ids, and makes the other ids unique with the name of the plot."""
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    used = set(re.findall(r"(?:href=\"#|url\(#)([^\")]+)", svg))
    svg = re.sub(r' id="([^"]+)"', lambda m: f' id="{plot.name}-{m[1]}"' if m[1] in used else "", svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\g<1>{plot.name}-", svg)
    svg = re.sub(r"font-family: [^;\"]*", "font-family: system-ui, sans-serif", svg)
    svg = re.sub(r"(font: [^;\"]*?px) [^;\"]*", r"\1 system-ui, sans-serif", svg)
    svg = re.sub(r' transform="rotate\(-0 [^"]*"', "", svg)
    svg = svg.replace(_INK, "currentColor")
    svg = re.sub(r' (?:width|height)="[\d.]+pt"', "", svg, count=2)
    return svg.replace("<svg", f'<svg role="img" aria-label={quoteattr(plot.title)}', 1)
