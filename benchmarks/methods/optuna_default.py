"""Optuna as in its docs: `create_study` and the default sampler, no pruner, the best trial wins.

A trial is the mean of three episodes. Optuna's tutorial, "Lightweight, versatile, and platform agnostic
architecture", leaves sampler and pruner at their defaults, and its FAQ, "How can I obtain reproducible
optimization results?", sets the sampler's seed; nothing else is set here. The baseline is enqueued first by
`enqueue_trial` ("Specify Hyperparameters Manually").
"""

import optuna

from benchmarks.ground import Ground
from benchmarks.methods.trials import EPISODES, Best, candidate_of, distributions, mean_return


def run(ground: Ground) -> None:
    """Search until the calls are used up."""
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=ground.seed))
    space, best = distributions(ground.experiment.space), Best(ground)
    baseline = ground.experiment.space.params(ground.experiment.baseline)
    if baseline is not None:
        study.enqueue_trial(baseline)
    while True:
        trial = study.ask(space)
        candidate = candidate_of(ground, trial.params)
        value = mean_return(ground.play(candidate, ground.seeds[:EPISODES]))
        study.tell(trial, value)
        best.tell(candidate, value)
