"""The outcome of a study: the FrozenPrompt that follows from its verdict, and how it is told to people."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import fmean

from lab.evaluation import Evaluation
from lab.experiment import Experiment
from lab.frozen import Evidence, FrozenModel, FrozenPrompt, Provenance
from lab.headroom import Headroom
from lab.intervals import Estimate, t_interval
from lab.journal import Judged
from lab.settings import ModelChoice
from lab.spending import Spending
from lab.task import OTHER, Measure
from lab.trial import BASELINE, Trial
from lab.verdict import Compared, Verdict
from lab.words import estimate_text, number, p_text, recorded

PACKAGES = ("openai", "openenv", "optuna", "prompt-lab")

MOSTLY = 0.5
"""Share of episodes at the clamp from which the score is called blind."""


@dataclass(frozen=True)
class Outcome:
    """What a study came to.

    Attributes:
        headroom: None where the first candidates could not tell.
        trials: of the search, best first, the baseline among them.
        failures: attempts at calls that failed, by what happened.
        judged: the moment of the verdict, and the minutes of work until then.
    """

    experiment: Experiment
    model: ModelChoice
    study: str
    headroom: Headroom | None
    trials: tuple[Trial, ...]
    verdict: Verdict
    spending: Spending
    failures: Mapping[str, int]
    judged: Judged

    def frozen_prompt(self) -> FrozenPrompt:
        """The winner, or the baseline where nothing beat it, with its evidence and provenance."""
        verdict, winner = self.verdict, self.verdict.winner
        return FrozenPrompt(
            candidate=verdict.frozen.candidate,
            environment=self.experiment.environment,
            task=self.experiment.task,
            model=FrozenModel(self.model.shown, self.model.name),
            evidence=self.evidence,
            provenance=Provenance(
                created=self.judged.created,
                experiment=self.experiment.name,
                study=self.study,
                trial=winner.trial.number if winner else BASELINE,
                calls=self.spending.calls,
                prompt_tokens=self.spending.prompt_tokens,
                completion_tokens=self.spending.completion_tokens,
                minutes=round(self.judged.minutes, 1),
                versions=[f"{name} {version(name)}" for name in PACKAGES],
                dollars=None if self.spending.unpriced else round(self.spending.dollars, 4),
            ),
        )

    @property
    def evidence(self) -> Evidence:
        """What the holdout says of the frozen prompt and of the baseline."""
        verdict = self.verdict
        frozen, baseline = self._estimate(verdict.frozen), self._estimate(verdict.baseline)
        winner = verdict.winner
        difference = winner.difference if winner else Estimate(0.0, 0.0, 0.0, baseline.n)
        places = 5 if verdict.measure == "score" else 3
        return Evidence(
            outcome=_outcome(winner, 1 - verdict.confidence),
            episodes=difference.n,
            confidence=verdict.confidence,
            method=verdict.method,
            frozen_return=_rounded(self._mean(verdict.frozen, "return")),
            frozen_interval=_ends(frozen),
            baseline_return=_rounded(self._mean(verdict.baseline, "return")),
            baseline_interval=_ends(baseline),
            difference=_rounded(difference.mean),
            difference_interval=_ends(difference),
            p_value=float(f"{winner.p_value:.2g}") if winner else 1.0,
            frozen_score=round(self._mean(verdict.frozen, "score"), places),
            baseline_score=round(self._mean(verdict.baseline, "score"), places),
            frozen_tokens=round(verdict.frozen.tokens, 1),
            baseline_tokens=round(verdict.baseline.tokens, 1),
            judged=verdict.measure,
            caution=" ".join(cautions(verdict)),
        )

    def _mean(self, evaluation: Evaluation, measure: Measure) -> float:
        """A mean return or score: the judged one as it is judged, the other over all episodes."""
        if measure == self.verdict.measure:
            return self.verdict.value(evaluation)
        return evaluation.other.mean

    def _estimate(self, evaluation: Evaluation) -> Estimate:
        """The mean value, or the worst task's with an interval that holds whichever it is."""
        confidence, tasks = self.verdict.confidence, [*evaluation.by_task.values()]
        if self.verdict.by == "mean":
            return t_interval(list(evaluation.values.values()), confidence)
        several = [t_interval(list(one.values()), confidence, len(tasks)) for one in tasks if one]
        low, high = (min(getattr(one, end) for one in several) for end in ("low", "high"))
        return Estimate(min(one.mean for one in several), low, high, len(evaluation.values))


def summary(outcome: Outcome, path: Path) -> str:
    """The result for a person: what was frozen, by how much it is better, what it cost, what to do next."""
    return "\n".join([*_verdict_lines(outcome), *_cost_lines(outcome), *_next_lines(path)])


def _verdict_lines(outcome: Outcome) -> list[str]:
    verdict, evidence = outcome.verdict, outcome.evidence
    percent = f"{verdict.confidence:.0%}"
    judged = f"mean episode {verdict.measure}" + (" of the worst task" if verdict.by == "worst" else "")
    lines = cautions(verdict)
    lines += [str(outcome.headroom)] if outcome.headroom and not outcome.headroom.found else []
    lines += [
        f"Holdout, {evidence.episodes} unseen episodes each, {judged} with {percent} interval:",
        f"  baseline  {recorded(evidence.baseline_mean, evidence.baseline_interval, evidence.episodes)}"
        f"  {verdict.baseline.candidate.template.name}",
    ]
    for finalist in verdict.finalists:
        lines.append(
            f"  {finalist.trial.name:<9} {number(verdict.value(finalist.unseen))},"
            f" that is {_signed(finalist.difference)},"
            f" {p_text(finalist.p_value)}  {finalist.trial.candidate.template.name}"
        )
    return [*lines, *_task_lines(verdict), _frozen(outcome)]


def cautions(verdict: Verdict) -> list[str]:
    """What has to be said first: by which number the frozen candidate is lower, and which were refused."""
    winner, name = verdict.winner, OTHER[verdict.measure]
    told = [f"Caution: {_lower(verdict, winner, name)}."] if winner and winner.other_is_lower else []
    cure = 'To freeze it all the same, set [objective] maximise = "return".'
    return told + [
        f"{one.trial.name} beats the baseline and is not frozen: {_lower(verdict, one, name)}. {cure}"
        for one in verdict.refused
    ]


def _lower(verdict: Verdict, one: Compared, name: Measure) -> str:
    worst = " of the worst task" if verdict.by == "worst" else ""
    own, base = (number(verdict.value(played.other)) for played in (one.unseen, verdict.baseline))
    return (
        f"the {name}{worst} of {one.trial.name} is shown to be lower than the baseline's,"
        f" {own} against {base} ({_signed(one.other)})"
    )


def _task_lines(verdict: Verdict) -> list[str]:
    """A line a task, where there are several."""
    played = [("baseline", verdict.baseline), *((one.trial.name, one.unseen) for one in verdict.finalists)]
    return [
        f"  task {task}: " + ", ".join(f"{name} {_mean(one.by_task[task])}" for name, one in played)
        for task in verdict.baseline.by_task
    ]


def _mean(values: Mapping[int, float]) -> str:
    return number(fmean(values.values())) if values else "none ended"


def claim(outcome: Outcome) -> str:
    """What may be said of what was frozen, and first what speaks against it."""
    return " ".join([*cautions(outcome.verdict), _frozen(outcome)])


def _frozen(outcome: Outcome) -> str:
    verdict, evidence = outcome.verdict, outcome.evidence
    winner = verdict.winner
    if winner is None and verdict.refused:
        return "The baseline is frozen."
    if winner is None:
        return "No candidate beats the baseline on unseen episodes: the baseline is frozen."
    name, gain, tokens = winner.trial.name, winner.difference, evidence.baseline_tokens
    if evidence.outcome == "cheaper":
        less = 1 - evidence.frozen_tokens / tokens if tokens else 0.0
        return (
            f"Frozen: {name}, {less:.0%} fewer tokens an episode than the baseline;"
            f" {_signed(gain)} {verdict.measure}."
        )
    share = f", {gain.mean / evidence.baseline_mean:+.0%}" if evidence.baseline_mean > 0 else ""
    return (
        f"Frozen: {name}, {_signed(gain)} over the baseline{share}, {p_text(winner.p_value)}"
        f" ({verdict.method})."
    )


def _cost_lines(outcome: Outcome) -> list[str]:
    verdict, spent = outcome.verdict, outcome.spending
    dollars = f", {spent.money}" if spent.dollars or spent.unpriced else ""
    lines = [
        _other_line(verdict),
        f"Cost: {spent.calls:,} calls in {spent.episodes} whole episodes, {spent.prompt_tokens:,} tokens in,"
        f" {spent.completion_tokens:,} out{dollars}, {outcome.judged.minutes:.1f} minutes.",
    ]
    if outcome.failures:
        told = ", ".join(f"{times} x {what.rstrip('.')}" for what, times in outcome.failures.items())
        lines.append(f"Attempts that failed: {told}.")
    return [*lines, *_clamp_lines(verdict)]


def _other_line(verdict: Verdict) -> str:
    """The means of the number that did not decide."""
    if verdict.measure == "score":
        frozen, baseline = (number(one.mean_return) for one in (verdict.frozen, verdict.baseline))
    else:
        frozen, baseline = (f"{one.mean_score:.3f}" for one in (verdict.frozen, verdict.baseline))
    return f"Mean {OTHER[verdict.measure]} {frozen}, baseline {baseline}."


def _clamp_lines(verdict: Verdict) -> list[str]:
    """Whether most scores are at one of their limits, where they tell no difference."""
    evaluations = [verdict.baseline, *(finalist.unseen for finalist in verdict.finalists)]
    scores = [score for evaluation in evaluations for score in evaluation.scores]
    share = sum(score >= 1.0 for score in scores) / len(scores)
    note = f"of {len(scores)} holdout episodes have a score of"
    if verdict.measure == "return":
        blind = (
            f"Note: {share:.0%} {note} 1.0, the most there is: judge by the return, the score is blind here."
        )
        return [blind] if share >= MOSTLY else []
    ends = (("1.0, the maximum", share), ("0.0, the minimum", scores.count(0.0) / len(scores)))
    return [
        f"Note: {here:.0%} {note} {end}: between these the score cannot tell candidates apart;"
        ' [objective] maximise = "return" would.'
        for end, here in ends
        if here >= MOSTLY
    ]


def _next_lines(path: Path) -> list[str]:
    return [
        f"Written to {path}. Next:",
        "  python inference.py   plays it and prints what an evaluator reads",
        "  mlflow ui             shows every trial, prompt and episode",
    ]


def _outcome(winner: Compared | None, level: float) -> str:
    if winner is None:
        return "baseline"
    return "winner" if winner.better(level) else "cheaper"


def _signed(estimate: Estimate) -> str:
    return estimate_text(estimate, sign=True)


def _ends(estimate: Estimate) -> list[float]:
    return [_rounded(estimate.low), _rounded(estimate.high)]


def _rounded(value: float) -> float:
    """To five figures: returns are hundreds in one environment, and hundredths in another."""
    return float(f"{value:.5g}")
