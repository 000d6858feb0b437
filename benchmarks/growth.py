"""How the cost of finding a good candidate grows with their number, from 10 to 10,000, with a known truth.

`python -m benchmarks.growth` writes `benchmarks/results/growth.md` in about ten minutes. Two truths: one in
which each setting has a separate effect, as with prompts and sampling, and one in which candidates are
unrelated, where no method can do better than trying them.
"""

import argparse
import itertools
import random
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.ground import Ground, Ledger, Method, OutOfCalls, Pick, pick_at
from benchmarks.methods import lab_race
from benchmarks.peers import PEERS
from lab.agent.candidate import Candidate
from lab.agent.episode import Episode
from lab.agent.step import Step
from lab.agent.template import PromptTemplate
from lab.experiment.experiment import Experiment, load_experiment
from lab.experiment.space import Choices, Space

RESULTS = Path("benchmarks/results/growth.md")
SIZES, VALUES = (10, 100, 1_000, 10_000), 10
MEAN, SPREAD, NOISE, OWN = 400.0, 100.0, 65.0, 0.1
"""Returns as in the recorded table; OWN is the share of variance not explained by single settings."""

EPISODES, STUDIES, ENOUGH = 400, 40, 0.9
METHODS: dict[str, Method] = {
    "lab": lab_race.run,
    "optuna": PEERS["optuna"].method(),
    "random": PEERS["random"].method(),
}


class KnownGround(Ground):
    """A ground whose candidates have known means; an episode is one step, and one call."""

    can_ask = False
    seeds = range(10_000)

    def __init__(self, size: int, seed: int, *, effects: bool) -> None:
        self.experiment, self.seed, self.budget_calls = _experiment(size), seed, EPISODES
        self.truth = _truth(self.experiment.space, np.random.default_rng(seed), effects=effects)
        self.picks = [Pick(0, self.experiment.baseline)]
        self._rng, self._ledger = random.Random(seed), Ledger(EPISODES)

    @property
    def calls(self) -> int:
        """Number of calls spent so far."""
        return self._ledger.spent

    def play(self, candidate: Candidate, seeds: Sequence[int]) -> list[Episode]:
        """Return the candidate's mean with noise."""
        self._ledger.promise(len(seeds))
        self._ledger.settle(len(seeds), len(seeds))
        mean = self.truth[candidate]
        return [Episode(seed, "", (Step(1, "", "", self._rng.gauss(mean, NOISE), True),)) for seed in seeds]

    def ask(self, prompt: str) -> str:
        """Refuse: there is no proposing model."""
        raise NotImplementedError(prompt)


def _experiment(size: int) -> Experiment:
    """An experiment with `size` candidates: up to four settings of ten values each."""
    known = load_experiment(Path("benchmarks/echo_grid.toml"))
    texts = {f"t{i}": PromptTemplate(f"t{i}", f"system {i}", "turn") for i in range(VALUES)}
    steps = tuple(round(0.1 * i, 1) for i in range(VALUES))
    names = ("template", "temperature", "frequency_penalty", "presence_penalty")
    free = dict(zip(names, (Choices(tuple(texts)), *(Choices(steps),) * 3), strict=True))
    free = dict(itertools.islice(free.items(), round(np.log10(size))))
    baseline = Candidate(texts["t0"], replace(known.baseline.sampling, temperature=0.0))
    space = Space(free, baseline, texts)
    return replace(known, space=space, baseline=baseline, task=replace(known.task, max_steps=1))


def _truth(space: Space, rng: np.random.Generator, *, effects: bool) -> dict[Candidate, float]:
    """The mean return of every candidate."""
    lists = [dimension.values for dimension in space.free.values() if isinstance(dimension, Choices)]
    shape = tuple(map(len, lists))
    mean = rng.normal(size=shape) * (OWN**0.5 if effects else 1.0)
    if effects:
        for axis, length in enumerate(shape):
            sizes = [1] * len(shape)
            sizes[axis] = length
            mean += rng.normal(size=sizes) * ((1 - OWN) / len(shape)) ** 0.5
    candidates = (
        space.candidate(dict(zip(space.free, values, strict=True))) for values in itertools.product(*lists)
    )
    return dict(zip(candidates, (MEAN + SPREAD * mean).ravel().tolist(), strict=True))


def shares(method: Method, size: int, *, effects: bool) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """The pick's position from mean (0) to best (1) after each episode, averaged over studies."""
    rows = []
    for seed in range(STUDIES):
        ground = KnownGround(size, seed, effects=effects)
        with suppress(OutOfCalls):
            method(ground)
        values = np.array(list(ground.truth.values()))
        picked = [ground.truth[pick_at(ground.picks, spent).candidate] for spent in range(1, EPISODES + 1)]
        rows.append((np.array(picked) - values.mean()) / (values.max() - values.mean()))
    mean: np.ndarray[tuple[int], np.dtype[np.float64]] = np.mean(rows, axis=0)
    return mean


def cell(curve: np.ndarray[tuple[int], np.dtype[np.float64]]) -> str:
    """Episodes until the curve reaches ENOUGH, and its last value."""
    reached = np.flatnonzero(curve >= ENOUGH)
    episodes = str(reached[0] + 1) if len(reached) else f"over {EPISODES}"
    return f"{episodes} ({curve[-1]:.2f})"


def main() -> None:
    """Simulate, and write the tables."""
    lines = [
        f"Episodes until the pick has gone {ENOUGH:.0%} of the way from the mean of all candidates to the"
        f" best one, averaged over {STUDIES} studies (in brackets: the share after {EPISODES} episodes)."
        f" Standard deviation of candidates {SPREAD:.0f}, of episodes {NOISE:.0f}.\n"
    ]
    titles = {True: f"Settings have effects ({1 - OWN:.0%} of the spread)", False: "No structure at all"}
    for effects, title in titles.items():
        head = " | ".join(f"{size:,}" for size in SIZES)
        lines.append(f"\n## {title}\n\n| candidates | {head} |\n|---|{'---:|' * len(SIZES)}\n")
        for name, method in METHODS.items():
            sys.stderr.write(f"{title}: {name}\n")
            row = " | ".join(cell(shares(method, size, effects=effects)) for size in SIZES)
            lines.append(f"| {name} | {row} |\n")
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text("".join(lines))


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    main()
