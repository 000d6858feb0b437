"""The verdict in words: the same on the terminal, in the report and MLflow, for `--json`, show and compare.

It owns the claim, the cautions, the figures of a difference, and the reasons to doubt a verdict. A claim is
made from an Evidence, so a study and its frozen file give the same one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf, isclose

from lab.agent.evaluation import Evaluation, trial_name
from lab.agent.task import OTHER, Measure
from lab.search.trouble_words import troubles_text
from lab.stats.format import LESS, MORE, count, estimate_with_n, interval, mean, number, p_text, percent
from lab.stats.intervals import FEW_PAIRS, Estimate, lowest_sign_flip_p
from lab.submission.frozen import Evidence, FrozenPrompt
from lab.verdict.verdict import Compared, Verdict

MOSTLY = 0.5
"""Share of the holdout from which a statement about most of it is made."""

UNIT = {"return": "reward", "score": "score"}
"""Unit of each measure."""


def claim(frozen: FrozenPrompt) -> str:
    """The verdict in one line: cautions, what is frozen and why, and how many planned pairs are missing."""
    evidence = frozen.evidence
    parts = (evidence.caution, _claim(evidence, trial_name(frozen.provenance.trial)), evidence.shortfall)
    return " ".join(filter(None, parts))


def _claim(evidence: Evidence, name: str) -> str:
    measure, where = evidence.judged, "than the baseline on unseen episodes"
    if evidence.outcome == "unvalidated":
        return (
            f"NOT VALIDATED on unseen episodes: {name} led the search when it ended. All figures are the"
            " search's, in which the best of many is overestimated: expect less on new episodes."
        )
    if evidence.outcome == "winner":
        told = f"{better(measure)} {where}"
    elif evidence.outcome == "cheaper":
        saving = f", by {evidence.saving}" if evidence.saving else ""
        told = f"costs less {where}{saving}; its {measure} is within the objective's tolerance"
    elif evidence.caution:
        return "Frozen: the baseline."
    else:
        n = f"n = {count(evidence.episodes, 'episode')} each"
        return f"Frozen: the baseline. {not_shown('it', f'{n}; {evidence.method}')}"
    return f"Frozen: {name} {told}: {evidence_figures(evidence)} ({evidence.method})."


def not_shown(baseline: str, test: str) -> str:
    """No candidate beat the baseline, as it is named here; `test` has the figures."""
    shown = f"No candidate was shown to beat {baseline} on unseen episodes ({test})."
    return f"{shown} This does not prove that none is better."


def evidence_figures(evidence: Evidence) -> str:
    """The frozen candidate's value and its difference from the baseline; see `figures`."""
    value, gap, relative = evidence.frozen_value.mean, evidence.gap, None
    if evidence.relative_interval:
        share, (low, high) = gap.mean / evidence.baseline_value.mean, evidence.relative_interval
        relative = Estimate(share, low, high, gap.n)
    return figures(value, gap, evidence.confidence, evidence.p_value, relative=relative)


def better(measure: str, gap: float = 1.0) -> str:
    """`returns more` or `scores higher`; with a negative difference, `returns less` or `scores lower`."""
    return f"{measure}s {(MORE if gap > 0 else LESS).get(measure, 'differently')}"


def figures(
    value: float,
    gap: Estimate,
    confidence: float,
    p_value: float | None = None,
    versus: str = "baseline",
    relative: Estimate | None = None,
) -> str:
    """`664.4 (+239.6 vs. baseline, +56 %; 95 % interval [+195.8, +283.3]), n = 16 episodes each, p = 3e-05`.

    Args:
        value: The candidate's mean.
        gap: That value minus the other candidate's, with its interval.
        p_value: Left out if None.
        versus: Name of the other candidate.
        relative: The difference as a share of the other's mean, where that is shown to be above zero.
    """
    share = f", {relative.mean:+.0%}".replace("%", " %") if relative and relative.mean else ""
    ends = f"{percent(confidence)} interval {interval(gap, sign=True)}"
    told = f"{number(value)} ({mean(gap, sign=True)} vs. {versus}{share}; {ends})"
    test = "" if p_value is None else f", {p_text(p_value)}"
    return f"{told}, n = {count(gap.n, 'episode')} each{test}"


def evidence_rows(frozen: FrozenPrompt) -> list[tuple[str, str, str]]:
    """A table of the evidence: in each row a figure's name, the frozen candidate's and the baseline's."""
    evidence = frozen.evidence
    ours, theirs = map(estimate_with_n, (evidence.frozen_value, evidence.baseline_value))
    mark = " (estimated)" if frozen.provenance.estimated_calls else ""
    other: Measure = "return" if evidence.judged == "score" else "score"
    mine, its = evidence.frozen_score, evidence.baseline_score
    if other == "return":
        mine, its = evidence.frozen_return, evidence.baseline_return
    return [
        (f"mean {evidence.judged}, {percent(evidence.confidence)} interval", ours, theirs),
        (f"mean {other}", measure_text(other, mine), measure_text(other, its)),
        (f"tokens per episode{mark}", f"{evidence.frozen_tokens:,.0f}", f"{evidence.baseline_tokens:,.0f}"),
    ]


def measure_text(measure: Measure, value: float) -> str:
    """A return as its size needs it; a score with three decimals."""
    return f"{value:.3f}" if measure == "score" else number(value)


def other_mean(evaluation: Evaluation) -> str:
    """The mean of the number that is not judged."""
    return measure_text(evaluation.other.measure, evaluation.other.mean)


def cautions(verdict: Verdict) -> list[str]:
    """What the data show against the outcome: a lower return or score, and finalists refused for that."""
    winner = verdict.winner
    told = [f"Caution: {_lower(verdict, winner)}."] if winner and winner.other_is_lower else []
    cure = 'To freeze it anyway, set [objective] maximise = "return".'
    return told + [
        f"{one.trial.name} beats the baseline and is not frozen: {_lower(verdict, one)}. {cure}"
        for one in verdict.refused
    ]


def _lower(verdict: Verdict, one: Compared) -> str:
    worst = " of the worst task" if verdict.by == "worst" else ""
    value = verdict.value(one.unseen.other)
    other = figures(value, one.other, verdict.confidence, relative=one.other_relative)
    name = f"the {OTHER[verdict.measure]}{worst} of {one.trial.name}"
    return f"{name} is shown to be lower than the baseline's: {other}"


def trouble_cautions(verdict: Verdict) -> list[str]:
    """If most answers of the frozen candidate, all in a task, or all of a leading finalist were unusable."""
    frozen, by_task = verdict.frozen.troubles, verdict.frozen.troubles_by_task
    told = list[str]()
    if frozen.share > MOSTLY:
        told.append(f"Most of the frozen prompt's holdout answers were unusable: {troubles_text(frozen)}.")
    mute = {task: troubles for task, troubles in by_task.items() if troubles.unusable}
    for task, troubles in mute.items() if len(mute) < len(by_task) else ():
        why = troubles_text(troubles)
        told.append(f"None of the frozen prompt's holdout answers in task {task} was usable: {why}.")
    for one in verdict.finalists:
        troubles = one.unseen.troubles
        if troubles.unusable and (one.better(1 - verdict.confidence) or one.cheaper):
            why = troubles_text(troubles)
            told.append(f"{one.trial.name} cannot win, because none of its answers was usable: {why}.")
    return told


def shortfall(pairs: int, planned: int, limit: str) -> str:
    """How many of the planned pairs the verdict is based on, and why; empty if all were completed."""
    if pairs == planned:
        return ""
    why = f"{limit} was reached" if limit else "the others failed"
    return f"The verdict is based on {pairs} of {planned} planned pairs of episodes: {why}."


def alike(value: float) -> str:
    """All episodes of the study returned the same."""
    return f"Every episode returned {number(value)}, so candidates cannot be told apart."


REPEATED = "Each candidate's episodes returned the same, as if neither seeds nor the model's answers varied."
"""No candidate has two episodes of a task with different returns."""


def at_limit(
    scores: Sequence[float], measure: Measure, episodes: str = "holdout episode", least: float = MOSTLY
) -> list[str]:
    """A sentence for each limit of the score that at least this share of the episodes reached."""
    shares = {"maximum": sum(score >= 1 for score in scores) / len(scores)}
    cure = "compare returns instead"
    if measure == "score":
        shares["minimum"] = scores.count(0.0) / len(scores)
        cure = 'scores cannot tell these apart. To compare returns, set [objective] maximise = "return"'
    played = count(len(scores), episodes)
    return [
        f"{'All' if share == 1 else f'{percent(share)} of'} {played} reached the {limit} score; {cure}."
        for limit, share in shares.items()
        if 0 < share >= least
    ]


def below_scores(verdict: Verdict) -> list[str]:
    """If every episode of the holdout scores 0, although their returns differ."""
    played, task = verdict.holdout.values(), verdict.baseline.task
    returns = [value for one in played for value in one.returns.values()]
    if task.own_score or any(any(one.scores) for one in played) or len(set(returns)) < 2:
        return []
    differ = f"returns from {number(min(returns))} to {number(max(returns))}"
    cure = "set task.min_return to the return that is a score of 0"
    return [f"Every holdout episode scores 0, with {differ}: {cure}."]


@dataclass(frozen=True)
class Doubt:
    """A reason for doubt.

    Attributes:
        known: The figure, in a sentence.
        wanted: What would settle the doubt.
    """

    known: str
    wanted: str


def doubts(verdict: Verdict, tests: int) -> Iterator[Doubt]:
    """The reasons to doubt a verdict that its holdout gives.

    Args:
        tests: Number of tests that the verdict is corrected for.
    """
    for one in verdict.finalists[:1] if verdict.winner is None else [verdict.winner]:
        yield from _wide(verdict, one, tests)
    if verdict.earlier:
        yield Doubt(
            f"This is verdict {verdict.number} of the study, and each may err with its own"
            f" {percent(1 - verdict.confidence)}. The one before: {verdict.earlier[-1]}",
            "The frozen prompt on fresh episodes, by lab.compare.",
        )
    scores = [score for one in verdict.holdout.values() for score in one.scores]
    wanted = "Whether the evaluator uses the score alone: then a gain in return is worth nothing."
    if verdict.measure == "score":
        wanted = "Which candidate returns more."
    yield from (Doubt(told, wanted) for told in at_limit(scores, verdict.measure, least=0))
    if verdict.winner:
        yield _shrinkage(verdict.winner)
    if verdict.winner and len(verdict.finalists) == 1 and len(verdict.confirmed) > 1:
        yield Doubt(
            f"One finalist of {len(verdict.confirmed)} confirmed candidates played the holdout: it was"
            " compared with the baseline only, and not shown to be the best candidate.",
            "The others' holdout results: raise verdict.finalists.",
        )
    if len(verdict.finalists) > 1:
        yield Doubt(
            f"{len(verdict.finalists)} finalists share the holdout; intervals and p-values are corrected for"
            " that, but the choice among those that beat the baseline is not tested.",
            "Which of them is better, head to head on fresh episodes.",
        )
    if lost := sum(len(one.failed) for one in verdict.holdout.values()):
        yield Doubt(
            f"{count(lost, 'holdout episode')} failed, and are excluded from the comparison.",
            "Whether they failed at random, or because of the candidate's requests.",
        )


def _wide(verdict: Verdict, one: Compared, tests: int) -> Iterator[Doubt]:
    gap = one.difference
    half, n = gap.high - gap.mean, count(gap.n, "holdout episode")
    if half < inf and (half or gap.mean):
        size = abs(gap.mean)
        share = f"{percent(half / size)} of it" if half < size else "more than the difference itself"
        known = f" and is known to ±{number(half)} {UNIT[verdict.measure]}, {share}" if half else ""
        yield Doubt(
            f"The difference rests on {n} of each candidate{known}.",
            f"The result of {4 * gap.n} holdout episodes, with an interval about half as wide.",
        )
    if gap.n <= FEW_PAIRS and verdict.by == "mean":
        lowest = min(1.0, lowest_sign_flip_p(gap.n) * tests)
        yield Doubt(
            f"With {n} the sign-flip test cannot give a p-value below {lowest:.2g}.",
            "The result of more holdout episodes: the t interval assumes nearly normal values.",
        )


def _shrinkage(winner: Compared) -> Doubt:
    searched, unseen = winner.trial.evaluation, winner.unseen
    here, there = searched.mean, unseen.mean
    share = f" ({percent(abs(here - there) / abs(here))})" if here else ""
    less = (LESS if there < here else MORE)[unseen.measure]
    change = "the same" if isclose(here, there) else f"{number(abs(here - there))} {less}{share}"
    n = count(len(searched.episodes), "episode")
    return Doubt(
        f"The mean {unseen.measure} of {winner.trial.name} is {number(here)} over {n} of the search and"
        f" {number(there)} on the holdout: {change}.",
        "Nothing more: the best of many looks better than it is. Quote the holdout's figure.",
    )
