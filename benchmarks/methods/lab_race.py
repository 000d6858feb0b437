"""The lab's race without its other parts: which trial plays next, which is pruned, which is picked.

Its settings are the defaults of an experiment file. Proposals, confirmation and verdict are not part of it.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler

from benchmarks.ground import Ground
from lab.agent.candidate import Candidate
from lab.experiment.objective import Objective
from lab.experiment.space import Space
from lab.search.headroom import Headroom
from lab.search.open_trial import OpenTrial
from lab.search.points import spread_out
from lab.search.pruner import RacePruner
from lab.search.race import Race
from lab.search.sampler import RaceSampler
from lab.search.samplers import costs_of
from lab.search.trials import expected
from lab.storage.optuna_storage import OptunaStorage
from lab.storage.trials import Trials

MOST_EPISODES, ERROR_RATE, HEADROOM = 8, 0.1, 10


def a_race(
    space: Space,
    seed: int,
    *,
    sampler: BaseSampler | None = None,
    pruner: BasePruner | None = None,
    objective: Objective | None = None,
    study: Trials | None = None,
) -> Race:
    """A race in memory, by default with the lab's own sampler and pruner.

    Args:
        study: Study to continue; None for a new one.
    """
    distributions, rule = space.distributions(), objective or Objective()
    costs = None if rule.cost is None else costs_of
    own = RaceSampler(space=distributions, seed=seed, order=rule.order, costs=costs)
    pruner = pruner or RacePruner(MOST_EPISODES, error_rate=ERROR_RATE, within=rule.within)
    storage = OptunaStorage(None) if study is None else study.storage
    trials = Trials(storage, "race", sampler or own, pruner)
    return Race(trials, space, distributions, MOST_EPISODES)


def play(
    race: Race,
    episodes: int,
    earned: Callable[[OpenTrial, int], float],
    in_flight: int = 1,
    on_report: Callable[[], None] = lambda: None,
) -> list[tuple[int, Headroom]]:
    """Play a race of a number of episodes, several concurrently, which end in the order of their start.

    Args:
        earned: Plays one step of a trial.
        on_report: Called after each episode.

    Returns:
        New results of the warm-up test, each with the number of episodes until then.
    """
    waiting, results = list[tuple[OpenTrial, int]](), list[tuple[int, Headroom]]()
    for number in range(1, episodes + 1):
        while len(waiting) < in_flight and (move := race.next()) is not None:
            one = move.trial or race.ask()
            if one is not None:
                race.begin(one, move.steps)
                waiting += [(one, step) for step in move.steps]
        if not waiting:
            break
        one, step = waiting.pop(0)
        race.report(one, step, earned(one, step))
        if (result := race.headroom()) is not None:
            results.append((number, result))
        on_report()
    return results


def leader(race: Race) -> int | None:
    """Number of the unpruned trial with the highest expected mean; None if none has one."""
    means, known = np.array([one.mean for one in expected(race.study)]), race.study.known
    able = [one.number for one in known if np.isfinite(means[one.number]) and "dropped" not in one.user_attrs]
    return max(able, key=lambda number: float(means[number])) if able else None


def run(
    ground: Ground,
    in_flight: int = 1,
    make_sampler: Callable[[int], BaseSampler] | None = None,
    make_pruner: Callable[[], BasePruner] | None = None,
) -> None:
    """Race until the calls are used up, with `in_flight` episodes that end in the order of their start.

    Args:
        make_sampler: Creates a sampler from a seed; None for the lab's own.
        make_pruner: Creates a pruner; None for the lab's own.
    """
    rng, candidates = np.random.default_rng(ground.seed), dict[int, Candidate]()
    space = ground.experiment.space
    sampler = make_sampler(ground.seed) if make_sampler else None
    race = a_race(space, ground.seed, sampler=sampler, pruner=make_pruner() if make_pruner else None)
    race.new.enqueue(ground.experiment.baseline)
    for params in spread_out(space.distributions(), HEADROOM - 1 if race.is_own else 0, rng):
        race.new.enqueue(space.candidate(params))
    race.open_with(len(race.study.known))

    def earned(one: OpenTrial, step: int) -> float:
        candidates[one.trial.number] = one.candidate
        (episode,) = ground.play(one.candidate, [ground.seeds[step]])
        return episode.episode_return

    def pick() -> None:
        if (best := leader(race)) is not None:
            ground.choose(candidates[best])

    play(race, 10**9, earned, in_flight, pick)


run_32 = partial(run, in_flight=32)
