"""The lab, live: its search and its confirmation, as in a study, within the budget.

The lab's pick is the finalist that confirmation chooses. The harness plays the sealed holdout, as for every
method, so that it counts in no budget.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.ground import Ground
from lab.agent.candidate import Candidate
from lab.experiment.experiment import Experiment
from lab.search.loop import Search
from lab.search.samplers import make_pruner, make_sampler
from lab.storage.database import Store
from lab.storage.optuna_storage import OptunaStorage
from lab.storage.record import CONFIRMATION, Record
from lab.storage.trials import Trials
from lab.verdict.verdict import confirm, finalists

if TYPE_CHECKING:
    from benchmarks.live_ground import LiveGround


def run(ground: Ground) -> None:
    """Search and confirm until the calls are used up; needs a `LiveGround`, because it plays in parallel."""
    live: LiveGround = ground  # type: ignore[assignment]
    # Only confirmation's calls are reserved, none for a holdout.
    verdict = ground.experiment.verdict.model_copy(update={"episodes": 0})
    budget = live.spending.budget
    experiment = replace(ground.experiment, verdict=verdict, seed=ground.seeds.start, budget=budget)
    ground.choose(live.wait(_finalist(experiment, live)))


async def _finalist(experiment: Experiment, live: "LiveGround") -> Candidate:
    store = Store(Path(":memory:"))
    record = Record(store, store.begin(experiment.name, ""), "")
    player = live.recorded_player(record)
    trials = Trials(OptunaStorage(None), record.name, make_sampler(experiment), make_pruner(experiment))
    search = Search(experiment, player, None, lambda _: None, lambda _: None, record, trials)
    await search.run()
    first = experiment.seed + CONFIRMATION
    seeds = range(first, first + experiment.confirmation.episodes)
    best = search.best(experiment.confirmation.candidates)
    played = [(trial, await player.evaluate(trial.candidate, seeds)) for trial in best]
    confirmed = confirm(played, experiment.verdict.confidence)
    return finalists(confirmed, experiment.objective, 1)[0].candidate
