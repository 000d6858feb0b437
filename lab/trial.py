"""A Trial: a candidate and what it has played in the search so far."""

from dataclasses import dataclass

from lab.candidate import Candidate
from lab.evaluation import Evaluation

BASELINE = -1
"""The baseline's number: it is played beside the trials."""


@dataclass(frozen=True)
class Trial:
    """One candidate of the search.

    Attributes:
        number: counts from 0, in the order of entering the race; BASELINE for the baseline.
        place: among all that played, when this was written; 1 is the incumbent.
        dropped: it was shown to be worse than another, and plays no more.
        cut: episodes that were ended in the middle for that.
    """

    number: int
    evaluation: Evaluation
    place: int = 1
    dropped: bool = False
    cut: int = 0

    @property
    def candidate(self) -> Candidate:
        """What was tried."""
        return self.evaluation.candidate

    @property
    def name(self) -> str:
        """For people, and for the run in MLflow."""
        return "baseline" if self.number == BASELINE else f"trial-{self.number:03d}"
