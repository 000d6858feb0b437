"""Records the table: every candidate of a grid, played on the embedded model.

`python -m benchmarks.record` takes about two hours on 2 cores, and writes `benchmarks/table/echo.jsonl.gz`.
It can be stopped and resumed: recorded episodes are not repeated.
"""

import asyncio
import gzip
import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from lab.agent.candidate import Candidate
from lab.agent.episode import Episode
from lab.environments.config import choose_environment
from lab.environments.environment import open_environment
from lab.experiment.budget import Spending
from lab.experiment.experiment import Experiment, load_experiment
from lab.experiment.space import Choices
from lab.llm.launch import open_endpoint, opening_model
from lab.llm.settings import choose_model
from lab.search.player import Player

GRID = Path("benchmarks/grid.toml")
RAW = Path(".lab/table.jsonl")
TABLE = Path("benchmarks/table/echo.jsonl.gz")
EPISODES = 24


def grid(experiment: Experiment) -> Iterator[Candidate]:
    """Every candidate of a space of lists, in a fixed order."""
    names = list(experiment.space.free)
    lists = [
        dimension.values for dimension in experiment.space.free.values() if isinstance(dimension, Choices)
    ]
    for values in itertools.product(*lists):
        yield experiment.space.candidate(dict(zip(names, values, strict=True)))


async def record(experiment: Experiment) -> None:
    """Play the missing episodes seed by seed, so that a partial table is useful."""
    done = {(row["candidate"], row["seed"]) for row in map(json.loads, _lines())}
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
                    group.create_task(_one(player, candidates[index], index, seed))


async def _one(player: Player, candidate: Candidate, index: int, seed: int) -> None:
    episode = await player.episode(candidate, seed)
    if not isinstance(episode, Episode):
        return
    row = {
        "candidate": index,
        "seed": seed,
        "characters": [len(step.action) for step in episode.steps],
        "tokens_in": [completion.prompt_tokens for completion in episode.completions],
        "tokens_out": [completion.completion_tokens for completion in episode.completions],
    }
    await asyncio.to_thread(_append, json.dumps(row) + "\n")


def _append(line: str) -> None:
    with RAW.open("a", encoding="utf-8") as out:
        out.write(line)


def _lines() -> list[str]:
    """The recorded lines: of an unfinished recording, else of the committed table."""
    if RAW.exists():
        return RAW.read_text(encoding="utf-8").splitlines()
    if not TABLE.exists():
        return []
    lines = gzip.decompress(TABLE.read_bytes()).decode().splitlines()[1:]
    RAW.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return lines


def main() -> None:
    """Record, and write the table, also when stopped early."""
    experiment = load_experiment(GRID)
    RAW.parent.mkdir(exist_ok=True)
    try:
        asyncio.run(record(experiment))
    except KeyboardInterrupt:
        sys.stderr.write("Stopped; recorded episodes are kept.\n")
    finally:
        _pack(experiment)


def _pack(experiment: Experiment) -> None:
    """Write the candidates' settings in the first line, then a line per episode."""
    rows = sorted(map(json.loads, _lines()), key=lambda row: (row["candidate"], row["seed"]))
    settings = [candidate.settings for candidate in grid(experiment)]
    text = "\n".join(json.dumps(row) for row in [{"candidates": settings}, *rows]) + "\n"
    TABLE.write_bytes(gzip.compress(text.encode(), mtime=0))


if __name__ == "__main__":
    main()
