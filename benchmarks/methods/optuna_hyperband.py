"""Optuna with `HyperbandPruner`: a trial reports its mean after each episode, and weak ones end early.

Set up as the example in the pruner's docs: the default sampler, `min_resource=1`, `max_resource` the steps of
a complete trial, `reduction_factor=3`, a study name so that brackets can be reproduced. A complete trial has
nine episodes, which gives three brackets. The pick is `study.best_trial`, which is always a complete trial.
"""

import optuna

from benchmarks.ground import Ground
from benchmarks.methods.trials import Best, candidate_of, distributions, mean_return
from lab.agent.candidate import Candidate
from lab.agent.episode import Episode

MOST_EPISODES = 9


def run(ground: Ground) -> None:
    """Search until the calls are used up."""
    study = optuna.create_study(
        study_name=f"hyperband {ground.seed}",
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=ground.seed),
        pruner=optuna.pruners.HyperbandPruner(min_resource=1, max_resource=MOST_EPISODES, reduction_factor=3),
    )
    space, best = distributions(ground.experiment.space), Best(ground)
    baseline = ground.experiment.space.params(ground.experiment.baseline)
    if baseline is not None:
        study.enqueue_trial(baseline)
    while True:
        trial = study.ask(space)
        candidate = candidate_of(ground, trial.params)
        if (value := _whole(ground, trial, candidate)) is None:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            study.tell(trial, value)
            best.tell(candidate, value)


def _whole(ground: Ground, trial: optuna.Trial, candidate: Candidate) -> float | None:
    """The mean of a complete trial; None if it was pruned."""
    episodes: list[Episode] = []
    for number in range(1, MOST_EPISODES + 1):
        episodes += ground.play(candidate, [ground.seeds[number - 1]])
        trial.report(mean_return(episodes), number)
        if trial.should_prune():
            return None
    return mean_return(episodes)
