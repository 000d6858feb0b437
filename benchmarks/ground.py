"""A Ground: what every method is given to search on, live or recorded, and what it may spend there.

It owns the exact count of calls and the list of picks; where the episodes come from is its subclasses'.
It is synchronous, because the methods are.
"""

from collections.abc import Callable, Sequence
from threading import Condition
from typing import Protocol

from lab.agent.candidate import Candidate
from lab.agent.episode import Episode
from lab.experiment.experiment import Experiment


class OutOfCalls(BaseException):  # no error: how a method's run ends
    """The budget does not allow what was asked for, so nothing of it was done.

    It is no `Exception`: the peers' packages catch those, count them as a failed trial and go on.
    """


class Broken(BaseException):  # passes through the peers' packages as `OutOfCalls` does
    """Endpoint or environment failed for good: the run is worth nothing, and is owed again."""


class Ground(Protocol):
    """What a method sees.

    Attributes:
        experiment: space, baseline, task and what it is about.
        seed: for the method's own randomness.
        seeds: the search's environment seeds, plenty; the holdout's are never among them.
        calls: spent so far; an answered question counts as one.
        can_ask: whether there is a model that proposes texts.
        picks: (calls spent, pick), one for each `choose`; the first is the baseline, for nothing.
    """

    experiment: Experiment
    seed: int
    seeds: range
    budget_calls: int
    can_ask: bool
    picks: list[tuple[int, Candidate]]

    @property
    def calls(self) -> int:
        """Spent so far."""
        ...

    def play(self, candidate: Candidate, seeds: Sequence[int]) -> list[Episode]:
        """One episode of `candidate` for each seed, in the seeds' order.

        Raises:
            OutOfCalls: the budget does not allow the whole of it.
        """
        ...

    def ask(self, prompt: str) -> str:
        """One call to the proposing model; empty where it failed.

        Raises:
            OutOfCalls: no call is left.
        """
        ...

    def choose(self, candidate: Candidate) -> None:
        """Say: if I had to stop now, this would be my pick."""
        ...


Method = Callable[[Ground], None]
"""Searches until the budget is used up, or ends by itself."""


class Ledger:
    """Calls spent and promised against a budget, from many threads."""

    def __init__(self, budget_calls: int) -> None:
        self.budget_calls = budget_calls
        self.spent, self._promised, self._lock = 0, 0, Condition()

    def promise(self, calls: int) -> None:
        """Set `calls` aside.

        Raises:
            OutOfCalls: there are not as many left.
        """
        with self._lock:
            if self.spent + self._promised + calls > self.budget_calls:
                raise OutOfCalls
            self._promised += calls

    def settle(self, promised: int, spent: int) -> None:
        """Turn a promise into what was really spent."""
        with self._lock:
            self._promised -= promised
            self.spent += spent
            self._lock.notify_all()

    def close(self) -> None:
        """Promise nothing any more, and return when all promises are settled."""
        with self._lock:
            self.budget_calls = 0
            self._lock.wait_for(lambda: self._promised == 0)


def pick_at(picks: Sequence[tuple[int, Candidate]], calls: int) -> Candidate:
    """What would have been picked, had the run been stopped after so many calls."""
    return [candidate for spent, candidate in picks if spent <= calls][-1]
