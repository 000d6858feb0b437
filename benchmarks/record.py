"""Records a table: every candidate of a grid, played on the grid's model.

`python -m benchmarks.record [NAME]` plays the grid of `benchmarks/NAME_grid.toml` (`echo`: two hours on 2
cores; `reasoning`: one), and writes `benchmarks/table/NAME.jsonl.gz`. It can be stopped and resumed: recorded
episodes are not repeated.
"""

import argparse
import asyncio
import gzip
import itertools
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.table import TABLES, grid_file, table_file
from lab.agent.candidate import Candidate
from lab.agent.episode import Episode
from lab.environments.config import choose_environment
from lab.environments.environment import open_environment
from lab.experiment.budget import Spending
from lab.experiment.experiment import Experiment, load_experiment
from lab.experiment.space import Choices
from lab.llm.launch import open_endpoint, opening_model
from lab.llm.settings import choose_model, read_surroundings
from lab.search.player import Player

EPISODES = 24


def grid(experiment: Experiment) -> Iterator[Candidate]:
    """Every candidate of a space of lists, in a fixed order."""
    names = list(experiment.space.free)
    lists = [
        dimension.values for dimension in experiment.space.free.values() if isinstance(dimension, Choices)
    ]
    for values in itertools.product(*lists):
        yield experiment.space.candidate(dict(zip(names, values, strict=True)))


@dataclass(frozen=True)
class Recording:
    """A table that is being recorded."""

    name: str
    experiment: Experiment

    async def record(self) -> None:
        """Play the missing episodes seed by seed, so that a partial table is useful."""
        experiment = self.experiment
        done = {(row["candidate"], row["seed"]) for row in map(json.loads, self._lines())}
        candidates = list(grid(experiment))
        owed = [
            (index, seed)
            for seed in range(EPISODES)
            for index in range(len(candidates))
            if (index, seed) not in done
        ]
        sys.stderr.write(f"{len(owed)} episodes of {len(candidates)} candidates to play\n")
        with opening_model(choose_model(experiment.model)) as opening:
            async with (
                open_environment(choose_environment(experiment.environment)) as environment,
                open_endpoint(opening, experiment.patience) as endpoint,
            ):
                in_flight = experiment.search.in_flight
                player = Player(endpoint, environment, experiment.task, in_flight, Spending())
                async with asyncio.TaskGroup() as group:
                    for index, seed in owed:
                        await player.room()
                        group.create_task(self._one(player, candidates[index], index, seed))

    def pack(self) -> None:
        """Write the candidates' settings in the first line, then a line per episode."""
        rows = sorted(map(json.loads, self._lines()), key=lambda row: (row["candidate"], row["seed"]))
        settings = [candidate.settings for candidate in grid(self.experiment)]
        text = "\n".join(json.dumps(row) for row in [{"candidates": settings}, *rows]) + "\n"
        table_file(self.name).write_bytes(gzip.compress(text.encode(), mtime=0))

    async def _one(self, player: Player, candidate: Candidate, index: int, seed: int) -> None:
        episode = await player.episode(candidate, seed)
        if not isinstance(episode, Episode):
            return
        row = {
            "candidate": index,
            "seed": seed,
            "rewards": [round(step.reward, 6) for step in episode.steps],
            "tokens_in": [completion.prompt_tokens for completion in episode.completions],
            "tokens_out": [completion.completion_tokens for completion in episode.completions],
        }
        await asyncio.to_thread(self._append, json.dumps(row) + "\n")

    @property
    def _raw(self) -> Path:
        return Path(f".lab/table-{self.name}.jsonl")

    def _append(self, line: str) -> None:
        with self._raw.open("a", encoding="utf-8") as out:
            out.write(line)

    def _lines(self) -> list[str]:
        """The recorded lines: of an unfinished recording, else of the committed table."""
        if self._raw.exists():
            return self._raw.read_text(encoding="utf-8").splitlines()
        if not (table := table_file(self.name)).exists():
            return []
        lines = gzip.decompress(table.read_bytes()).decode().splitlines()[1:]
        self._raw.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return lines


def main() -> None:
    """Record, and write the table, also when stopped early."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.record", description=__doc__)
    parser.add_argument("name", nargs="?", choices=TABLES, default="echo")
    name = parser.parse_args().name
    recording = Recording(name, load_experiment(grid_file(name)))
    read_surroundings(Path())
    Path(".lab").mkdir(exist_ok=True)
    try:
        asyncio.run(recording.record())
    except KeyboardInterrupt:
        sys.stderr.write("Stopped; recorded episodes are kept.\n")
    finally:
        recording.pack()


if __name__ == "__main__":
    main()
