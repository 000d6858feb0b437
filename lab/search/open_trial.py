"""Running trials of this process, the moves that continue or begin one, and the order of their episodes."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import optuna

from lab.agent.candidate import Candidate
from lab.search.headroom import TRIED

STARTS = 4
"""Number of instances of which new trials begin with one, in turn. If it were always the same one, and all
fail there, or all succeed, nothing would be learnt from new trials. From the rung of four on, all trials have
the same instances."""


@dataclass
class OpenTrial:
    """A running trial of this process.

    Attributes:
        number: Number shown to people.
        playing: Steps being played.
        reported: Number of reported steps.
        owed: Episodes before it may be dropped.
        begun: Steps that an earlier process started, and did not finish.
    """

    trial: optuna.Trial
    number: int
    candidate: Candidate
    playing: set[int] = field(default_factory=set)
    reported: int = 0
    owed: int = 0
    begun: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class Move:
    """What to start next.

    Attributes:
        trial: The trial; None for one that is still to be asked for.
        steps: The steps to play.
        candidate: What plays them; None if that is still to be chosen.
    """

    trial: OpenTrial | None
    steps: Sequence[int]
    candidate: Candidate | None


def order_of(number: int, opening: int, instances: int) -> list[int]:
    """The order in which a trial plays the instances; those that the warm-up test compares begin alike.

    Args:
        number: The trial's number.
        opening: Number of initial trials.
        instances: Maximum instances of a trial.
    """
    first = number % min(STARTS, instances) if number >= TRIED * opening else 0
    return [first, *(one for one in range(instances) if one != first)]
