"""Running trials of this process, and the moves that continue or begin one."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import optuna

from lab.agent.candidate import Candidate


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
