"""The table of recorded returns, and a Ground on it: a study on recorded episodes costs no model call.

It owns the file's form as `benchmarks.record` writes it, and the order in which a replay is given a
candidate's episodes.
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

from benchmarks.ground import Ledger
from lab.agent.candidate import Candidate
from lab.agent.episode import Episode
from lab.agent.step import Step
from lab.experiment.experiment import Experiment, load_experiment
from lab.llm.client import Completion

GRID = Path("benchmarks/grid.toml")
TABLE = Path("benchmarks/table/echo.jsonl.gz")
REWARD_PER_CHARACTER = 0.1
SEEDS = range(10_000)


@dataclass(frozen=True)
class Table:
    """Every candidate's recorded episodes.

    Attributes:
        experiment: the one that was recorded; its space holds these candidates and no other.
    """

    experiment: Experiment
    episodes: Mapping[Candidate, tuple[Episode, ...]]

    @cached_property
    def candidates(self) -> tuple[Candidate, ...]:
        """Those that were played, in the table's order."""
        return tuple(self.episodes)

    @cached_property
    def true_means(self) -> Mapping[Candidate, float]:
        """Each candidate's mean return over all its recorded episodes: what a replay takes for the truth."""
        return {
            candidate: fmean(episode.episode_return for episode in episodes)
            for candidate, episodes in self.episodes.items()
        }

    def true_mean(self, candidate: Candidate) -> float:
        """One candidate's."""
        return self.true_means[candidate]


def load_table(path: Path = TABLE, grid: Path = GRID) -> Table:
    """Read a table, packed or still in the making."""
    experiment = load_experiment(grid)
    text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()
    # The last line of a recording that goes on may be torn.
    rows = [json.loads(line) for line in text.splitlines() if line.endswith("}")]
    if "candidates" in rows[0]:
        candidates = [_candidate(experiment, settings) for settings in rows.pop(0)["candidates"]]
    else:
        from benchmarks.record import grid as recorded

        candidates = list(recorded(experiment))
    episodes = defaultdict[int, list[Episode]](list)
    for row in rows:
        episodes[row["candidate"]].append(_episode(row))
    return Table(experiment, {candidates[index]: tuple(episodes[index]) for index in sorted(episodes)})


def _candidate(experiment: Experiment, settings: Mapping[str, Any]) -> Candidate:
    return experiment.space.candidate({name: settings[name] for name in experiment.space.free})


def _episode(row: Mapping[str, Any]) -> Episode:
    columns = zip(row["characters"], row["tokens_in"], row["tokens_out"], strict=True)
    steps = [
        Step(
            number=number,
            action="",
            observation="",
            reward=characters * REWARD_PER_CHARACTER,
            done=False,
            completion=Completion("", "", tokens_in, tokens_out, 0.0),
        )
        for number, (characters, tokens_in, tokens_out) in enumerate(columns, start=1)
    ]
    return Episode(row["seed"], "", tuple(steps))


class TableGround:
    """One replay: each candidate's episodes come in an order of the replay's own, then with replacement."""

    can_ask = False

    def __init__(self, table: Table, seed: int, budget_calls: int) -> None:
        self.table, self.experiment, self.seed = table, table.experiment, seed
        self.seeds, self.budget_calls = SEEDS, budget_calls
        self.picks: list[tuple[int, Candidate]] = [(0, table.experiment.baseline)]
        self._ledger, self._rng = Ledger(budget_calls), random.Random(f"table {seed}")
        self._next: dict[Candidate, Callable[[], Episode]] = {}

    @property
    def calls(self) -> int:
        """Spent so far."""
        return self._ledger.spent

    def play(self, candidate: Candidate, seeds: Sequence[int]) -> list[Episode]:
        """The candidate's next recorded episodes, under the seeds asked for: the echo has no use for one.

        Raises:
            OutOfCalls: the budget does not allow the whole of it.
            KeyError: the candidate is not in the table.
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
        """Nobody is there to ask.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(f"a table proposes no texts; asked: {prompt[:80]}")

    def choose(self, candidate: Candidate) -> None:
        """Note the pick."""
        self.picks.append((self.calls, candidate))

    def _shuffled(self, candidate: Candidate) -> Callable[[], Episode]:
        recorded = self.table.episodes[candidate]
        order = self._rng.sample(recorded, len(recorded))

        def draw() -> Episode:
            return order.pop() if order else self._rng.choice(recorded)

        self._next[candidate] = draw
        return draw
