"""New trials: candidates that are enqueued, and the sampler's choices that no trial has had.

It owns what a trial must have to begin; what it plays is the race's.
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from lab.agent.candidate import Candidate, Demonstration
from lab.agent.template import PromptTemplate
from lab.experiment.space import Space, with_settings
from lab.search.points import at_random, spread_out
from lab.search.sampler import RaceSampler
from lab.search.table import CHOSEN_BY
from lab.search.trials import attributes, candidate_of, drawn_from, note_of, words_of
from lab.storage.trials import Trials

STUBBORN = 3
"""Consecutive trials without a new candidate after which points are drawn at random."""

_DRAWN = 16


class NewTrials:
    """The new trials of one process.

    Attributes:
        space: The space to choose from now; see `widen`.
        repeats: Consecutive trials without a new candidate.

    Args:
        study: The study, with its sampler.
        distributions: The study's distributions, which contain every trial's parameters.
        episodes: Maximum episodes of a trial.
    """

    def __init__(
        self, study: Trials, space: Space, distributions: Mapping[str, BaseDistribution], episodes: int
    ) -> None:
        self._study, self._episodes, self.repeats = study, episodes, 0
        self._distributions = dict(distributions)
        sampler = study.study.sampler
        self._sampler = sampler if isinstance(sampler, RaceSampler) else None
        self.widen(space)

    def widen(self, space: Space) -> None:
        """Choose from now on from another space."""
        self.space = space
        if self._sampler is not None:
            self._sampler.widen(drawn_from(space, self._distributions), words_of(space.templates.values()))

    def include(self, texts: Sequence[PromptTemplate], shown: Sequence[Demonstration]) -> None:
        """Choose from now on also from these texts and demonstrations."""
        self.widen(self.space.widened(texts, shown))

    def leave_out(self, names: Collection[str]) -> str:
        """Choose without these settings from now on; returns what that changes, in words."""
        free = [name for name in names if name in self.space.free]
        if not free:
            return ""
        self.widen(self.space.without(free))
        rest = ", ".join(self.space.free) or "nothing: all candidates are equal"
        return f"This endpoint has no {', '.join(free)}, free in [space]. Searched is {rest}."

    def enqueue(self, candidate: Candidate, owed: int = 0) -> None:
        """Enqueue a candidate unless a trial has it; it plays before anything else is chosen.

        Args:
            owed: Episodes before it may be dropped.
        """
        if not self._has(candidate):
            params = self.space.params(candidate)
            if params is not None:
                params = {name: candidate.settings[name] for name in self._distributions} | params
            more = {"owed": min(owed, self._episodes)} if owed else {}
            self._study.enqueue(params or {}, **attributes(candidate), **more)

    def enqueue_spread(self, count: int, seed: int) -> None:
        """Enqueue points that are spread over the space."""
        rng = np.random.default_rng(seed)
        for params in spread_out(self.space.distributions(), count, rng):
            self.enqueue(self.space.candidate(params))

    def enqueue_text(self, name: str, leader: Candidate, owed: int) -> None:
        """Enqueue a text of the space with settings that suit it: the sampler's choice, else the leader's.

        Args:
            owed: Episodes before it may be dropped.
        """
        played = sum(bool(one.intermediate_values) for one in self._study.known)
        if self._sampler is not None and len(self._distributions) > 1 and played >= CHOSEN_BY[0]:
            self._study.enqueue({"template": name}, owed=min(owed, self._episodes))
        else:
            texts, shown = self.space.templates, self.space.demonstrations
            self.enqueue(with_settings(leader, {"template": name}, texts, shown), owed)

    def ask(self) -> tuple[optuna.Trial, Candidate] | None:
        """Start a waiting trial, or the sampler's choice; None if that is not new."""
        if self._sampler is not None and not self._study.in_state(TrialState.WAITING):
            return self._own_choice(self._sampler)
        if self.repeats >= STUBBORN and self._sampler is None:
            self._enqueue_at_random()
        trial = self._study.ask(self._asked_distributions())
        frozen = self._study.known[trial.number]
        candidate = candidate_of(frozen) or self._chosen(trial, frozen)
        return None if candidate is None else self._described(trial, candidate)

    def _own_choice(self, sampler: RaceSampler) -> tuple[optuna.Trial, Candidate] | None:
        """A trial of the lab's own choice; one that another worker has begun meanwhile is not begun."""
        candidate = self.space.candidate(params := sampler.new_params(self._study.study))
        self._study.read()
        if self._has(candidate):
            return None
        trial = self._study.begin(params, self._distributions, attributes(candidate))
        return self._described(trial, candidate)

    def _described(self, trial: optuna.Trial, candidate: Candidate) -> tuple[optuna.Trial, Candidate]:
        """The two, once optuna-dashboard has a note on the trial."""
        self._study.describe(trial, note_of(candidate))
        return trial, candidate

    def taken_up(self, trial: optuna.Trial, frozen: FrozenTrial) -> Candidate | None:
        """The candidate of a dead process's trial; None if it died before all parameters were sampled."""
        candidate = candidate_of(frozen)
        if candidate is None and frozen.params.keys() == self._distributions.keys():
            candidate = self._chosen(trial, frozen)
        return candidate

    def _enqueue_at_random(self) -> None:
        """Enqueue a point that no trial has had: Optuna's `GPSampler` returns to its best one for ever."""
        rng = np.random.default_rng(len(self._study.known))
        points = at_random(self.space.distributions(), _DRAWN, rng)
        new = (one for one in map(self.space.candidate, points) if not self._has(one))
        if (found := next(new, None)) is not None:
            self.repeats = 0
            self.enqueue(found)

    def _asked_distributions(self) -> dict[str, BaseDistribution]:
        """Empty for a waiting trial without parameters, whose candidate is outside the space."""
        waiting = self._study.in_state(TrialState.WAITING)
        if not waiting:
            return self._distributions
        params = waiting[0].system_attrs.get("fixed_params") or waiting[0].params
        return self._distributions if params else {}

    def _chosen(self, trial: optuna.Trial, frozen: FrozenTrial) -> Candidate | None:
        """The sampler's choice; None if it was tried before or its text is not written yet."""
        name = frozen.params.get("template")
        if name is not None and name not in self.space.templates:
            self._refuse(trial, f"the text {name} is not written yet")
            return None
        candidate = self.space.candidate(frozen.params)
        if self._has(candidate):
            self._refuse(trial, "another trial has the same candidate")
            return None
        self.repeats = 0
        for key, value in attributes(candidate).items():
            self._study.note(trial, key, value)
        self._study.read()
        return candidate

    def _has(self, candidate: Candidate) -> bool:
        """Whether a trial has this candidate."""
        return any(one.user_attrs.get("digest") == candidate.digest for one in self._study.known)

    def _refuse(self, trial: optuna.Trial, reason: str) -> None:
        self.repeats += 1
        self._study.note(trial, "reason", reason)
        self._study.tell(trial, TrialState.FAIL)
