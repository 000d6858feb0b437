"""One worker of the simulation: a worker's own search, record and heartbeats, on a model that only sleeps.

It owns what is simulated, the model and the environment, and the study that all workers share, which is
filled before they start. What is measured is `benchmarks.machines`'s.
"""

import asyncio
import itertools
import json
import random
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sql
from optuna.distributions import distribution_to_json
from optuna.storages._rdb import models
from optuna.trial import TrialState

from lab.agent.episode import Episode
from lab.agent.step import Step
from lab.display.progress import ProgressView
from lab.environments.action import ActionForm
from lab.environments.observation import Observed, View
from lab.experiment.budget import FREE, Budget
from lab.experiment.experiment import Experiment, load_experiment
from lab.experiment.metered import Metered
from lab.llm.client import Completion, Message
from lab.llm.sampling import SamplingParams
from lab.search.loop import Search
from lab.search.player import Player
from lab.search.points import at_random
from lab.search.trials import attributes, candidate_of, note_of
from lab.storage.database import calls
from lab.storage.keys import CallKey, scope_of
from lab.storage.record import Record
from lab.storage.storage import Storage
from lab.storage.study_trials import StudyTrials
from lab.study.document import document
from lab.study.resume import open_study
from lab.study.study import Study
from lab.study.unseen import Unseen
from lab.tracking.tracker import Tracker

IN_FLIGHT, CALL_S, STEPS = 32, 2.0, 8
ANSWER = "A sentence of the length that a small model writes. " * 8
COMPLETION = Completion(ANSWER, "stop", 400, 100, CALL_S)
_CALL = {name: value for name, value in vars(COMPLETION).items() if name != "thinking"}
FORM = ActionForm({"properties": {"message": {"type": "string"}}, "required": ["message"]})

_OPTUNA = models.BaseModel.metadata.tables
_TRIALS, _PARAMS, _ATTRIBUTES, _VALUES = (
    _OPTUNA[name] for name in ("trials", "trial_params", "trial_user_attributes", "trial_intermediate_values")
)
_FINITE = models.TrialIntermediateValueModel.TrialIntermediateValueType.FINITE


def the_experiment() -> Experiment:
    """The echo experiment with 32 episodes in flight and no limits."""
    one = load_experiment(Path("experiments/echo.toml"))
    task = replace(one.task, max_steps=STEPS, max_step_reward=inf)
    search = one.search.model_copy(update={"in_flight": IN_FLIGHT})
    return replace(one, task=task, search=search, budget=Budget())


def opened(address: str) -> tuple[Storage, Record, StudyTrials]:
    """The study, as each of its workers opens it."""
    one, storage = the_experiment(), Storage.at(address)
    return storage, *open_study(storage, one, one.model, document(one, one.model, ""), fresh=False)[:2]


def fill(address: str, count: int) -> None:
    """Start the study, with `count` running trials that have played one episode each.

    Most trials of a race stay open: 327 of 397 after 1,000 simulated episodes over this space. They are
    written in bulk, to Optuna's and the lab's own tables.
    """
    storage, record, trials = opened(address)
    trials.search.state_fact("opening", 0)
    trials.search.state_fact("headroom", "over")
    one, rng, study = the_experiment(), np.random.default_rng(0), trials.search.study._study_id
    rows = defaultdict[sql.Table, list[dict[str, Any]]](list)
    space = one.space.distributions()
    for number, point in enumerate(at_random(space, count, rng)):
        trial, reward, candidate = number + 1, float(rng.normal(10, 2)), one.space.candidate(point)
        kept: dict[str, Any] = {"trial_id": trial}
        began = {"state": TrialState.RUNNING, "datetime_start": datetime.now()}
        rows[_TRIALS].append({**kept, "number": number, "study_id": study, **began})
        for name, domain in space.items():
            value, form = domain.to_internal_repr(point[name]), distribution_to_json(domain)
            param = {"param_name": name, "param_value": value, "distribution_json": form}
            rows[_PARAMS].append({**kept, **param})
        for key, told in {**attributes(candidate), "begun": 1}.items():
            rows[_ATTRIBUTES].append({**kept, "key": key, "value_json": json.dumps(told)})
        finite = {"intermediate_value": STEPS * reward, "intermediate_value_type": _FINITE}
        rows[_VALUES].append({**kept, "step": 0, **finite})
        record.keep_episode(candidate.digest, _episode(one.seed, reward))
        scope, request = scope_of(candidate.digest, one.seed), json.dumps({"messages": [ANSWER] * 5})
        call = {"study": record.name, "scope": scope, "key": "", "at": time.time(), "worker": "", **_CALL}
        rows[calls] += [{**call, "occurrence": step, "request": request} for step in range(STEPS)]
    engine = sql.create_engine(sql.make_url(address).set(drivername="postgresql+psycopg"))
    with engine.begin() as connection:
        for table, many in rows.items():
            connection.execute(table.insert(), many)
        connection.execute(sql.text(f"select setval('public.trials_trial_id_seq', {count})"))
        connection.execute(sql.text("analyze"))
    engine.dispose()
    storage.close()


def _episode(seed: int, reward: float) -> Episode:
    numbers = range(1, STEPS + 1)
    played = [Step(one, ANSWER, ANSWER, reward, one == STEPS, completion=COMPLETION) for one in numbers]
    return Episode(seed, "", tuple(played))


class Sleeping:
    """A model whose answer takes as long as a real one's; at the start, calls are at any point of theirs."""

    def __init__(self) -> None:
        self._begun = 0

    async def complete(
        self,
        messages: Sequence[Message],  # noqa: ARG002
        sampling: SamplingParams,  # noqa: ARG002
        schema: str = "",  # noqa: ARG002
    ) -> Completion:
        """Sleep, and answer."""
        self._begun += 1
        await asyncio.sleep(random.uniform(0, CALL_S) if self._begun <= IN_FLIGHT else CALL_S)
        return COMPLETION


@dataclass
class Still:
    """An environment without work; the first episodes are at any step of theirs, as later ones will be."""

    form: ActionForm = FORM
    view: View = field(default_factory=View)
    opened: int = 0

    @asynccontextmanager
    async def session(self) -> AsyncIterator["StillSession"]:
        """Open a session."""
        self.opened += 1
        yield StillSession(self, random.randint(1, STEPS) if self.opened <= IN_FLIGHT else STEPS)


@dataclass
class StillSession:
    """A session that ends after some steps, with a reward by chance."""

    environment: Still
    steps: int
    form: ActionForm = FORM
    view: View = field(default_factory=View)

    async def reset(self, seed: int, arguments: Mapping[str, Any]) -> Observed:  # noqa: ARG002
        """Start an episode."""
        return Observed("", 0.0, done=False)

    async def step(self, action: Mapping[str, Any]) -> Observed:
        """Answer with what was said."""
        self.steps -= 1
        return Observed(str(action["message"]), random.gauss(10, 4), done=self.steps == 0)

    async def state(self) -> Mapping[str, Any]:
        """Nothing."""
        return {}

    async def grade(self) -> Mapping[str, Any]:
        """Nothing."""
        return {}

    async def renew(self) -> None:
        """Do nothing: no session breaks."""


class Bench:
    """One worker's operations on the storage, each to be called again and again.

    Args:
        share: Number of the running trials that it plays.
    """

    def __init__(self, address: str, share: int) -> None:
        self._one = the_experiment()
        _, self.record, self.trials = opened(address)
        running = self.trials.search.in_state(TrialState.RUNNING)[:share]
        self._running = [self.trials.search.take_up(trial) for trial in running]
        self._numbers = itertools.count()

    def operations(self) -> dict[str, Callable[[], object]]:
        """The operations by name."""
        search, record, space = self.trials.search, self.record, self._one.space.distributions()
        request = json.dumps({"messages": [ANSWER] * 5})
        (point,) = at_random(space, 1, np.random.default_rng(0))

        def kept() -> None:
            key = CallKey("bench", "", next(self._numbers))
            asyncio.run(record.keep_call(key, request, COMPLETION))

        def episode() -> None:
            record.keep_episode(f"bench {next(self._numbers)}", _episode(0, 10.0))

        def report() -> None:
            search.report(self._running[0], 1.0, next(self._numbers) + 1)

        def begin() -> None:
            with record.store.exclusively():
                trial = search.begin(point, space, attributes(self._one.baseline))
                search.describe(trial, note_of(self._one.baseline))
                search.note(trial, "begun", 1)

        return {
            "a call kept": kept,
            "an episode kept": episode,
            "a report": report,
            "heartbeats of 32 trials": lambda: search.beat(self._running[:IN_FLIGHT]),
            "heartbeats of all trials": lambda: search.beat(self._running),
            "reading the trials": search.read,
            "a new trial": begin,
            "reading others' episodes": record.refresh,
            "a trial handed over": lambda: search.hand_over([self._running.pop()]),
            "counting the budget": lambda: record.spent_elsewhere(FREE, proposals=False),
        }


async def work(address: str, index: int, workers: int, on_start: Callable[[], None]) -> None:
    """Search with the `index`th share of the running trials, until cancelled."""
    one = the_experiment()
    _, record, trials = opened(address)
    view, tracker = ProgressView((), quiet=True), Tracker(one, one.model, record, lambda _: None)
    study = Study(one, one.model, record, trials, view, tracker)
    player = Player(
        Metered(Sleeping(), study.spending, FREE),
        Still(),
        one.task,
        IN_FLIGHT,
        study.spending,
        record,
        one.baseline,
    )
    search = Search(one, player, None, lambda _: None, lambda _: None, record, trials.search)
    for trial in trials.search.in_state(TrialState.RUNNING)[index::workers]:
        candidate = candidate_of(trial)
        assert candidate is not None
        search._race.opened(trials.search.take_up(trial), candidate)
    unseen = Unseen(one, player, record, trials, lambda *_: None)
    on_start()
    async with asyncio.TaskGroup() as group:
        group.create_task(study._workers.beat(search, unseen, player))
        group.create_task(search.run())
