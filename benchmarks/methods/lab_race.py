"""The lab's race alone, as the search drives it: which candidate plays next, who is dropped, what is picked.

Its settings are the defaults of an experiment file. Proposals, confirmation and verdict are not part of it.
"""

from functools import partial

import numpy as np

from benchmarks.ground import Ground
from lab.experiment.objective import Objective
from lab.search.headroom import HeadroomTest
from lab.search.points import spread_out
from lab.search.race import Entrant, Race

MOST_EPISODES, ERROR_RATE, HEADROOM = 8, 0.1, 10


def run(ground: Ground, in_flight: int = 1) -> None:
    """Race until the calls are used up; what is begun first ends first, `in_flight` episodes at a time."""
    rng = np.random.default_rng(ground.seed)
    space = ground.experiment.space
    race = Race(space, Objective(), MOST_EPISODES, ERROR_RATE, ground.seed)
    spread = map(space.candidate, spread_out(space, HEADROOM - 1, rng))
    opening = map(race.enter, [ground.experiment.baseline, *spread])
    headroom = HeadroomTest(race, [entrant for entrant in opening if entrant is not None])
    waiting: list[tuple[Entrant, int]] = []
    while True:
        while len(waiting) < in_flight and (heat := race.next()) is not None:
            entrant = race.begin(heat)
            waiting += [(entrant, place) for place in heat.places]
        if not waiting:
            return
        entrant, place = waiting.pop(0)
        (episode,) = ground.play(entrant.candidate, [ground.seeds[place]])
        race.record(entrant, place, episode.episode_return)
        headroom.look()
        if best := race.best(1):
            ground.choose(best[0].candidate)


run_32 = partial(run, in_flight=32)
