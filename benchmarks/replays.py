"""Replays: the number of calls that each method needs on recorded returns, over hundreds of studies.

`python -m benchmarks.replays` writes `benchmarks/results/replays.md` and `replays.svg`. A method's curve is
the mean over its replays of the pick's true mean, as a share of the best candidate's.
"""

import argparse
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.chart import Curve, chart
from benchmarks.ground import Method, OutOfCalls, pick_at
from benchmarks.methods import lab_race
from benchmarks.peers import PEERS
from benchmarks.table import Table, TableGround, load_table

Floats = NDArray[np.float64]

RESULTS = Path("benchmarks/results")
REPLAYS, MOST_CALLS = 500, 1600
ENOUGH = 0.95
BOOTSTRAPS = 2000
LAB = "lab"
METHODS: dict[str, Method] = {
    LAB: lab_race.run,
    f"{LAB}, 32 in flight": lab_race.run_32,
    **{name: peer.method() for name, peer in PEERS.items() if not peer.live_only},
}


def replay(method: Method, table: Table, seed: int, calls: int = MOST_CALLS) -> Floats:
    """The pick's true mean as a share of the best one, after each episode."""
    ground = TableGround(table, seed, calls)
    with suppress(OutOfCalls):
        method(ground)
    best, step = max(table.true_means.values()), table.experiment.task.max_steps
    marks = range(step, calls + 1, step)
    return np.array([table.true_mean(pick_at(ground.picks, mark).candidate) / best for mark in marks])


def calls_needed(curves: Floats, step: int) -> float:
    """Calls until the mean curve first reaches ENOUGH; infinite if it never does."""
    reached = np.flatnonzero(curves.mean(axis=0) >= ENOUGH)
    return float((reached[0] + 1) * step) if len(reached) else float("inf")


def bootstrapped(curves: Floats, step: int, rng: np.random.Generator) -> Floats:
    """`calls_needed` for resampled replays."""
    rows = rng.integers(len(curves), size=(BOOTSTRAPS, len(curves)))
    return np.array([calls_needed(curves[drawn], step) for drawn in rows])


def report(table: Table, curves: Mapping[str, Floats], rng: np.random.Generator) -> str:
    """The Markdown table, best method first."""
    step, truth = table.experiment.task.max_steps, np.array(list(table.true_means.values()))
    needed = {name: calls_needed(each, step) for name, each in curves.items()}
    drawn = {name: bootstrapped(each, step, rng) for name, each in curves.items()}
    rival = min((name for name in needed if not name.startswith(LAB)), key=lambda name: needed[name])
    episodes = min(map(len, table.episodes.values()))
    lines = [
        f"{len(truth)} candidates with at least {episodes} episodes each; {REPLAYS} replays per method; 95 %"
        f" intervals by bootstrap over replays. {(truth >= ENOUGH * truth.max()).sum()} candidates reach"
        f" {ENOUGH:.0%} of the best true mean, {truth.max():.0f}.",
        "",
        f"| method | calls to {ENOUGH:.0%} of the best | relative to {rival} | share at 200 / 400 / 800 |",
        "|---|---:|---:|---:|",
    ]
    for name in sorted(needed, key=lambda name: needed[name]):
        share = f"{needed[name] / needed[rival]:.2f} {_interval(drawn[name] / drawn[rival], '.2f')}"
        at = " / ".join(f"{curves[name][:, calls // step - 1].mean():.3f}" for calls in (200, 400, 800))
        lines.append(f"| {name} | {needed[name]:.0f} {_interval(drawn[name], '.0f')} | {share} | {at} |")
    return "\n".join(lines) + "\n"


def _interval(values: Floats, form: str) -> str:
    low, high = np.quantile(values, [0.025, 0.975], method="inverted_cdf")
    return f"[{low:{form}}, {high:{form}}]"


def _curve(name: str, curves: Floats, step: int) -> Curve:
    mean, half = curves.mean(axis=0), 1.96 * curves.std(axis=0, ddof=1) / np.sqrt(len(curves))
    calls = [float((number + 1) * step) for number in range(len(mean))]
    return Curve(name, calls, mean.tolist(), (mean - half).tolist(), (mean + half).tolist())


def main() -> None:
    """Replay every method, and write table and picture."""
    table, curves = load_table(), dict[str, Floats]()
    for name, method in METHODS.items():
        sys.stderr.write(f"{name}\n")
        curves[name] = np.array([replay(method, table, seed) for seed in range(REPLAYS)])
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "replays.md").write_text(report(table, curves, np.random.default_rng(0)))
    lines = [_curve(name, each, table.experiment.task.max_steps) for name, each in curves.items()]
    title = f"True mean return of the pick, as a share of the best's; mean of {REPLAYS} replays, 95 % band"
    (RESULTS / "replays.svg").write_text(chart(lines, title, "LLM calls", (0.6, 1.0)))


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    main()
