"""The report of a benchmark: a self-contained HTML page, and a shorter Markdown page with plots.

`about` describes the machine and the peers; `catalogue` has the titles and texts; `formatting` formats numbers;
`tables` and `curves` compute tables and plots from samples; `contents` combines them; `drawing`, `rendering` and
`templates/` write them.
"""

from bench.report.about import About, Machine, PeerFacts
from bench.report.rendering import write

__all__ = ["About", "Machine", "PeerFacts", "write"]
