"""Trials: the trials of one Optuna study, and facts about the study as its user attributes.

It owns asking, telling, and handing over between workers. What a trial plays is `lab.search.trials`'s; the
storage's location is `lab.storage.optuna_storage`'s.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from lab.errors import ConfigError, LabError
from lab.storage.optuna_storage import OptunaStorage, retrying

NONE_YET = "none yet"
"""The fact `verdict` of a study without one."""

_NOTE = 2045
"""Maximum characters of a note in one attribute."""


class Trials:
    """One Optuna study; `known` has all its trials as last read, by number, not copied."""

    def __init__(
        self,
        storage: OptunaStorage,
        name: str,
        sampler: BaseSampler | None = None,
        pruner: BasePruner | None = None,
    ) -> None:
        is_there = name in storage.names()
        if not is_there and not storage.writing:
            storage = OptunaStorage(None)
        self.storage = storage
        where = storage.cached()
        with storage.translated_errors():
            if not is_there:
                optuna.create_study(storage=where, study_name=name, direction="maximize", load_if_exists=True)
            self.study = optuna.load_study(
                study_name=name,
                storage=where,
                sampler=sampler or optuna.samplers.RandomSampler(),
                pruner=pruner or optuna.pruners.NopPruner(),
            )
        self.known: list[FrozenTrial] = []
        self._pulsed = set[int]()
        self.read()

    def read(self) -> list[FrozenTrial]:
        """Read all trials."""
        with self.storage.translated_errors():
            self.known = self.study.get_trials(deepcopy=False)
        return self.known

    def in_state(self, *states: TrialState) -> list[FrozenTrial]:
        """Return the known trials in one of these states."""
        return [trial for trial in self.known if trial.state in states]

    def ask(self, distributions: dict[str, BaseDistribution]) -> optuna.Trial:
        """Start a waiting trial, else one of the sampler's choice.

        Raises:
            ConfigError: The sampler failed.
        """
        with _failures_of(self.study.sampler), self.storage.translated_errors():
            trial = self.study.ask(distributions)
            self.storage.beat([trial._trial_id])
        self.read()
        return trial

    def begin(
        self, params: dict[str, Any], distributions: dict[str, BaseDistribution], user_attrs: dict[str, Any]
    ) -> optuna.Trial:
        """Start a trial with these parameters, in one write: `ask` takes one for each parameter."""
        made = create_trial(
            state=TrialState.RUNNING, params=params, distributions=distributions, user_attrs=user_attrs
        )
        with self.storage.translated_errors():
            trial_id = self.study._storage.create_new_trial(self.study._study_id, made)
            self.storage.beat([trial_id])
            trial = optuna.Trial(self.study, trial_id)
        self.read()
        return trial

    def take_up(self, trial: FrozenTrial) -> optuna.Trial:
        """Resume a running trial of a process that has died."""
        with self.storage.translated_errors():
            return optuna.Trial(self.study, trial._trial_id)

    def claim(self, trial: FrozenTrial) -> optuna.Trial:
        """Start a waiting trial."""
        with self.storage.translated_errors():
            self.storage.storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING)
            self.storage.beat([trial._trial_id])
            found = optuna.Trial(self.study, trial._trial_id)
        self.read()
        return found

    def enqueue(self, params: dict[str, Any], **user_attrs: Any) -> None:  # noqa: ANN401  # of JSON
        """Add a waiting trial."""
        with self.storage.translated_errors():
            self.study.enqueue_trial(params, user_attrs=user_attrs)
        self.read()

    def report(self, trial: optuna.Trial, value: float, step: int) -> None:
        """Report one value of a running trial, unless another worker took it over."""
        with suppress(UpdateFinishedTrialError), self.storage.translated_errors():
            trial.report(value, step)
        self.read()

    def note(self, trial: optuna.Trial, key: str, value: Any) -> None:  # noqa: ANN401  # of JSON
        """Set a user attribute of a running trial, unless another worker took it over."""
        with suppress(UpdateFinishedTrialError), self.storage.translated_errors():
            trial.set_user_attr(key, value)

    def describe(self, trial: optuna.Trial, text: str) -> None:
        """Write optuna-dashboard's note on a trial, in Markdown.

        Its `save_note` does the same, but reads all notes of the study each time.
        """
        storage, study, trial_id = self.storage.storage, self.study._study_id, trial._trial_id
        with self.storage.translated_errors():
            storage.set_study_system_attr(study, f"dashboard:{trial_id}:note_ver", 1)
            for place, first in enumerate(range(0, len(text), _NOTE)):
                key = f"dashboard:{trial_id}:note_str:{place}"
                storage.set_study_system_attr(study, key, text[first : first + _NOTE])

    def tell(self, trial: optuna.Trial, state: TrialState, value: float | None = None) -> None:
        """End a trial.

        Raises:
            ConfigError: The sampler failed; at a failed trial, which not all expect, that is ignored.
        """
        try:
            with _failures_of(self.study.sampler), self.storage.translated_errors():
                self.study.tell(trial, value, state, skip_if_finished=True)
        except ConfigError:
            if state is not TrialState.FAIL:
                raise
        self.read()

    def prunes(self, trial: FrozenTrial) -> bool:
        """Whether the pruner ends a running trial.

        Raises:
            ConfigError: The pruner failed.
        """
        with _failures_of(self.study.pruner), self.storage.translated_errors():
            return self.study.pruner.prune(self.study, trial)

    @property
    def facts(self) -> dict[str, Any]:
        """Facts about the study as a whole: its user attributes."""
        with self.storage.translated_errors():
            return self.study.user_attrs

    def fact(self, key: str) -> Any:  # noqa: ANN401  # of JSON
        """Return one of `facts`; None if it is not set."""
        return self.facts.get(key)

    def state_fact(self, key: str, value: Any) -> None:  # noqa: ANN401  # of JSON
        """Set a fact about the study as a whole."""
        with self.storage.translated_errors():
            self.study.set_user_attr(key, value)

    def beat(self, running: list[optuna.Trial]) -> None:
        """Record heartbeats of these trials, and hand over those of dead workers."""
        if not self.storage.shared:
            return
        mine = {trial.number for trial in running}
        # A worker that died while it began a trial left no heartbeat whose absence could be noticed.
        asked = [
            one
            for one in self.in_state(TrialState.RUNNING)
            if one.number not in mine | self._pulsed and "begun" not in one.user_attrs
        ]
        with self.storage.translated_errors():
            self.storage.beat({one._trial_id for one in running} | {one._trial_id for one in asked})
            self._pulsed |= {one.number for one in asked}
            if self.storage.has_dead(self.study._study_id):
                optuna.storages.fail_stale_trials(self.study)
        self.read()

    def hand_over(self, running: list[optuna.Trial]) -> None:
        """Let other workers continue these trials, with the values reported so far."""
        if not self.storage.shared:
            return
        with self.storage.translated_errors():
            for trial in running:
                retrying()(self.study, self.study.tell(trial, state=TrialState.FAIL, skip_if_finished=True))


@contextmanager
def _failures_of(used: BaseSampler | BasePruner) -> Iterator[None]:
    """Report whatever a sampler or pruner, which may be anybody's, raises."""
    try:
        yield
    except LabError:
        raise
    except Exception as error:  # foreign code
        word = "sampler" if isinstance(used, BaseSampler) else "pruner"
        raise ConfigError(
            f"The {word} {type(used).__name__} failed.",
            where=f"search.{word}",
            why=f"{type(error).__name__}: {error}",
            do=f"change search.{word}_options, or use another {word}; the calls made so far are kept",
        ) from error
