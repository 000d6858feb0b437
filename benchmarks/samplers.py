"""The lab's loop with its own and with Optuna's samplers and pruners, on recorded returns.

`python -m benchmarks.samplers` writes `benchmarks/results/samplers.md`. Only the sampler and the pruner
differ; the pruner's kind decides between rungs and single episodes. Without torch, `gp` is left out.
"""

import argparse
import sys
import warnings
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec

import numpy as np
import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler

from benchmarks.methods import lab_race
from benchmarks.replays import RESULTS, bootstrapped, calls_needed, replay
from benchmarks.table import load_table

STUDIES, MOST_CALLS = 100, 1600

SAMPLERS: dict[str, Callable[[int], BaseSampler] | None] = {
    "race": None,
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed),
    **({"gp": lambda seed: optuna.samplers.GPSampler(seed=seed)} if find_spec("torch") else {}),
    "cmaes": lambda seed: optuna.samplers.CmaEsSampler(seed=seed),
    "qmc": lambda seed: optuna.samplers.QMCSampler(seed=seed),
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
}
PRUNERS: dict[str, Callable[[], BasePruner] | None] = {
    "race": None,
    "wilcoxon": lambda: optuna.pruners.WilcoxonPruner(),
    "median": lambda: optuna.pruners.MedianPruner(),
    "none": lambda: optuna.pruners.NopPruner(),
}
PAIRS = [
    *[(sampler, "race") for sampler in SAMPLERS],
    *[("race", pruner) for pruner in PRUNERS if pruner != "race"],
    ("tpe", "wilcoxon"),
    ("tpe", "none"),
]


def main() -> None:
    """Replay every pair, and write the table."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    table, rng, rows = load_table(), np.random.default_rng(0), list[tuple[float, str]]()
    step = table.experiment.task.max_steps
    for sampler, pruner in PAIRS:
        sys.stderr.write(f"{sampler}, {pruner}\n")
        method = partial(lab_race.run, make_sampler=SAMPLERS[sampler], make_pruner=PRUNERS[pruner])
        curves = np.array([replay(method, table, seed, MOST_CALLS) for seed in range(STUDIES)])
        needed, drawn = calls_needed(curves, step), bootstrapped(curves, step, rng)
        low, high = np.quantile(drawn, [0.025, 0.975], method="inverted_cdf")
        marks = [curves[:, calls // step - 1] for calls in (200, 400, 800)]
        at = " | ".join(f"{one.mean():.3f} ±{1.96 * one.std(ddof=1) / STUDIES**0.5:.3f}" for one in marks)
        rows.append((needed, f"| {sampler} | {pruner} | {needed:.0f} [{low:.0f}, {high:.0f}] | {at} |"))
    lines = [
        f"{STUDIES} replays of the recorded returns each, one episode in flight; the pick's true mean as a"
        " share of the best's; 95 % intervals.",
        "",
        "| sampler | pruner | calls to 95 % | at 200 calls | 400 | 800 |",
        "|---|---|---:|---:|---:|---:|",
        *[row for _, row in sorted(rows)],
    ]
    (RESULTS / "samplers.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    main()
