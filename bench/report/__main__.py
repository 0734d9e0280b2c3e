"""`python -m bench.report SAMPLES OUT_DIR`: writes index.html, README.md and the plots.

The folder of the samples may contain `about.json` (machine and peers, written by the benchmark) and `explanations.md`,
which explains under `## <key of the goal>` why a goal was missed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bench import samples
from bench.report import About, write
from bench.report.contents import read_explanations


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("samples", type=Path, metavar="SAMPLES", help="a file of samples, one line of JSON each")
    parser.add_argument("out_dir", type=Path, metavar="OUT_DIR", help="folder for the report")
    arguments = parser.parse_args()
    folder = arguments.samples.parent
    try:
        measured = samples.read(arguments.samples)
        about = About.read(folder / "about.json")
        explanations = read_explanations(folder / "explanations.md")
    except (OSError, ValueError) as error:
        parser.error(str(error))
    write(measured, arguments.out_dir, about, explanations)
    print(arguments.out_dir / "index.html")


if __name__ == "__main__":
    main()
