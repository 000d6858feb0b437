"""Results: what several studies found, as values to compare: one study each, or two on their holdouts.

It owns whether two holdouts are the same, and the difference between what two studies froze. A study is read
by `lab.study.past_study`; tables and sentences are the callers'.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lab.agent.evaluation import Evaluation, trial_name
from lab.errors import LabError
from lab.experiment.experiment import Experiment
from lab.search.trials import seeds_of
from lab.stats.format import estimate_text
from lab.stats.intervals import Estimate, sign_flip_p, t_interval, welch_interval
from lab.storage.keys import HOLDOUT
from lab.storage.storage import Storage
from lab.study.listing import Listed, listing
from lab.study.past_study import PastStudy, Which, read_past, reading
from lab.submission.frozen import Evidence
from lab.verdict.words import claim

LAST = 10
"""Studies of an experiment that `history` reads."""

Holdout = Literal["same", "overlapping", "other", "incomparable"]
"""A holdout beside another: the same seeds; some of them; none; or another environment, task or measure."""


@dataclass(frozen=True)
class Result:
    """What a study with a verdict found.

    Attributes:
        model: The models that played, for people.
        frozen: Name of the trial that was frozen.
        played: Its holdout episodes.
        seeds: The holdout's seeds, as planned.
        dollars: Cost of the whole study; None if a price is unknown.
        minutes: Working time.
    """

    study: str
    experiment: Experiment
    model: str
    claim: str
    frozen: str
    played: Evaluation
    evidence: Evidence
    seeds: range
    calls: int
    tokens: int
    dollars: float | None
    minutes: float

    @property
    def gain(self) -> str:
        """The difference from the baseline, for people; 0 if the baseline was frozen."""
        return "0" if self.evidence.outcome == "baseline" else estimate_text(self.evidence.gap, sign=True)


@dataclass(frozen=True)
class Between:
    """What two studies froze, compared by their holdout episodes.

    Attributes:
        holdout: Whether the holdouts are the same.
        difference: `one`'s mean value minus `other`'s: paired over the common seeds if there are two or more,
            else Welch's interval; None if they are incomparable. It holds for all comparisons together.
        p_value: Of the paired sign-flip test, corrected likewise; None if they are not paired.
    """

    one: Result
    other: Result
    holdout: Holdout
    difference: Estimate | None
    p_value: float | None


@dataclass(frozen=True)
class Past:
    """A study of an experiment, and what it found.

    Attributes:
        result: None without a verdict.
        holdout: Beside that of the latest study with a verdict, or of one given; None without a verdict.
    """

    listed: Listed
    result: Result | None
    holdout: Holdout | None


def result_of(past: PastStudy) -> Result:
    """What a study found.

    Raises:
        LabError: It has no verdict.
    """
    outcome = past.finished()
    verdict, spent = outcome.verdict, outcome.spending
    return Result(
        study=outcome.study,
        experiment=outcome.experiment,
        model=outcome.experiment.models_text(outcome.model),
        claim=claim(outcome.frozen_prompt()),
        frozen=trial_name(outcome.chosen[0]),
        played=verdict.frozen,
        evidence=outcome.evidence,
        seeds=seeds_of(outcome.experiment, HOLDOUT),
        calls=spent.calls,
        tokens=spent.tokens,
        dollars=spent.cost,
        minutes=outcome.judged.minutes,
    )


def holdout_of(one: Result, other: Result) -> Holdout:
    """How the holdout of `one` is related to that of `other`."""
    places = [
        (each.experiment.environment, each.experiment.task, each.played.measure) for each in (one, other)
    ]
    if places[0] != places[1]:
        return "incomparable"
    if one.seeds == other.seeds:
        return "same"
    return "overlapping" if set(one.seeds) & set(other.seeds) else "other"


def compared(results: Sequence[Result]) -> list[Between]:
    """Compare what each study froze with what the first did.

    An interval has the higher of two confidence levels; intervals and p-values hold together (Bonferroni).
    """
    first, *others = results
    return [_between(one, first, len(others)) for one in others]


def _between(one: Result, other: Result, comparisons: int) -> Between:
    holdout, confidence = holdout_of(one, other), max(one.evidence.confidence, other.evidence.confidence)
    mine, theirs = one.played.values, other.played.values
    if holdout == "incomparable":
        return Between(one, other, holdout, None, None)
    gaps = [mine[seed] - theirs[seed] for seed in mine if seed in theirs]
    if len(gaps) > 1:
        p_value = min(1.0, sign_flip_p(gaps) * comparisons)
        return Between(one, other, holdout, t_interval(gaps, confidence, comparisons), p_value)
    gap = welch_interval([*mine.values()], [*theirs.values()], confidence, comparisons)
    return Between(one, other, holdout, gap, None)


def read_result(name: str) -> Result:
    """What the study of this name found.

    Raises:
        LabError: It does not exist, is damaged, or has no verdict.
    """
    with reading(Which(Path(), name)) as past:
        return result_of(past)


def history(storage: Storage, experiment: str, beside: Result | None = None) -> list[Past]:
    """How the last studies of an experiment went, latest first; a study that cannot be read has no result.

    Args:
        beside: The study that holdouts are compared with, in place of the latest with a verdict.
    """
    studies = listing(storage, experiment)[:LAST]
    results = [beside if beside and one.name == beside.study else _result(one, storage) for one in studies]
    beside = beside or next((one for one in results if one), None)
    return [
        Past(listed, result, holdout_of(result, beside) if result and beside else None)
        for listed, result in zip(studies, results, strict=True)
    ]


def _result(listed: Listed, storage: Storage) -> Result | None:
    if listed.state != "finished":
        return None
    try:
        return result_of(read_past(storage, Which(Path(), listed.name)))
    except LabError:
        return None
