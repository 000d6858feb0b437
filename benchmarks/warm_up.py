"""The warm-up test in races: false alarms among equal candidates, and how soon differences are found.

`python -m benchmarks.warm_up` writes `benchmarks/results/warm_up.md` in about ten minutes.
"""

import argparse
import random
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial

import numpy as np

from benchmarks.methods.lab_race import HEADROOM, MOST_EPISODES, a_race, play
from benchmarks.replays import RESULTS
from benchmarks.simulated import NOISES, share
from benchmarks.table import TableGround, load_table
from lab.agent.candidate import Candidate
from lab.experiment.experiment import Experiment
from lab.search.open_trial import OpenTrial
from lab.search.points import spread_out

STUDIES, EPISODES, EARLY = 200, 80, 40
SEEDS = range(40, 40 + STUDIES)
"""Those below 40 were looked at when the test was designed."""

SPREADS, IN_FLIGHT = ("0.5", "1", "2"), (1, 16)
TABLE = "the recorded table"

Earned = Callable[[OpenTrial, int], float]
Result = tuple[int, str]
"""Number of episodes, and what the test then said."""


_table = cache(load_table)


def studied(experiment: Experiment, earned: Earned, seed: int, in_flight: int, episodes: int) -> list[Result]:
    """Race over the grid; returns the results of the warm-up test, with the last one."""
    race, space = a_race(experiment.space, seed), experiment.space
    race.new.enqueue(experiment.baseline)
    for params in spread_out(space.distributions(), HEADROOM - 1, np.random.default_rng(seed)):
        race.new.enqueue(space.candidate(params))
    race.open_with(HEADROOM)
    results = [(number, one.result) for number, one in play(race, episodes, earned, in_flight)]
    last = race.headroom(last=True)
    return results if last is None else [*results, (episodes, last.result)]


def equal(noise: str, in_flight: int, seed: int) -> list[Result]:
    """Study equal candidates."""
    rng = random.Random(seed)
    return studied(_table().experiment, lambda *_: NOISES[noise](rng), seed, in_flight, EPISODES)


def apart(spread: str, in_flight: int, seed: int) -> list[Result]:
    """Study unrelated candidates whose means differ by `spread` times the noise; seeds differ as much."""
    rng, means = np.random.default_rng(seed), dict[Candidate, float]()
    seeds = rng.normal(size=MOST_EPISODES)

    def earned(one: OpenTrial, step: int) -> float:
        mean = means.setdefault(one.candidate, float(rng.normal(0, float(spread))))
        return float(mean + seeds[step] + rng.normal())

    return studied(_table().experiment, earned, seed, in_flight, EPISODES)


def recorded(_: str, in_flight: int, seed: int) -> list[Result]:
    """Study the recorded table."""
    ground = TableGround(_table(), seed, 10**9)

    def earned(one: OpenTrial, step: int) -> float:
        return ground.play(one.candidate, [step])[0].episode_return

    return studied(ground.experiment, earned, seed, in_flight, EPISODES)


def row(title: str, in_flight: int, studies: Iterable[list[Result]]) -> str:
    """A row of the report."""
    known = list(studies)
    found = [next((number for number, one in each if one == "found"), EPISODES + 1) for each in known]
    last = [each[-1][1] if each else "not yet known" for each in known]
    shares = [share(one <= episodes for one in found) for episodes in (EARLY, EPISODES)]
    ends = [share(one == result for one in last) for result in ("none seen", "not yet known")]
    return f"| {title} | {in_flight} | {' | '.join([*shares, *ends])} |\n"


def main() -> None:
    """Play all studies, and write the report."""
    lines = [
        f"{STUDIES} studies a row, of {EPISODES} episodes each; 95 % Wilson intervals.\n\n",
        f"| candidates | in flight | found by {EARLY} | by {EPISODES} | none seen | not yet known |\n",
        f"|---|{'---:|' * 5}\n",
    ]
    kinds: list[tuple[Callable[[str, int, int], list[Result]], str, str]] = [(recorded, TABLE, "")]
    kinds += [(equal, f"equal; noise: {name}", name) for name in NOISES]
    kinds += [(apart, f"spread of {name} times the noise", name) for name in SPREADS]
    with ProcessPoolExecutor() as pool:
        for play_one, title, name in kinds:
            for in_flight in IN_FLIGHT:
                one = partial(play_one, name, in_flight)
                lines.append(row(title, in_flight, pool.map(one, SEEDS, chunksize=10)))
                (RESULTS / "warm_up.md").write_text("".join(lines))


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    main()
