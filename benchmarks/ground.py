"""A Ground: the space that a method searches, live or recorded, and its budget.

It owns the exact count of calls and the list of picks; its subclasses provide the episodes. It is
synchronous, because the methods are.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Condition
from typing import Protocol

from lab.agent.candidate import Candidate
from lab.agent.episode import Episode
from lab.experiment.experiment import Experiment


class OutOfCalls(BaseException):  # not an error: it ends a method's run
    """The budget does not allow the request, so none of it was done.

    It is not an `Exception`, because the peers' packages catch those, count a failed trial and continue.
    """


class Broken(BaseException):  # passes through the peers' packages as `OutOfCalls` does
    """Endpoint or environment failed for good: the run is invalid, and must be repeated."""


@dataclass(frozen=True)
class Pick:
    """What a method would use if it stopped now.

    Attributes:
        calls: Number of calls spent when it was chosen.
        claimed: Its gain over the baseline by the method's own account, in reward; None without one.
        interval: Confidence interval of that gain, if the method has one.
    """

    calls: int
    candidate: Candidate
    claimed: float | None = None
    interval: tuple[float, float] | None = None


class Ground(Protocol):
    """A method's view of a comparison.

    Attributes:
        experiment: Space, baseline, task and description.
        seed: Seed of the method's own randomness.
        seeds: Environment seeds of the search; disjoint from the holdout's.
        calls: Number of calls spent so far; an answered question counts as one.
        can_ask: Whether there is a model that proposes texts.
        picks: One for each `choose`; the first is the baseline, with 0 calls.
    """

    experiment: Experiment
    seed: int
    seeds: range
    budget_calls: int
    can_ask: bool
    picks: list[Pick]

    @property
    def calls(self) -> int:
        """Number of calls spent so far."""
        ...

    def play(self, candidate: Candidate, seeds: Sequence[int]) -> list[Episode]:
        """Play one episode of `candidate` for each seed, in the seeds' order.

        Raises:
            OutOfCalls: The budget does not allow all of them.
            ConfigError: The candidate's text names a field that the environment's observations do not have.
        """
        ...

    def ask(self, prompt: str) -> str:
        """Call the proposing model once; the answer is empty if the call failed.

        Raises:
            OutOfCalls: No call is left.
        """
        ...

    def choose(
        self,
        candidate: Candidate,
        claimed: float | None = None,
        interval: tuple[float, float] | None = None,
    ) -> None:
        """Set the method's current pick, and what it claims for it; see `Pick`."""
        self.picks.append(Pick(self.calls, candidate, claimed, interval))


Method = Callable[[Ground], None]
"""Searches until the budget is used up, or the method ends."""


class Ledger:
    """Calls spent and reserved within a budget, by many threads."""

    def __init__(self, budget_calls: int) -> None:
        self.budget_calls = budget_calls
        self.spent, self._promised, self._lock = 0, 0, Condition()

    def promise(self, calls: int) -> None:
        """Reserve `calls`.

        Raises:
            OutOfCalls: Fewer are left.
        """
        with self._lock:
            if self.spent + self._promised + calls > self.budget_calls:
                raise OutOfCalls
            self._promised += calls

    def settle(self, promised: int, spent: int) -> None:
        """Replace a reservation by the calls actually spent."""
        with self._lock:
            self._promised -= promised
            self.spent += spent
            self._lock.notify_all()

    def close(self) -> None:
        """Refuse further reservations, and wait until all are settled."""
        with self._lock:
            self.budget_calls = 0
            self._lock.wait_for(lambda: self._promised == 0)


def pick_at(picks: Sequence[Pick], calls: int) -> Pick:
    """The pick of a run that stops after this many calls."""
    return [pick for pick in picks if pick.calls <= calls][-1]
