"""The outcome of a study: its verdict and cost, and the resulting FrozenPrompt."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version

from lab.agent.candidate import Candidate
from lab.agent.evaluation import BASELINE, Evaluation, Trial
from lab.agent.task import Measure
from lab.agent.troubles import Troubles
from lab.experiment.budget import Spending
from lab.experiment.experiment import Experiment
from lab.llm.settings import ModelChoice
from lab.search.headroom import Headroom
from lab.search.trouble_words import troubles_text
from lab.stats.intervals import Estimate, t_interval
from lab.submission.frozen import Evidence, FrozenModel, FrozenPrompt, Provenance
from lab.verdict.cautions import lower_cautions
from lab.verdict.verdict import Compared, Verdict

PACKAGES = ("openai", "openenv", "optuna", "prompt-lab")

MOSTLY = 0.5
"""Share of episodes at a score limit from which a note is printed."""


@dataclass(frozen=True)
class Judged:
    """When the verdict was given.

    Attributes:
        minutes: of work on the study, until then.
        created: the moment, ISO 8601, UTC.
        limit: of the budget, where it ended the verdict before all planned episodes were played; else empty.
    """

    minutes: float
    created: str
    limit: str = ""


@dataclass(frozen=True)
class Outcome:
    """The result of a study.

    Attributes:
        headroom: Result of the warm-up test; None if it was not made.
        trials: Trials of the search, best first, with the baseline.
        failures: Number of failed attempts at calls, by what happened.
        judged: Time of the verdict, and working minutes until then.
        troubles: Troubles of all steps of the study.
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
        """The winner, or the baseline if nothing beat it, with evidence and provenance."""
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
            thinking_tokens=self.spending.thinking_tokens or None,
            estimated_calls=self.spending.estimated or None,
        )
        candidate = self.verdict.frozen.candidate
        return frozen_prompt(self.experiment, self.model, candidate, self.evidence, provenance)

    @property
    def alike(self) -> float | None:
        """The return of every episode, in reward, if all are the same; else None."""
        confirmed = [one.unseen for one in self.verdict.confirmed]
        finalists = [one.unseen for one in self.verdict.finalists]
        searched = [trial.evaluation for trial in self.trials]
        played = [*searched, *confirmed, *finalists, self.verdict.baseline]
        returns = {round(value, 9) for one in played for value in one.returns.values()}
        return returns.pop() if len(returns) == 1 else None

    @property
    def evidence(self) -> Evidence:
        """The holdout's evidence on the frozen prompt and the baseline."""
        verdict, winner = self.verdict, self.verdict.winner
        seeds = verdict.frozen.returns.keys() & verdict.baseline.returns.keys()
        ours, theirs = verdict.frozen.only(seeds), verdict.baseline.only(seeds)
        frozen, baseline = self._estimate(ours), self._estimate(theirs)
        difference = winner.difference if winner else Estimate(0.0, 0.0, 0.0, baseline.n)
        places = 5 if verdict.measure == "score" else 3
        return Evidence(
            outcome=_outcome(winner, 1 - verdict.confidence),
            episodes=difference.n,
            confidence=verdict.confidence,
            method=verdict.method,
            frozen_return=rounded(self._mean(ours, "return")),
            frozen_interval=ends(frozen),
            baseline_return=rounded(self._mean(theirs, "return")),
            baseline_interval=ends(baseline),
            difference=rounded(difference.mean),
            difference_interval=ends(difference),
            p_value=float(f"{winner.p_value:.2g}") if winner else 1.0,
            frozen_score=round(self._mean(ours, "score"), places),
            baseline_score=round(self._mean(theirs, "score"), places),
            frozen_tokens=round(ours.tokens, 1),
            baseline_tokens=round(theirs.tokens, 1),
            frozen_troubles=troubles_text(ours.troubles) or None,
            baseline_troubles=troubles_text(theirs.troubles) or None,
            judged=verdict.measure,
            caution=" ".join(lower_cautions(verdict)),
        )

    def _mean(self, evaluation: Evaluation, measure: Measure) -> float:
        """A mean return or score: the judged one by the rule, the other over all episodes."""
        if measure == self.verdict.measure:
            return self.verdict.value(evaluation)
        return evaluation.other.mean

    def _estimate(self, evaluation: Evaluation) -> Estimate:
        """The mean value, or the worst task's, with an interval that holds whichever task is worst."""
        confidence, tasks = self.verdict.confidence, [*evaluation.by_task.values()]
        if self.verdict.by == "mean":
            return t_interval(list(evaluation.values.values()), confidence)
        several = [t_interval(list(one.values()), confidence, len(tasks)) for one in tasks if one]
        low, high = (min(getattr(one, end) for one in several) for end in ("low", "high"))
        return Estimate(min(one.mean for one in several), low, high, len(evaluation.values))


def frozen_prompt(
    experiment: Experiment,
    model: ModelChoice,
    candidate: Candidate,
    evidence: Evidence,
    provenance: Provenance,
) -> FrozenPrompt:
    """A candidate of an experiment, with its evidence and the versions of packages used."""
    return FrozenPrompt(
        candidate=candidate,
        environment=experiment.environment,
        task=experiment.task,
        model=FrozenModel.of(model),
        evidence=evidence,
        provenance=replace(provenance, versions=[f"{name} {version(name)}" for name in PACKAGES]),
    )


def _outcome(winner: Compared | None, level: float) -> str:
    if winner is None:
        return "baseline"
    return "winner" if winner.better(level) else "cheaper"


def ends(estimate: Estimate) -> list[float]:
    """The two ends of an interval, for a file."""
    return [rounded(estimate.low), rounded(estimate.high)]


def rounded(value: float) -> float:
    """`value` to five significant digits: returns may be hundreds or hundredths."""
    return float(f"{value:.5g}")
