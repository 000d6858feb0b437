"""The Race: what a study's trials play next, and how each ends; on Optuna's study, and nothing else.

All trials play the same instances in the same order, by the lab's own rule in rungs of 1, 2, 4, ... Optuna
has no hook for the choice between a new trial and one that could play on, so it is made here, by
`RaceSampler.choose`. Nothing is played here, and neither clock, endpoint nor budget reach here.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from lab.agent.candidate import Candidate
from lab.agent.task import Measure
from lab.experiment.space import Space
from lab.search.headroom import Headroom, HeadroomTest
from lab.search.pruner import RacePruner
from lab.search.sampler import NEW, RaceSampler
from lab.search.trials import (
    attributes,
    candidate_of,
    drawn_from,
    first_two,
    is_taken_over,
    note_of,
    number_of,
)
from lab.storage.trials import Trials

REPEATS = 100
"""Trials in a row that propose nothing new, after which a sampler is not asked again."""


@dataclass
class OpenTrial:
    """A running trial of this process.

    Attributes:
        number: as people see it.
        playing: steps that are being played.
        reported: how many were reported.
    """

    trial: optuna.Trial
    number: int
    candidate: Candidate
    playing: set[int] = field(default_factory=set)
    reported: int = 0


@dataclass(frozen=True)
class Move:
    """What should be begun next: these steps of a trial; None for one that is asked for."""

    trial: OpenTrial | None
    steps: Sequence[int]


class Race:
    """The race of one process.

    Attributes:
        open: the trials that this process plays, by Optuna's numbers.
        space: what may be chosen now; see `widen`.

    Args:
        study: with its sampler and pruner.
        distributions: of the study, in which a trial's parameters are.
        episodes: that a trial plays at most.
        shared: whether other processes may be at the study.
    """

    def __init__(
        self,
        study: Trials,
        space: Space,
        distributions: Mapping[str, BaseDistribution],
        episodes: int,
        measure: Measure = "return",
        *,
        shared: bool = False,
    ) -> None:
        self.study, self.open = study, dict[int, OpenTrial]()
        self._distributions, self._episodes = dict(distributions), episodes
        self._measure, self._shared, self._repeats = measure, shared, 0
        self._stream = secrets.randbelow(2**20) if shared else 0  # so that workers choose differently
        sampler = study.study.sampler
        self._sampler = sampler if isinstance(sampler, RaceSampler) else None
        pruner = study.study.pruner
        self._pruner = pruner if isinstance(pruner, RacePruner) else None
        self._headroom: HeadroomTest | None = None
        self.widen(space)

    @property
    def is_own(self) -> bool:
        """Whether the lab's own sampler chooses."""
        return self._sampler is not None

    def widen(self, space: Space) -> None:
        """Choose from another space from now on, with more texts or demonstrations."""
        self.space = space
        if self._sampler is not None:
            self._sampler.drawn = drawn_from(space, self._distributions)

    def enqueue(self, candidate: Candidate) -> None:
        """Let a candidate wait, unless it is in the race already; it plays before anything else is chosen."""
        if not self._has(candidate):
            params = self.space.params(candidate)
            fixed = {name: candidate.settings[name] for name in self._distributions}
            self.study.enqueue({} if params is None else fixed, **attributes(candidate))

    def open_with(self, count: int) -> None:
        """The first `count` trials opened the race: whether candidates differ is looked for among them."""
        known = self.study.fact("headroom") is not None
        self._headroom = HeadroomTest(range(count), self._measure) if self._sampler and not known else None

    # What is next

    def next(self) -> Move | None:
        """Return what should be begun next, or None while all that could be played is being played."""
        if (broken_off := self._broken_off()) is not None:
            return broken_off
        if self.study.in_state(TrialState.WAITING):
            return Move(None, range(1))
        if (again := self._asked_again()) is not None:
            return Move(again, range(1, 2))
        idle = {number: one for number, one in self.open.items() if self._may_go_on(one)}
        choice = self._choice(sorted(idle))
        if choice is None:
            return None
        if choice == NEW:
            return Move(None, range(1))
        one = idle[choice]
        return Move(one, self._missing(one, self._rung(one.reported + 1)))

    def ask(self) -> OpenTrial | None:
        """Begin a trial: one that waits, or one of the sampler's choice; None where that is nothing new."""
        trial = self.study.ask(self._asked_distributions())
        frozen = self.study.known[trial.number]
        candidate = candidate_of(frozen) or self._new_candidate(trial, frozen)
        if candidate is None:
            return None
        self.study.describe(trial, note_of(candidate))
        return self.opened(trial, candidate)

    def opened(self, trial: optuna.Trial, candidate: Candidate) -> OpenTrial:
        """From now on this process plays a trial."""
        frozen = self.study.known[trial.number]
        one = OpenTrial(trial, number_of(frozen), candidate, reported=len(frozen.intermediate_values))
        self.open[trial.number] = one
        return one

    def take_up(self) -> list[OpenTrial]:
        """Go on with the trials of a process that died."""
        for trial in self.study.in_state(TrialState.RUNNING):
            taken = self.study.take_up(trial)
            candidate = candidate_of(trial)
            if candidate is None and trial.params.keys() == self._distributions.keys():
                candidate = self._new_candidate(taken, trial)
            if candidate is None:  # it died before all of that was chosen: it will be chosen again
                self.study.tell(taken, TrialState.FAIL)
            else:
                self.opened(taken, candidate)
        return list(self.open.values())

    def begin(self, one: OpenTrial, steps: Sequence[int]) -> None:
        """These steps are being played."""
        if self._shared:
            self.study.note(one.trial, "begun", one.reported + len(steps))
        one.playing |= set(steps)

    @property
    def playing(self) -> int:
        """How many episodes this process plays."""
        return sum(len(one.playing) for one in self.open.values())

    def elsewhere(self) -> int:
        """How many episodes other processes have begun and not reported."""
        if not self._shared:
            return 0
        others = [one for one in self.study.in_state(TrialState.RUNNING) if one.number not in self.open]
        return sum(max(one.user_attrs.get("begun", 1) - len(one.intermediate_values), 0) for one in others)

    # What came of it

    def report(self, one: OpenTrial, step: int, value: float, cost: float | None = None) -> bool:
        """An episode has ended; whether that ended a rung.

        Args:
            value: by the number that the study maximises.
            cost: where the objective has one.
        """
        if cost is not None:
            costs = self.study.known[one.trial.number].user_attrs.get("costs", {})
            self.study.note(one.trial, "costs", {**costs, str(step): cost})
        self.study.report(one.trial, value, step)
        one.playing.discard(step)
        one.reported += 1
        if one.trial.number not in self.open or one.playing:
            return False
        frozen = self.study.known[one.trial.number]
        if not frozen.params:
            return True  # it stays open to the end: samplers know nothing of a trial outside the space
        if self._is_pruned(frozen):
            self._drop(one)
        elif one.reported == self._episodes:
            values = frozen.intermediate_values.values()
            self._tell(one, TrialState.COMPLETE, sum(values) / len(values))
        return True

    def cut(self, one: OpenTrial, step: int, bound: float) -> None:
        """An episode was ended in the middle, because `drops` said so of the highest value in its reach."""
        one.playing.discard(step)
        if one.trial.number in self.open:
            self.study.note(one.trial, "cut", [step, bound])
            self._drop(one)

    def fail(self, one: OpenTrial, reason: str) -> None:
        """A trial cannot be played: a candidate that can break its own calls is no candidate."""
        if one.trial.number in self.open:
            self.study.note(one.trial, "reason", reason)
            self._tell(one, TrialState.FAIL)

    def drops(self, one: OpenTrial, step: int, bound: float) -> bool:
        """Whether a trial is shown to be worse even if this episode comes to the highest value in reach."""
        number = one.trial.number
        return self._pruner is not None and self._pruner.drops(self.study.known, number, (step, bound))

    @property
    def drops_in_the_middle(self) -> bool:
        """Whether an episode can be ended before its end."""
        return self._pruner is not None

    def end(self) -> None:
        """The race is over: what is running ends with what it has."""
        for one in list(self.open.values()):
            played = self.study.known[one.trial.number].intermediate_values
            self._tell(one, TrialState.PRUNED if played else TrialState.FAIL)

    def headroom(self) -> Headroom | None:
        """Return whether candidates differ, once, as soon as it is known."""
        if self._headroom is None:
            return None
        known = self.study.known
        failed = [number_of(one) for one in known if one.state is TrialState.FAIL and not is_taken_over(one)]
        found = self._headroom.look(first_two(known), failed)
        if found is not None:
            self._headroom = None
        return found

    def _is_pruned(self, trial: FrozenTrial) -> bool:
        if self._pruner is not None:  # it needs nothing that is not known here already
            return self._pruner.drops(self.study.known, trial.number)
        return self.study.study.pruner.prune(self.study.study, trial)

    def _choice(self, idle: Sequence[int]) -> int | None:
        if self._sampler is not None:
            return self._sampler.choose(self.study.study, idle, self.playing + self._stream)
        if idle:
            return idle[0]
        return NEW if self._repeats < REPEATS else None

    def _broken_off(self) -> Move | None:
        """What an earlier process began of a trial's rung and did not end."""
        for one in self.open.values():
            missing = self._missing(one, self._rung(max(one.reported, 1)))
            if missing and not one.playing:
                return Move(one, missing)
        return None

    def _missing(self, one: OpenTrial, episodes: int) -> list[int]:
        """The first steps that a trial has not reported."""
        reported = self.study.known[one.trial.number].intermediate_values
        return [step for step in range(episodes) if step not in reported]

    def _asked_again(self) -> OpenTrial | None:
        """A trial whose second episode the headroom test asks for."""
        asked = self._headroom.asked if self._headroom else []
        able = (one for one in self.open.values() if one.number in asked and not one.playing)
        return next((one for one in able if one.reported == 1 < self._episodes), None)

    def _may_go_on(self, one: OpenTrial) -> bool:
        inside = bool(self.study.known[one.trial.number].params)
        return inside and not one.playing and 0 < one.reported < self._episodes

    def _rung(self, episodes: int) -> int:
        """The end of the rung that has so many: by the lab's own rule 1, 2, 4, ...; else each is one."""
        own = self._sampler is not None and self._pruner is not None
        return min(1 << (episodes - 1).bit_length() if own else episodes, self._episodes)

    def _asked_distributions(self) -> dict[str, BaseDistribution]:
        """None for a trial that waits without parameters: it plays what lies outside the space."""
        waiting = self.study.in_state(TrialState.WAITING)
        if not waiting:
            return self._distributions
        params = waiting[0].system_attrs.get("fixed_params") or waiting[0].params
        return self._distributions if params else {}

    def _new_candidate(self, trial: optuna.Trial, frozen: FrozenTrial) -> Candidate | None:
        """What the sampler chose, unless it has been tried or its text is not written yet."""
        name = frozen.params.get("template")
        if name is not None and name not in self.space.templates:
            self._refuse(trial, f"the text {name} has not been written")
            return None
        candidate = self.space.candidate(frozen.params)
        if self._has(candidate):
            self._refuse(trial, "another trial plays the same")
            return None
        self._repeats = 0
        for key, value in attributes(candidate).items():
            self.study.note(trial, key, value)
        self.study.read()
        return candidate

    def _has(self, candidate: Candidate) -> bool:
        """Whether a trial plays it, or has."""
        return any(one.user_attrs.get("digest") == candidate.digest for one in self.study.known)

    def _refuse(self, trial: optuna.Trial, reason: str) -> None:
        self._repeats += 1
        self.study.note(trial, "reason", reason)
        self.study.tell(trial, TrialState.FAIL)

    def _drop(self, one: OpenTrial) -> None:
        self.study.note(one.trial, "dropped", True)
        self._tell(one, TrialState.PRUNED)

    def _tell(self, one: OpenTrial, state: TrialState, value: float | None = None) -> None:
        del self.open[one.trial.number]
        self.study.tell(one.trial, state, value)
