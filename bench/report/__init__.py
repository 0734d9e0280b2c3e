"""The report of a benchmark: a page of HTML that needs nothing else, and the same in short as Markdown with plots.

`about` is what is known besides the samples; `catalogue` the words; `human` writes numbers; `tables` and `curves` turn
samples into what is shown, `contents` puts it together; `drawing` and `templates/` only show it.
"""

from bench.report.about import About, Machine, PeerFacts
from bench.report.writing import write

__all__ = ["About", "Machine", "PeerFacts", "write"]
