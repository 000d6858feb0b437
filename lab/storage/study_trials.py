"""StudyTrials: the Optuna studies of one study, their names, and their copies.

A study is copied where Optuna cannot change it: its categories cannot grow, and ended trials cannot continue.
Asking and telling is `lab.storage.trials`'s.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from lab.storage.optuna_storage import OptunaStorage
from lab.storage.trials import NONE_YET, Trials

_VERDICTS, _MINUTES = "verdicts", "verdict_minutes"
"""Facts about earlier verdicts: their claims, in order, and their working time in all, in minutes."""

_COPY, _WHOLE = " copy ", "is_whole"
"""Separator in the name of a study's copy, and the fact that the copy is complete."""

_ENDINGS = frozenset({"searched", "contenders", "finalists", "judged", "verdict", "passed_on"})
"""Facts about a search's end and the verdict."""


@dataclass(frozen=True)
class StudyTrials:
    """The Optuna studies of one study: a trial is a candidate in the search, an episode in the others."""

    search: Trials
    confirmation: Trials
    holdout: Trials

    @classmethod
    def opened(
        cls, storage: OptunaStorage, name: str, sampler: BaseSampler | None, pruner: BasePruner | None
    ) -> "StudyTrials":
        """Open them, creating absent ones."""
        return cls._of(Trials(storage, _newest(storage, name), sampler, pruner))

    @classmethod
    def _of(cls, search: Trials) -> "StudyTrials":
        """Add the studies of the next verdict's episodes."""
        name, earlier = search.study.study_name.partition(_COPY)[0], len(search.fact(_VERDICTS) or [])
        last = f" {earlier + 1}" if earlier else ""
        confirmation, holdout = f"{name}/confirmation{last}", f"{name}/holdout{last}"
        return cls(search, Trials(search.storage, confirmation), Trials(search.storage, holdout))

    @property
    def earlier(self) -> tuple[str, ...]:
        """The claims of the study's earlier verdicts."""
        return tuple(self.search.fact(_VERDICTS) or [])

    @property
    def verdict_minutes(self) -> float:
        """Working time on the verdicts so far, in minutes."""
        facts = self.search.facts
        last = 0.0
        if "judged" in facts:
            judged = facts["judged"]["minutes"]
            last = judged - facts.get("searched", judged)
        return float(facts.get(_MINUTES, 0.0) + last)

    def fit(self, space: Mapping[str, BaseDistribution]) -> bool:
        """Whether Optuna can draw further trials from this space."""
        return all(_same_categories(trial.distributions, space) for trial in self.search.known)

    def widened(self, space: Mapping[str, BaseDistribution]) -> "StudyTrials":
        """Return them in a wider space."""
        return StudyTrials._of(_copied(self.search, space, self.search.known, self.search.facts))

    def continued(self, space: Mapping[str, BaseDistribution]) -> "StudyTrials":
        """Return them as before the search's end, in a space at least as wide, for another verdict."""
        facts = self.search.facts
        before = {key: value for key, value in facts.items() if key not in _ENDINGS}
        before["verdict"] = NONE_YET
        verdicts = {_VERDICTS: [*self.earlier, facts.get("verdict", "")], _MINUTES: self.verdict_minutes}
        trials = (_waiting(one) if _ended_with_search(one) else one for one in self.search.known)
        return StudyTrials._of(_copied(self.search, space, trials, {**before, **verdicts}))

    def read(self) -> None:
        """Read them all again."""
        for one in (self.search, self.confirmation, self.holdout):
            one.read()


def facts_of(storage: OptunaStorage, name: str) -> dict[str, Any]:
    """Return the facts about a study; empty if Optuna's storage does not have it."""
    with storage.translated_errors():
        newest = _newest(storage, name)
        if newest not in storage.names():
            return {}
        return optuna.load_study(study_name=newest, storage=storage.storage).user_attrs


def _newest(storage: OptunaStorage, name: str) -> str:
    """The study's name, or that of its last complete copy."""
    copies = [one for one in storage.names() if one.startswith(f"{name}{_COPY}")]
    for copy in sorted(copies, key=lambda one: -int(one.rpartition(" ")[2])):
        if _WHOLE in optuna.load_study(study_name=copy, storage=storage.storage).user_attrs:
            return copy
    return name


def _same_categories(old: Mapping[str, BaseDistribution], new: Mapping[str, BaseDistribution]) -> bool:
    return all(
        old[name] == new[name]
        for name in old.keys() & new.keys()
        if isinstance(old[name], CategoricalDistribution)
    )


def _copied(
    study: Trials,
    space: Mapping[str, BaseDistribution],
    trials: Iterable[FrozenTrial],
    facts: Mapping[str, Any],
) -> Trials:
    """A copy with these trials and facts; the original is deleted once the copy is complete.

    Nobody plays its running trials any more, so they wait: a copy has no heartbeat that could be missed.
    """
    storage, (base, _, number) = study.storage, study.study.study_name.partition(_COPY)
    copy = f"{base}{_COPY}{int(number or 1) + 1}"
    with storage.translated_errors():
        if copy in optuna.get_all_study_names(storage.storage):  # of a process that was killed
            optuna.delete_study(study_name=copy, storage=storage.storage)
        made = Trials(storage, copy, study.study.sampler, study.study.pruner)
        for trial in trials:
            own = trial.distributions.items()
            trial.distributions = {name: space.get(name, old) for name, old in own}
            made.study.add_trial(_waiting(trial) if trial.state is TrialState.RUNNING else trial)
        _copy_notes(study, made)
        for key in facts.keys() - {_WHOLE}:
            made.study.set_user_attr(key, facts[key])
        made.study.set_user_attr(_WHOLE, True)
        optuna.delete_study(study_name=study.study.study_name, storage=storage.storage)
    made.read()
    return made


def _copy_notes(study: Trials, copy: Trials) -> None:
    """Copy the trials' notes, which optuna-dashboard finds by their ids."""
    storage = study.storage.storage
    ids = {f"{old._trial_id}": new._trial_id for old, new in zip(study.known, copy.read(), strict=True)}
    for key, value in storage.get_study_system_attrs(study.study._study_id).items():
        first, _, rest = key.partition(":")
        trial, _, part = rest.partition(":")
        if first == "dashboard" and trial in ids:
            storage.set_study_system_attr(copy.study._study_id, f"{first}:{ids[trial]}:{part}", value)


def _ended_with_search(trial: FrozenTrial) -> bool:
    """Whether a trial could have played on: it ended because the search did."""
    return trial.state is TrialState.PRUNED and "dropped" not in trial.user_attrs


def _waiting(trial: FrozenTrial) -> FrozenTrial:
    """The trial with the returns that it has, to be taken up again."""
    return create_trial(
        state=TrialState.WAITING,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs=trial.user_attrs,
        system_attrs=trial.system_attrs,
        intermediate_values=trial.intermediate_values,
    )
