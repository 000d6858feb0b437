"""The outcome of a study: the FrozenPrompt that follows from its verdict, and how it is told to people."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from statistics import fmean

from lab.candidate import Candidate
from lab.evaluation import Evaluation
from lab.experiment import Experiment
from lab.frozen import BEST, Evidence, FrozenModel, FrozenPrompt, Provenance
from lab.headroom import Headroom
from lab.intervals import Estimate, t_interval
from lab.journal import Judged
from lab.settings import ModelChoice
from lab.spending import Spending
from lab.trial import BASELINE, Trial
from lab.troubles import Troubles
from lab.verdict import Compared, Verdict
from lab.words import estimate_text, number, p_text, recorded, troubles_text

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
        troubles: of all steps of the study.
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
    troubles: Troubles

    def frozen_prompt(self) -> FrozenPrompt:
        """The winner, or the baseline where nothing beat it, with its evidence and provenance."""
        provenance = Provenance(
            created=self.judged.created,
            experiment=self.experiment.name,
            study=self.study,
            trial=self.verdict.winner.trial.number if self.verdict.winner else BASELINE,
            calls=self.spending.calls,
            prompt_tokens=self.spending.prompt_tokens,
            completion_tokens=self.spending.completion_tokens,
            minutes=round(self.judged.minutes, 1),
            versions=[],
            dollars=None if self.spending.unpriced else round(self.spending.dollars, 4),
        )
        candidate = self.verdict.frozen.candidate
        return frozen_prompt(self.experiment, self.model, candidate, self.evidence, provenance)

    @property
    def alike(self) -> float | None:
        """What every episode returned, in reward, where all returned the same; else None."""
        confirmed = [one.unseen for one in self.verdict.confirmed]
        finalists = [one.unseen for one in self.verdict.finalists]
        searched = [trial.evaluation for trial in self.trials]
        played = [*searched, *confirmed, *finalists, self.verdict.baseline]
        returns = {round(value, 9) for one in played for value in one.returns.values()}
        return returns.pop() if len(returns) == 1 else None

    @property
    def evidence(self) -> Evidence:
        """What the holdout says of the frozen prompt and of the baseline."""
        verdict, winner = self.verdict, self.verdict.winner
        seeds = verdict.frozen.returns.keys() & verdict.baseline.returns.keys()
        ours, theirs = verdict.frozen.only(seeds), verdict.baseline.only(seeds)
        frozen, baseline = self._estimate(ours), self._estimate(theirs)
        difference = winner.difference if winner else Estimate(0.0, 0.0, 0.0, baseline.n)
        return Evidence(
            outcome=_outcome(winner, 1 - verdict.confidence),
            episodes=difference.n,
            confidence=verdict.confidence,
            method=verdict.method,
            frozen_return=rounded(frozen.mean),
            frozen_interval=ends(frozen),
            baseline_return=rounded(baseline.mean),
            baseline_interval=ends(baseline),
            difference=rounded(difference.mean),
            difference_interval=ends(difference),
            p_value=float(f"{winner.p_value:.2g}") if winner else 1.0,
            frozen_score=round(ours.mean_score, 3),
            baseline_score=round(theirs.mean_score, 3),
            frozen_tokens=round(ours.tokens, 1),
            baseline_tokens=round(theirs.tokens, 1),
            frozen_troubles=troubles_text(ours.troubles) or None,
            baseline_troubles=troubles_text(theirs.troubles) or None,
        )

    def _estimate(self, evaluation: Evaluation) -> Estimate:
        """The mean return, or the worst task's with an interval that holds whichever it is."""
        confidence, tasks = self.verdict.confidence, [*evaluation.by_task.values()]
        if self.verdict.by == "mean":
            return t_interval(list(evaluation.returns.values()), confidence)
        several = [t_interval(list(one.values()), confidence, len(tasks)) for one in tasks if one]
        low, high = (min(getattr(one, end) for one in several) for end in ("low", "high"))
        return Estimate(min(one.mean for one in several), low, high, len(evaluation.returns))


def frozen_prompt(
    experiment: Experiment,
    model: ModelChoice,
    candidate: Candidate,
    evidence: Evidence,
    provenance: Provenance,
) -> FrozenPrompt:
    """A candidate of an experiment, with what is known of it and the packages that it was played with."""
    return FrozenPrompt(
        candidate=candidate,
        environment=experiment.environment,
        task=experiment.task,
        model=FrozenModel(model.shown, model.name),
        evidence=evidence,
        provenance=replace(provenance, versions=[f"{name} {version(name)}" for name in PACKAGES]),
    )


def summary(outcome: Outcome, path: Path | None) -> str:
    """The result for a person: what was frozen, by how much it is better, what it cost, what to do next.

    Args:
        path: where it was frozen to; None where it could not be written.
    """
    return "\n".join([*_verdict_lines(outcome), *_cost_lines(outcome), *(_next_lines(path) if path else [])])


def _verdict_lines(outcome: Outcome) -> list[str]:
    verdict, evidence = outcome.verdict, outcome.evidence
    percent = f"{verdict.confidence:.0%}"
    judged = "mean episode return" + (" of the worst task" if verdict.by == "worst" else "")
    lines = [str(outcome.headroom)] if outcome.headroom and not outcome.headroom.found else []
    lines += _alike_lines(outcome)
    lines += [
        f"Holdout, {evidence.episodes} unseen episodes each, {judged} with {percent} interval:",
        f"  baseline  {recorded(evidence.baseline_return, evidence.baseline_interval, evidence.episodes)}"
        f"  {verdict.baseline.candidate.template.name}",
        *_trouble_lines(verdict.baseline),
    ]
    for finalist in verdict.finalists:
        mean = finalist.unseen.mean_return if verdict.by == "mean" else finalist.unseen.worst_return
        lines.append(
            f"  {finalist.trial.name:<9} {number(mean)}, that is {_signed(finalist.difference)},"
            f" {p_text(finalist.p_value)}  {finalist.trial.candidate.template.name}"
        )
        lines += _trouble_lines(finalist.unseen)
    return [*lines, *_task_lines(verdict), *_shortfall(outcome), claim(outcome), *cautions(verdict)]


def _shortfall(outcome: Outcome) -> list[str]:
    """Where the verdict is on fewer episodes than planned, that and why."""
    planned, limit = outcome.experiment.verdict.episodes, outcome.judged.limit
    pairs = outcome.evidence.episodes
    if pairs == planned:
        return []
    why = f"{limit} ended it" if limit else "the others failed"
    return [f"Note: the verdict is on {pairs} of {planned} planned pairs of episodes: {why}."]


def _alike_lines(outcome: Outcome) -> list[str]:
    if outcome.alike is None:
        return []
    told = f"Every episode returned {number(outcome.alike)}: there is nothing to tell candidates apart by."
    return [f"{told} Check the environment's rewards, and whether an episode is long enough to earn any."]


def _trouble_lines(evaluation: Evaluation) -> list[str]:
    told = troubles_text(evaluation.troubles)
    return [f"            {told}"] if told else []


def cautions(verdict: Verdict) -> list[str]:
    """What has to be said beside the claim, a sentence each: answers that could not be used."""
    frozen = verdict.frozen.troubles
    said = list[str]()
    if frozen.share > MOSTLY:
        told = troubles_text(frozen)
        said.append(f"Most of the frozen prompt's holdout answers could not be used: {told}.")
    for one in verdict.finalists:
        ahead = one.better(1 - verdict.confidence) or one.cheaper
        if ahead and one.unseen.troubles.unusable:
            told = troubles_text(one.unseen.troubles)
            said.append(f"{one.trial.name} cannot win: none of its answers could be used: {told}.")
    return said


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
    if outcome.troubles.troubled:
        lines.append(f"In the whole study, {troubles_text(outcome.troubles)}.")
    evaluations = [verdict.baseline, *(finalist.unseen for finalist in verdict.finalists)]
    clamped = [score >= 1.0 for evaluation in evaluations for score in evaluation.scores]
    share = sum(clamped) / len(clamped)
    if share >= MOSTLY:
        note = f"Note: {share:.0%} of {len(clamped)} holdout episodes have a score of 1.0, the most there is:"
        lines.append(f"{note} judge by the return, the score is blind here.")
    return lines


def _next_lines(path: Path) -> list[str]:
    play = "python inference.py" if path.resolve() == BEST.resolve() else f"python inference.py {path}"
    return [
        f"Written to {path}. Next:",
        f"  {play}   plays it and prints what an evaluator reads",
        f"  {'mlflow ui':<{len(play)}}   shows every trial, prompt and episode",
    ]


def _outcome(winner: Compared | None, level: float) -> str:
    if winner is None:
        return "baseline"
    return "winner" if winner.better(level) else "cheaper"


def _signed(estimate: Estimate) -> str:
    return estimate_text(estimate, sign=True)


def ends(estimate: Estimate) -> list[float]:
    """The two ends of an interval, for a file."""
    return [rounded(estimate.low), rounded(estimate.high)]


def rounded(value: float) -> float:
    """`value` to five figures: returns are hundreds in one environment, and hundredths in another."""
    return float(f"{value:.5g}")
