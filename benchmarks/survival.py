"""A table of what a study survives: kills, failing calls, dead workers, load, damaged files, any Unicode.

`python -m benchmarks.survival` takes about 25 minutes and writes `benchmarks/results/survival.md`.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks import endings, failing, fuzz, interruptions, kills, load, workers
from benchmarks.figures import Row, table

RESULT = Path(__file__).parent / "results/survival.md"
LONG = 100_000

PARTS: dict[str, Callable[[], list[Row]]] = {
    "kills": kills.measure,
    "interruptions": interruptions.measure,
    "endings": endings.measure,
    "failing": failing.measure,
    "workers": workers.measure,
    "load": lambda: load.measure(LONG),
    "fuzz": fuzz.measure,
}


def main() -> None:
    """Measure everything, and write the table."""
    rows = list[Row]()
    for name, measure in PARTS.items():
        sys.stderr.write(f"{name} ...\n")
        rows += measure()
    RESULT.write_text(f"Made by `python -m benchmarks.survival`.\n\n{table(rows)}\n", encoding="utf-8")


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    main()
