"""Tables of recorded returns, and a Ground on one: a study on recorded episodes makes no model calls.

It owns the files' format, which `benchmarks.record` writes, and the order of a candidate's episodes in a
replay.
"""

import gzip
import json
import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.ground import Ground, Ledger, Pick
from lab.agent.candidate import Candidate
from lab.agent.episode import Episode
from lab.agent.step import Step
from lab.experiment.experiment import Experiment, load_experiment
from lab.llm.client import Completion

FOLDER = Path("benchmarks")
TABLES = ("echo", "reasoning")
SEEDS = range(10_000)


@dataclass(frozen=True)
class Table:
    """Every candidate's recorded episodes.

    Attributes:
        experiment: The recorded experiment, whose space has exactly these candidates.
    """

    experiment: Experiment
    episodes: Mapping[Candidate, tuple[Episode, ...]]

    @cached_property
    def candidates(self) -> tuple[Candidate, ...]:
        """The recorded candidates, in the table's order."""
        return tuple(self.episodes)

    @cached_property
    def true_means(self) -> Mapping[Candidate, float]:
        """Each candidate's mean return over all its recorded episodes, the truth of a replay."""
        return {
            candidate: fmean(episode.episode_return for episode in episodes)
            for candidate, episodes in self.episodes.items()
        }

    def true_mean(self, candidate: Candidate) -> float:
        """The true mean of one candidate."""
        return self.true_means[candidate]


def grid_file(name: str) -> Path:
    """The experiment whose grid a table holds."""
    return FOLDER / f"{name}_grid.toml"


def table_file(name: str) -> Path:
    """The file of a table."""
    return FOLDER / f"table/{name}.jsonl.gz"


def load_table(name: str = "echo") -> Table:
    """Read a table, complete or partial."""
    experiment = load_experiment(grid_file(name))
    first, *lines = gzip.decompress(table_file(name).read_bytes()).decode().splitlines()
    candidates = [_candidate(experiment, settings) for settings in json.loads(first)["candidates"]]
    episodes = defaultdict[int, list[Episode]](list)
    for row in map(json.loads, lines):
        episodes[row["candidate"]].append(_episode(row))
    return Table(experiment, {candidates[index]: tuple(episodes[index]) for index in sorted(episodes)})


def _candidate(experiment: Experiment, settings: Mapping[str, Any]) -> Candidate:
    return experiment.space.candidate({name: settings[name] for name in experiment.space.free})


def _episode(row: Mapping[str, Any]) -> Episode:
    columns = zip(row["rewards"], row["tokens_in"], row["tokens_out"], strict=True)
    steps = [
        Step(
            number=number,
            action="",
            observation="",
            reward=reward,
            done=False,
            completion=Completion("", "", tokens_in, tokens_out, 0.0),
        )
        for number, (reward, tokens_in, tokens_out) in enumerate(columns, start=1)
    ]
    return Episode(row["seed"], "", tuple(steps))


class TableGround(Ground):
    """One replay: each candidate's episodes in a random order, then drawn with replacement."""

    can_ask = False

    def __init__(self, table: Table, seed: int, budget_calls: int) -> None:
        self.table, self.experiment, self.seed = table, table.experiment, seed
        self.seeds, self.budget_calls = SEEDS, budget_calls
        self.picks = [Pick(0, table.experiment.baseline)]
        self._ledger, self._rng = Ledger(budget_calls), random.Random(f"table {seed}")
        self._next: dict[Candidate, Callable[[], Episode]] = {}

    @property
    def calls(self) -> int:
        """Number of calls spent so far."""
        return self._ledger.spent

    def play(self, candidate: Candidate, seeds: Sequence[int]) -> list[Episode]:
        """Return the candidate's next recorded episodes with these seeds, which the echo does not use.

        Raises:
            OutOfCalls: The budget does not allow all of them.
            KeyError: The candidate is not in the table.
        """
        calls = len(seeds) * self.experiment.task.max_steps
        self._ledger.promise(calls)
        draw = self._next.get(candidate) or self._shuffled(candidate)
        drawn = [draw() for _ in seeds]
        self._ledger.settle(calls, calls)
        return [
            Episode(seed, episode.opening, episode.steps) for seed, episode in zip(seeds, drawn, strict=True)
        ]

    def ask(self, prompt: str) -> str:
        """Refuse: there is no proposing model.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError(f"a table proposes no texts; asked: {prompt[:80]}")

    def _shuffled(self, candidate: Candidate) -> Callable[[], Episode]:
        recorded = self.table.episodes[candidate]
        order = self._rng.sample(recorded, len(recorded))

        def draw() -> Episode:
            return order.pop() if order else self._rng.choice(recorded)

        self._next[candidate] = draw
        return draw
