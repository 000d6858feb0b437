"""The lab, live: its search, with new texts if any are proposed, and its confirmation, as in a study.

The lab's pick is the finalist that confirmation chooses, and its claim the gain on a sealed holdout of its
own, beside the harness's: neither counts in the budget.
"""

# ruff: noqa: T201 - progress is for people
import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.ground import Ground
from benchmarks.live_ground import ASKING, LiveGround
from lab.agent.candidate import Candidate
from lab.agent.episode import Ending
from lab.agent.evaluation import Evaluation
from lab.errors import BudgetError
from lab.experiment.budget import Calls
from lab.experiment.experiment import Experiment
from lab.proposers.proposal import Proposals
from lab.proposers.proposer import make_proposer
from lab.proposers.rounds import Rounds
from lab.search.loop import Search
from lab.search.player import Played, Player
from lab.search.samplers import make_pruner, make_sampler
from lab.storage.database import Store
from lab.storage.keys import CONFIRMATION, HOLDOUT
from lab.storage.optuna_storage import OptunaStorage
from lab.storage.record import Record
from lab.storage.trials import Trials
from lab.verdict.verdict import confirm, finalists, judge


def run(ground: Ground) -> None:
    """Search and confirm until the calls are used up, from the experiment's own texts."""
    study(ground, ground.experiment)


def study(ground: Ground, experiment: Experiment) -> None:
    """The same on another space; needs a `LiveGround`, because it plays in parallel."""
    live: LiveGround = ground  # type: ignore[assignment]
    # Only confirmation's calls are reserved, none for a holdout.
    verdict = experiment.verdict.model_copy(update={"episodes": 0})
    budget = live.spending.budget
    experiment = replace(experiment, verdict=verdict, seed=ground.seeds.start, budget=budget)
    with TemporaryDirectory() as folder:
        live.wait(_study(experiment, live, Path(folder)))


async def _study(experiment: Experiment, live: LiveGround, folder: Path) -> None:
    store = Store(folder / "calls.db")
    record = Record(store, store.begin(experiment.name, ""), "")
    player = live.recorded_player(record)
    trials = Trials(OptunaStorage(None), record.name, make_sampler(experiment), make_pruner(experiment))

    def on_round(number: int, made: Proposals) -> None:
        print(f"lab {live.seed}, round {number} after {live.calls} calls: {made}", flush=True)

    asked = experiment.proposals
    proposer = make_proposer(asked.proposer, live.proposer, ASKING) if asked else None
    rounds = Rounds(experiment, trials, record, proposer, on_round, print)
    search = Search(experiment, player, rounds, lambda _: None, lambda _: None, record, trials)
    await search.run()
    first = experiment.seed + CONFIRMATION
    seeds = range(first, first + experiment.confirmation.episodes)
    best = search.best(experiment.confirmation.candidates)
    played = [(trial, await _evaluated(player, trial.candidate, seeds)) for trial in best]
    confirmed = confirm(played, experiment.verdict.confidence)
    (best_trial,) = finalists(confirmed, experiment.objective, 1)
    live.choose(best_trial.candidate)
    sealed, first = live.sealed_player(), experiment.seed + HOLDOUT
    unseen = range(first, first + live.experiment.verdict.episodes)
    baseline, own = [
        await _evaluated(sealed, candidate, unseen)
        for candidate in (experiment.baseline, best_trial.candidate)
    ]
    verdict = judge(
        confirmed, baseline, [(best_trial, own)], experiment.objective, experiment.verdict.confidence
    )
    gain = verdict.finalists[0].difference
    live.choose(best_trial.candidate, gain.mean, (gain.low, gain.high))


async def _evaluated(player: Player, candidate: Candidate, seeds: Sequence[int]) -> Evaluation:
    """One whole episode on each seed, without those for which the budget has no room."""

    async def ending(seed: int) -> Played | Ending | None:
        try:
            return await player.episode(candidate, seed, later=Calls)
        except BudgetError:
            return None

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(ending(seed)) for seed in seeds]
    endings = [one for task in tasks if (one := task.result()) is not None]
    return Evaluation.of(candidate, player.task, endings, "return")
