"""Random search: random points, three episodes each, the best mean is the pick.

The reference of Bergstra and Bengio, JMLR 13 (2012); the baseline is tried first, as by every method here.
"""

import numpy as np

from benchmarks.ground import Ground
from benchmarks.methods.trials import EPISODES, Best, candidate_of, mean_return
from lab.search.points import at_random


def run(ground: Ground) -> None:
    """Search until the calls are used up."""
    rng, best, candidate = np.random.default_rng(ground.seed), Best(ground), ground.experiment.baseline
    while True:
        best.tell(candidate, mean_return(ground.play(candidate, ground.seeds[:EPISODES])))
        candidate = candidate_of(ground, at_random(ground.experiment.space.distributions(), 1, rng)[0])
