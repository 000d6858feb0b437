"""Simulated studies with a known truth: false gains, wrong drops, and the time of a choice.

`python -m benchmarks.simulated` writes `benchmarks/results/simulated.md` in about ten minutes.
"""

import argparse
import json
import random
import re
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from benchmarks.ground import Ground, Ledger, Method, OutOfCalls, Pick
from benchmarks.methods import lab_race
from benchmarks.peers import PEERS
from lab.agent.candidate import Candidate
from lab.agent.episode import Episode
from lab.agent.evaluation import Evaluation, Trial
from lab.agent.step import Step
from lab.experiment.experiment import Experiment, load_experiment
from lab.experiment.objective import Objective
from lab.search.points import at_random
from lab.stats.format import estimate_text
from lab.stats.intervals import t_interval
from lab.verdict.verdict import confirm, finalists, judge

RESULTS = Path("benchmarks/results/simulated.md")
GRID, ECHO = Path("benchmarks/echo_grid.toml"), Path("experiments/echo.toml")
STUDIES, SEARCH, CONFIRMED, HOLDOUT = 200, 100, (3, 8), 16
GAIN = 0.05
"""Minimum gain over the baseline that counts as a peer's claim; returns are between 0 and 1."""

BASELINE_EPISODES = 20
LIVE, SHUFFLED = Path("benchmarks/results/grounds.jsonl"), "reasoning-needle_haystack"


@cache
def shuffled() -> Sequence[float]:
    """The sealed returns of all runs of the live comparison on one ground, whoever earned them."""
    lines = map(json.loads, LIVE.read_text().splitlines())
    here = [line for line in lines if line["ground"] == SHUFFLED]
    return [earned / line["task"]["max_return"] for line in here for earned in line["holdout"]]


Noise = Callable[[random.Random], float]
NOISES: dict[str, Noise] = {
    "normal": lambda rng: rng.gauss(0.5, 0.2),
    "coin": lambda rng: float(rng.random() < 0.5),
    "lognormal": lambda rng: rng.lognormvariate(-1, 0.8),
    "Student t, 3 df": lambda rng: 0.5 + 0.1 * rng.gauss(0, 1) / (rng.gammavariate(1.5, 2 / 3) ** 0.5),
    "live returns, shuffled": lambda rng: rng.choice(shuffled()),
}


class EqualGround(Ground):
    """A ground on which all candidates are equal; an episode is one step."""

    can_ask = True
    seeds = range(10_000)

    def __init__(self, experiment: Experiment, noise: Noise, seed: int, budget_calls: int) -> None:
        self.experiment, self.seed, self.budget_calls = experiment, seed, budget_calls
        self.picks = [Pick(0, experiment.baseline)]
        self.returns = defaultdict[Candidate, list[float]](list)
        self._noise, self._rng, self._ledger = noise, random.Random(seed), Ledger(budget_calls)

    @property
    def calls(self) -> int:
        """Number of calls spent so far."""
        return self._ledger.spent

    def play(self, candidate: Candidate, seeds: Sequence[int]) -> list[Episode]:
        """Return episodes whose returns are noise."""
        self._ledger.promise(len(seeds))
        self._ledger.settle(len(seeds), len(seeds))
        episodes = [self.unseen(seed) for seed in seeds]
        self.returns[candidate] += [episode.episode_return for episode in episodes]
        return episodes

    def unseen(self, seed: int) -> Episode:
        """One more episode, which is not counted."""
        return Episode(seed, "", (Step(1, "", "", self._noise(self._rng), True),))

    def ask(self, prompt: str) -> str:
        """Return a different but equally good text, in the requested form."""
        self._ledger.promise(1)
        self._ledger.settle(1, 1)
        return renewed(prompt, self.calls)


def renewed(prompt: str, number: int) -> str:
    """A proposing model's answer to GEPA, DSPy, MIPROv2 or CAPO: a new text in their form."""
    text = f"Write at length, {number}."
    if '"new_instruction"' in prompt:
        return json.dumps({"new_instruction": text})
    if asked := re.search(r"starting with the field `(\[\[ ## \w+ ## \]\])`", prompt):
        return f"{asked[1]}\n{text}\n\n[[ ## completed ## ]]"
    if "<prompt>" in prompt:
        return f"<prompt>{text}</prompt>"
    return f"```\n{text}\n```"


def searched(method: Method, noise: Noise, seed: int) -> EqualGround:
    """Run a method's search among equal candidates."""
    experiment = load_experiment(GRID)
    ground = EqualGround(replace(experiment, task=replace(experiment.task, max_steps=1)), noise, seed, SEARCH)
    with suppress(OutOfCalls):
        method(ground)
    return ground


def reported_gain(method: Method, noise: Noise, seed: int) -> bool:
    """Whether the pick's mean, as the method recorded it, exceeds the baseline's by GAIN or more."""
    ground = searched(method, noise, seed)
    pick, baseline = ground.picks[-1].candidate, ground.experiment.baseline
    if replace(pick, template=replace(pick.template, name=baseline.template.name)) == baseline:
        return False  # the initial texts, under another name
    known = ground.returns.get(baseline, [])
    known = known + [ground.unseen(0).episode_return for _ in range(BASELINE_EPISODES - len(known))]
    return statistics.fmean(ground.returns[pick]) - statistics.fmean(known) >= GAIN


def verdict_gain(noise: Noise, seed: int) -> bool:
    """Whether the lab's whole study claims a gain: race, confirmation of the top few, sealed holdout."""
    ground = searched(lab_race.run, noise, seed)
    task = ground.experiment.task

    def played(candidate: Candidate, episodes: int) -> Evaluation:
        return Evaluation(candidate, task, tuple(ground.unseen(number) for number in range(episodes)))

    best = list(dict.fromkeys(pick.candidate for pick in reversed(ground.picks)))[: CONFIRMED[0]]
    trials = [Trial(number, played(candidate, 1)) for number, candidate in enumerate(best)]
    confirmed = confirm([(trial, played(trial.candidate, CONFIRMED[1])) for trial in trials], 0.95)
    last = finalists(confirmed, Objective(), 1)
    held_out = [(trial, played(trial.candidate, HOLDOUT)) for trial in last]
    baseline = played(ground.experiment.baseline, HOLDOUT)
    return judge(confirmed, baseline, held_out, Objective(), 0.95).winner is not None


def wrongly_dropped(noise: Noise, seed: int) -> bool:
    """Whether a race among equals drops the one designated as best, which is the hardest case."""
    space, rng = load_experiment(GRID).space, random.Random(seed)
    race = lab_race.a_race(space, seed)
    race.new.enqueue(space.candidate(at_random(space.distributions(), 1, np.random.default_rng(seed))[0]))
    lab_race.play(race, SEARCH, lambda *_: noise(rng))
    return "dropped" in race.study.known[0].user_attrs


def choice_ms(trials: int) -> list[float]:
    """Milliseconds for choosing and reporting an episode, with this many trials in the race."""
    space, rng = load_experiment(ECHO).space, np.random.default_rng(0)
    race = lab_race.a_race(space, 0)
    while len(race.study.known) < trials:
        race.new.enqueue(space.candidate(at_random(space.distributions(), 1, rng)[0]))
    lab_race.play(race, trials, lambda *_: float(rng.normal(500, 80)))
    taken = list[float]()
    for _ in range(50):
        began = time.perf_counter()
        lab_race.play(race, 1, lambda *_: float(rng.normal(500, 80)))
        taken.append((time.perf_counter() - began) * 1000)
    return taken


def share(happened: Iterable[bool]) -> str:
    """A rate with its 95 % Wilson interval."""
    outcomes = list(happened)
    n, p, z = len(outcomes), sum(outcomes) / len(outcomes), 1.96
    middle, half = p + z * z / (2 * n), z * ((p * (1 - p) + z * z / (4 * n)) / n) ** 0.5
    low, high = (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)
    return f"{p:.1%} [{low:.1%}, {high:.1%}]"


def rates(rate: Callable[[Noise, int], bool]) -> str:
    """A table row's cells: the rate under each noise."""
    return " | ".join(share(rate(noise, seed) for seed in range(STUDIES)) for noise in NOISES.values())


def main() -> None:
    """Simulate, and write the tables."""
    head = f"| | {' | '.join(NOISES)} |\n|---|{'---:|' * len(NOISES)}\n"
    claims = "## All candidates equal: share of studies that claim a gain"
    lines = [f"{STUDIES} studies each; 95 % Wilson intervals.\n\n{claims}\n\n{head}"]
    lines.append(f"| lab, its verdict | {rates(verdict_gain)} |\n")
    for name, peer in PEERS.items():
        if name not in ("lab", "baseline"):
            sys.stderr.write(f"{name}\n")
            method = peer.method()
            row = rates(lambda noise, seed, method=method: reported_gain(method, noise, seed))  # type: ignore[misc]
            lines.append(f"| {name}, its best minus the baseline is 0.05 or more | {row} |\n")
    lines.append(
        f"\n## All equal: the designated best is dropped (limit: {lab_race.ERROR_RATE:.0%})\n\n{head}"
    )
    lines.append(f"| lab | {rates(wrongly_dropped)} |\n")
    lines.append("\n## Time of choosing and recording an episode\n\n| trials | mean, ms |\n|---:|---:|\n")
    sizes = (100, 1000, 10_000)
    for trials in sizes:
        took = t_interval(choice_ms(trials), 0.95)
        lines.append(f"| {trials} | {estimate_text(took)} n={took.n} |\n")
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text("".join(lines))


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    main()
