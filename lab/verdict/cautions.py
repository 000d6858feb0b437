"""Cautions: sentences that accompany a verdict wherever it is shown.

A number shown to be lower than the baseline's comes first; unusable answers come last.
"""

from lab.agent.task import OTHER, Measure
from lab.search.trouble_words import troubles_text
from lab.stats.format import estimate_text, number
from lab.verdict.verdict import Compared, Verdict

MOSTLY = 0.5
"""Share of the holdout from which a statement about most of it is made."""


def lower_cautions(verdict: Verdict) -> list[str]:
    """The number in which the frozen candidate is shown to be lower, and the finalists refused for that."""
    winner, name = verdict.winner, OTHER[verdict.measure]
    told = [f"Caution: {_lower(verdict, winner, name)}."] if winner and winner.other_is_lower else []
    cure = 'To freeze it anyway, set [objective] maximise = "return".'
    return told + [
        f"{one.trial.name} beats the baseline and is not frozen: {_lower(verdict, one, name)}. {cure}"
        for one in verdict.refused
    ]


def trouble_cautions(verdict: Verdict) -> list[str]:
    """If most answers of the frozen candidate, or all of a leading finalist, were unusable."""
    frozen = verdict.frozen.troubles
    said = list[str]()
    if frozen.share > MOSTLY:
        told = troubles_text(frozen)
        said.append(f"Most of the frozen prompt's holdout answers were unusable: {told}.")
    for one in verdict.finalists:
        ahead = one.better(1 - verdict.confidence) or one.cheaper
        if ahead and one.unseen.troubles.unusable:
            told = troubles_text(one.unseen.troubles)
            said.append(f"{one.trial.name} cannot win, because none of its answers was usable: {told}.")
    return said


def _lower(verdict: Verdict, one: Compared, name: Measure) -> str:
    worst = " of the worst task" if verdict.by == "worst" else ""
    own, base = (number(verdict.value(played.other)) for played in (one.unseen, verdict.baseline))
    return (
        f"the {name}{worst} of {one.trial.name} is shown to be lower than the baseline's,"
        f" {own} against {base} ({estimate_text(one.other, sign=True)})"
    )
