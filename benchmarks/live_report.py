"""The live comparison's table and picture: medians over the runs, with nonparametric intervals.

It owns the report's statistics and form; `benchmarks.live` writes the results.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

LEAST_COVERAGE = 0.9


@dataclass(frozen=True)
class Cell:
    """One method at one budget.

    Attributes:
        middle: Median over the runs of the pick's mean holdout return, in reward.
        coverage: Probability that the interval covers the true median.
        most_calls: Maximum calls of a run.
    """

    middle: float
    low: float
    high: float
    coverage: float
    runs: int
    most_calls: int


Cells = Mapping[tuple[str, int], Cell]


def median_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The narrowest interval of order statistics that covers the median in 90 %, and its coverage.

    By the binomial distribution of the values below the median: Conover, "Practical Nonparametric
    Statistics", section 3.2. If there are too few values, it is their range, with less coverage.
    """
    from scipy.stats import binom

    ranked, count = sorted(values), len(values)
    for cut in range((count - 1) // 2, -1, -1):
        coverage = 1 - 2 * float(binom.cdf(cut, count, 0.5))
        if coverage >= LEAST_COVERAGE or cut == 0:
            return ranked[cut], ranked[-1 - cut], max(coverage, 0.0)
    raise ValueError("the median of no values is undefined")


def cells(lines: Sequence[Mapping[str, Any]]) -> Cells:
    """The table's figures."""
    returns, calls = defaultdict[tuple[str, int], list[float]](list), defaultdict[tuple[str, int], int](int)
    for line in lines:
        key = (line["method"], line["budget"])
        returns[key].append(fmean(line["holdout"]))
        calls[key] = max(calls[key], line["calls"])
    return {
        key: Cell(median(values), *median_interval(values), len(values), calls[key])
        for key, values in returns.items()
    }


def markdown(figures: Cells) -> str:
    """A row per method, a column per budget, with the best median of a column in bold."""
    methods, budgets = _axes(figures)
    best = {
        budget: max(cell.middle for (_, own), cell in figures.items() if own == budget) for budget in budgets
    }
    head = ["| method |", *(f" {budget} calls |" for budget in budgets)]
    rows = ["".join(head), "|---|" + "---|" * len(budgets)]
    for method in methods:
        row = [_cell(figures.get((method, budget)), best[budget]) for budget in budgets]
        rows.append(f"| {method} | " + " | ".join(row) + " |")
    coverage = min(cell.coverage for cell in figures.values())
    rows += ["", f"Median over n runs of the pick's mean holdout return, and its {coverage:.0%} interval."]
    return "\n".join(rows) + "\n"


def _cell(cell: Cell | None, best: float) -> str:
    if cell is None:
        return "-"
    ends = (cell.middle, cell.low, cell.high)
    middle, low, high = (f"{one:.3g}" if one < 10 else f"{one:.1f}" for one in ends)
    if cell.middle == best:
        middle = f"**{middle}**"
    return f"{middle} ({low} to {high}, n = {cell.runs})"


def _axes(figures: Cells) -> tuple[list[str], list[int]]:
    return list(dict.fromkeys(method for method, _ in figures)), sorted({budget for _, budget in figures})


def write_report(lines: Sequence[Mapping[str, Any]], folder: Path, name: str) -> None:
    """Write the table and the picture, `name` with `.md` and `.svg`."""
    figures = cells(lines)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.md").write_text(markdown(figures))
    draw(figures, folder / f"{name}.svg")


def draw(figures: Cells, path: Path) -> None:
    """Draw medians and intervals over the budgets, with the methods side by side."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "live"  # the same results give the same file
    import matplotlib.pyplot as plt

    methods, budgets = _axes(figures)
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for place, method in enumerate(methods):
        own = [
            (at, figures[method, budget]) for at, budget in enumerate(budgets) if (method, budget) in figures
        ]
        shift = (place - (len(methods) - 1) / 2) * 0.8 / len(methods)
        middles = [cell.middle for _, cell in own]
        below = [cell.middle - cell.low for _, cell in own]
        above = [cell.high - cell.middle for _, cell in own]
        axes.errorbar(
            [at + shift for at, _ in own], middles, [below, above], fmt="o", capsize=3, label=method
        )
    axes.set_xticks(range(len(budgets)), [str(budget) for budget in budgets])
    axes.set_xlabel("model calls")
    axes.set_ylabel("holdout return of the pick (median of the runs)")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(fontsize="small", ncols=2)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
