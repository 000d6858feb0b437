"""The outcome of a study: the FrozenPrompt that follows from its verdict, and how it is told to people."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from shlex import quote
from statistics import fmean

from lab.evaluation import Evaluation
from lab.experiment import Experiment
from lab.frozen import Evidence, FrozenModel, FrozenPrompt, Provenance
from lab.headroom import Headroom
from lab.intervals import Estimate, t_interval
from lab.journal import Judged
from lab.settings import ModelChoice
from lab.spending import Spending
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
        return Evidence(
            outcome=_outcome(winner, 1 - verdict.confidence),
            episodes=difference.n,
            confidence=verdict.confidence,
            method=verdict.method,
            frozen_return=_rounded(frozen.mean),
            frozen_interval=_ends(frozen),
            baseline_return=_rounded(baseline.mean),
            baseline_interval=_ends(baseline),
            difference=_rounded(difference.mean),
            difference_interval=_ends(difference),
            p_value=float(f"{winner.p_value:.2g}") if winner else 1.0,
            frozen_score=round(verdict.frozen.mean_score, 3),
            baseline_score=round(verdict.baseline.mean_score, 3),
            frozen_tokens=round(verdict.frozen.tokens, 1),
            baseline_tokens=round(verdict.baseline.tokens, 1),
        )

    def _estimate(self, evaluation: Evaluation) -> Estimate:
        """The mean return, or the worst task's with an interval that holds whichever it is."""
        confidence, tasks = self.verdict.confidence, [*evaluation.by_task.values()]
        if self.verdict.by == "mean":
            return t_interval(list(evaluation.returns.values()), confidence)
        several = [t_interval(list(one.values()), confidence, len(tasks)) for one in tasks if one]
        low, high = (min(getattr(one, end) for one in several) for end in ("low", "high"))
        return Estimate(min(one.mean for one in several), low, high, len(evaluation.returns))


def summary(
    outcome: Outcome, path: Path, untracked: Sequence[str] | None, experiment: Path = Path("EXPERIMENT")
) -> str:
    """The result for a person: what was frozen, by how much it is better, what it cost, what to do next.

    Args:
        untracked: what MLflow did not take, a line for each reason; None where nothing was sent to it.
        experiment: the experiment file.
    """
    lines = [*_verdict_lines(outcome), *_cost_lines(outcome), *_next_lines(path, untracked)]
    return "\n".join([*lines, *_untracked_lines(untracked, experiment)])


def _verdict_lines(outcome: Outcome) -> list[str]:
    verdict, evidence = outcome.verdict, outcome.evidence
    percent = f"{verdict.confidence:.0%}"
    judged = "mean episode return" + (" of the worst task" if verdict.by == "worst" else "")
    lines = [str(outcome.headroom)] if outcome.headroom and not outcome.headroom.found else []
    lines += [
        f"Holdout, {evidence.episodes} unseen episodes each, {judged} with {percent} interval:",
        f"  baseline  {recorded(evidence.baseline_return, evidence.baseline_interval, evidence.episodes)}"
        f"  {verdict.baseline.candidate.template.name}",
    ]
    for finalist in verdict.finalists:
        mean = finalist.unseen.mean_return if verdict.by == "mean" else finalist.unseen.worst_return
        lines.append(
            f"  {finalist.trial.name:<9} {number(mean)}, that is {_signed(finalist.difference)},"
            f" {p_text(finalist.p_value)}  {finalist.trial.candidate.template.name}"
        )
    return [*lines, *_task_lines(verdict), claim(outcome)]


def _task_lines(verdict: Verdict) -> list[str]:
    """A line a task, where there are several."""
    played = [("baseline", verdict.baseline), *((one.trial.name, one.unseen) for one in verdict.finalists)]
    return [
        f"  task {task}: " + ", ".join(f"{name} {_mean(one.by_task[task])}" for name, one in played)
        for task in verdict.baseline.by_task
    ]


def _mean(returns: Mapping[int, float]) -> str:
    return number(fmean(returns.values())) if returns else "none ended"


def claim(outcome: Outcome) -> str:
    """What may be said of what was frozen, in a sentence."""
    verdict, evidence = outcome.verdict, outcome.evidence
    winner = verdict.winner
    if winner is None:
        return "No candidate beats the baseline on unseen episodes: the baseline is frozen."
    name, gain, tokens = winner.trial.name, winner.difference, evidence.baseline_tokens
    if evidence.outcome == "cheaper":
        less = 1 - evidence.frozen_tokens / tokens if tokens else 0.0
        return (
            f"Frozen: {name}, {less:.0%} fewer tokens an episode than the baseline; {_signed(gain)} return."
        )
    share = f", {gain.mean / evidence.baseline_return:+.0%}" if evidence.baseline_return > 0 else ""
    return (
        f"Frozen: {name}, {_signed(gain)} over the baseline{share}, {p_text(winner.p_value)}"
        f" ({verdict.method})."
    )


def _cost_lines(outcome: Outcome) -> list[str]:
    verdict, spent = outcome.verdict, outcome.spending
    dollars = f", {spent.money}" if spent.dollars or spent.unpriced else ""
    lines = [
        f"Mean score {verdict.frozen.mean_score:.3f}, baseline {verdict.baseline.mean_score:.3f}.",
        f"Cost: {spent.calls:,} calls in {spent.episodes} whole episodes, {spent.prompt_tokens:,} tokens in,"
        f" {spent.completion_tokens:,} out{dollars}, {outcome.judged.minutes:.1f} minutes.",
    ]
    if outcome.failures:
        told = ", ".join(f"{times} x {what.rstrip('.')}" for what, times in outcome.failures.items())
        lines.append(f"Attempts that failed: {told}.")
    evaluations = [verdict.baseline, *(finalist.unseen for finalist in verdict.finalists)]
    clamped = [score >= 1.0 for evaluation in evaluations for score in evaluation.scores]
    share = sum(clamped) / len(clamped)
    if share >= MOSTLY:
        note = f"Note: {share:.0%} of {len(clamped)} holdout episodes have a score of 1.0, the most there is:"
        lines.append(f"{note} judge by the return, the score is blind here.")
    return lines


def _next_lines(path: Path, untracked: Sequence[str] | None) -> list[str]:
    lines = [
        f"Written to {path}. Next:",
        "  python inference.py   plays it and prints what an evaluator reads",
    ]
    if untracked is not None and not untracked:
        lines.append("  mlflow ui             shows every trial, prompt and episode")
    return lines


def _untracked_lines(untracked: Sequence[str] | None, experiment: Path) -> list[str]:
    if not untracked:
        return []
    again = f"python -m lab.report {quote(str(experiment))} --mlflow"
    told = [f"  {line}" for line in untracked]
    return ["MLflow did not take everything:", *told, f"  {again}   logs it again from the record"]


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
