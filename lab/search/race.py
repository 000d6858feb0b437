"""The Race: what a study's trials play next, and how each trial ends.

All trials play the same instances, by the lab's own rule in rungs of 1, 2, 4, ..., each trial beginning with
one of the first four. Optuna has no hook for the choice between a new trial and one that could continue, so
`RaceSampler.choose` makes it here. The race plays nothing, and depends on no clock, endpoint or budget.
"""

import secrets
from collections.abc import Mapping, Sequence

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from lab.agent.candidate import Candidate
from lab.agent.task import Measure
from lab.experiment.space import Space
from lab.search.headroom import Headroom, HeadroomTest, as_headroom
from lab.search.new_trials import NewTrials
from lab.search.open_trial import Move, OpenTrial, order_of
from lab.search.pruner import RacePruner
from lab.search.sampler import NEW, RaceSampler
from lab.search.trials import candidate_of, number_of
from lab.storage.trials import Trials

REPEATS = 100
"""Consecutive trials without a new candidate after which the sampler is not asked again."""


class Race:
    """The race of one process.

    Attributes:
        open: Trials played by this process, by Optuna's number.
        new: How trials begin.

    Args:
        study: The study, with its sampler and pruner.
        distributions: The study's distributions, which contain every trial's parameters.
        episodes: Maximum episodes of a trial.
        shared: Whether other processes may work on the study.
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
        self.new = NewTrials(study, space, distributions, episodes)
        self._distributions = distributions
        self._episodes, self._measure, self._shared = episodes, measure, shared
        self._stream = secrets.randbelow(2**20) if shared else 0  # so that workers choose differently
        sampler = study.study.sampler
        self._sampler = sampler if isinstance(sampler, RaceSampler) else None
        pruner = study.study.pruner
        self._pruner = pruner if isinstance(pruner, RacePruner) else None
        self._headroom: HeadroomTest | None = None
        self._opening = 0

    @property
    def is_own(self) -> bool:
        """Whether the sampler is the lab's own."""
        return self._sampler is not None

    @property
    def episodes(self) -> int:
        """Number of reported episodes; -1 while a trial is owed some."""
        known, alive = self.study.known, self.study.in_state(TrialState.WAITING, TrialState.RUNNING)
        owes = any(len(one.intermediate_values) < one.user_attrs.get("owed", 0) for one in alive)
        return -1 if owes else sum(len(one.intermediate_values) for one in known)

    def open_with(self, count: int) -> None:
        """Make the warm-up test, after the first `count` trials; not again if it has found a difference."""
        self._opening = count
        before = as_headroom(self.study.fact("headroom"))
        if self._sampler and count and not (before and before.found):
            self._headroom = HeadroomTest(self._distributions, count, self._measure, before)

    # What is next

    def next(self) -> Move | None:
        """Return what to start next; None while everything that can be played is being played."""
        if begun := [one for one in self.open.values() if one.begun]:  # by an earlier process
            return Move(begun[0], sorted(begun[0].begun), begun[0].candidate)
        waiting = self.study.in_state(TrialState.WAITING)
        is_left = bool(waiting) and number_of(waiting[0]) != waiting[0].number  # by another worker
        if not is_left and (rest := self._rest_of_rung()) is not None:
            return rest
        if waiting:
            first = waiting[0]
            steps = self._first_steps(number_of(first), first.user_attrs.get("owed", 0))
            return Move(None, steps, candidate_of(first))
        if (again := self._wanted_by_headroom()) is not None:
            return Move(again, self._missing(again, 2), again.candidate)
        idle = {number: one for number, one in self.open.items() if self._can_continue(number, one)}
        choice = self._choice(sorted(idle))
        if choice is None:
            return None
        if choice == NEW:
            return Move(None, self._first_steps(len(self.study.known), 0), None)
        one = idle[choice]
        missing = self._missing(one, max(self._rung(one.reported + 1), one.owed))
        return Move(one, missing, one.candidate)

    def ask(self) -> OpenTrial | None:
        """Start a waiting trial, or the sampler's choice; None if that is not new."""
        asked = self.new.ask()
        return None if asked is None else self.opened(*asked)

    def opened(self, trial: optuna.Trial, candidate: Candidate) -> OpenTrial:
        """Add a trial to those played by this process."""
        frozen = self.study.known[trial.number]
        reported, owed = len(frozen.intermediate_values), frozen.user_attrs.get("owed", 0)
        one = OpenTrial(trial, number_of(frozen), candidate, reported=reported, owed=owed)
        self.open[trial.number] = one
        return one

    def first_steps(self, one: OpenTrial) -> list[int]:
        """The steps that a new trial plays first; none if it has ended, or played before."""
        is_new = one.trial.number in self.open and not (one.reported or one.playing or one.begun)
        return self._first_steps(one.number, one.owed) if is_new else []

    def take_up(self) -> list[OpenTrial]:
        """Resume the trials of a process that died."""
        for trial in self.study.in_state(TrialState.RUNNING):
            taken = self.study.take_up(trial)
            candidate = self.new.taken_up(taken, trial)
            if candidate is None:  # its parameters are sampled again
                self.study.tell(taken, TrialState.FAIL)
            else:
                self.opened(taken, candidate)
        return list(self.open.values())

    def begin(self, one: OpenTrial, steps: Sequence[int]) -> None:
        """Record that these steps are being played."""
        one.playing |= set(steps)
        one.begun -= set(steps)
        if self._shared:
            self.study.note(one.trial, "begun", one.reported + len(one.playing))

    def release(self) -> None:
        """Leave the trials to others that took them over, as this process seemed dead."""
        for number in [one for one in self.open if self.study.known[one].state.is_finished()]:
            del self.open[number]

    @property
    def playing(self) -> int:
        """Number of episodes that this process is playing."""
        return sum(len(one.playing) for one in self.open.values())

    def elsewhere(self) -> int:
        """Number of episodes that other processes have started and not reported."""
        if not self._shared:
            return 0
        others = [one for one in self.study.in_state(TrialState.RUNNING) if one.number not in self.open]
        return sum(max(one.user_attrs.get("begun", 1) - len(one.intermediate_values), 0) for one in others)

    # Results

    def report(self, one: OpenTrial, step: int, value: float, cost: float | None = None) -> bool:
        """Report an episode's value; returns whether it ended a rung.

        Args:
            value: The value that the study maximises.
            cost: The episode's cost, if the objective has one.
        """
        one.playing.discard(step)
        if one.trial.number not in self.open:  # it has ended meanwhile; the episode is on record
            return False
        if cost is not None:
            costs = self.study.known[one.trial.number].user_attrs.get("costs", {})
            self.study.note(one.trial, "costs", {**costs, str(step): cost})
        self.study.report(one.trial, value, step)
        one.reported += 1
        self.release()
        if one.trial.number not in self.open or one.playing:
            return False
        frozen = self.study.known[one.trial.number]
        if not frozen.params:
            return True  # it stays open to the end: samplers cannot learn from a trial outside the space
        if one.reported >= one.owed and self._is_pruned(frozen):
            self._drop(one)
        elif one.reported == self._episodes:
            values = frozen.intermediate_values.values()
            self._tell(one, TrialState.COMPLETE, sum(values) / len(values))
        return True

    def cut(self, one: OpenTrial, step: int, bound: float) -> None:
        """Drop a trial whose episode was ended early because of `drops`."""
        one.playing.discard(step)
        if one.trial.number in self.open:
            self.study.note(one.trial, "cut", [step, bound])
            self._drop(one)

    def fail(self, one: OpenTrial, reason: str) -> None:
        """Fail a trial whose candidate cannot be played."""
        if one.trial.number in self.open:
            self.study.note(one.trial, "reason", reason)
            self._tell(one, TrialState.FAIL)

    def drops(self, one: OpenTrial, step: int, bound: float) -> bool:
        """Whether a trial is shown to be worse even if this episode reaches its upper bound."""
        number = one.trial.number
        return self._pruner is not None and self._pruner.drops(self.study.known, number, (step, bound))

    @property
    def drops_in_the_middle(self) -> bool:
        """Whether the pruner can end an episode early."""
        return self._pruner is not None

    def end(self) -> None:
        """End the race; running trials end with the episodes they have."""
        for one in list(self.open.values()):
            played = self.study.known[one.trial.number].intermediate_values
            self._tell(one, TrialState.PRUNED if played else TrialState.FAIL)

    def headroom(self, *, last: bool = False) -> Headroom | None:
        """Return the result of the warm-up test if it is new; see `HeadroomTest.look`."""
        if self._headroom is None:
            return None
        seen = self._headroom.look(self.study.known, last=last)
        if seen is None:
            return None
        before = as_headroom(self.study.fact("headroom"))  # another worker may have found it
        if seen.found or (before and before.found):
            self._headroom = None
        return None if before and before.found else seen

    def _is_pruned(self, trial: FrozenTrial) -> bool:
        if self._pruner is not None:  # it can use the trials that were already read
            return self._pruner.drops(self.study.known, trial.number)
        return self.study.prunes(trial)

    def _choice(self, idle: Sequence[int]) -> int | None:
        if self._sampler is not None:
            return self._sampler.choose(self.study.study, idle, self.playing + self._stream)
        if idle:
            return idle[0]
        return NEW if self.new.repeats < REPEATS else None

    def _rest_of_rung(self) -> Move | None:
        """What is left of a rung that was interrupted, or that had no room as a whole."""
        for one in self.open.values():
            begun = one.reported + len(one.playing)
            rung = max(self._rung(max(begun, 1)), one.owed)
            if begun < rung and not (one.playing and begun == one.owed):  # what is owed is judged first
                rest = [step for step in self._missing(one, rung) if step not in one.playing]
                return Move(one, rest, one.candidate)
        return None

    def _steps(self, number: int) -> list[int]:
        """A trial's steps, in the order in which it plays them."""
        steps = self._episodes
        return order_of(number, self._opening, steps) if self._has_own_rule else list(range(steps))

    def _first_steps(self, number: int, owed: int) -> list[int]:
        return self._steps(number)[: max(owed, 1)]

    def _missing(self, one: OpenTrial, episodes: int) -> list[int]:
        """The next steps that a trial has not reported, until it has this many."""
        reported = self.study.known[one.trial.number].intermediate_values
        return [step for step in self._steps(one.number) if step not in reported][: episodes - len(reported)]

    def _wanted_by_headroom(self) -> OpenTrial | None:
        """A trial whose second episode the warm-up test needs."""
        asked = self._headroom.asked if self._headroom else []
        able = {one.number: one for one in self.open.values() if not one.playing and one.reported == 1}
        return next((able[one] for one in asked if one in able), None) if self._episodes > 1 else None

    def _can_continue(self, number: int, one: OpenTrial) -> bool:
        able = not one.playing and 0 < one.reported < self._episodes
        return able and bool(self.study.known[number].params)

    def _rung(self, episodes: int) -> int:
        """Episodes at the end of this rung: 1, 2, 4, ... by the lab's own rule, else each is a rung."""
        return min(1 << (episodes - 1).bit_length() if self._has_own_rule else episodes, self._episodes)

    @property
    def _has_own_rule(self) -> bool:
        return self._sampler is not None and self._pruner is not None

    def _drop(self, one: OpenTrial) -> None:
        self.study.note(one.trial, "dropped", True)
        self._tell(one, TrialState.PRUNED)

    def _tell(self, one: OpenTrial, state: TrialState, value: float | None = None) -> None:
        del self.open[one.trial.number]
        self.study.tell(one.trial, state, value)
