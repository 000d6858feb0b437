"""How a study ended: an Outcome with its verdict, or Unvalidated, and the FrozenPrompt that results."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from math import inf, nan

from lab.agent.candidate import Candidate
from lab.agent.evaluation import BASELINE, Evaluation, Trial
from lab.agent.step import Troubles
from lab.agent.task import Measure
from lab.errors import LabError
from lab.experiment.budget import Spending
from lab.experiment.experiment import Experiment
from lab.llm.settings import ModelChoice
from lab.search.headroom import Headroom
from lab.search.trouble_words import troubles_text
from lab.stats.format import estimate_text
from lab.stats.intervals import Estimate, t_interval
from lab.submission.frozen import Evidence, FrozenModel, FrozenPrompt, Provenance
from lab.verdict.model_cost import ModelCost
from lab.verdict.verdict import Verdict, estimate
from lab.verdict.words import cautions, shortfall

METHOD = "none: figures of the search, in which the best of many is overestimated"
"""The `method` in the evidence of a prompt frozen without a verdict."""

PACKAGES = ("openai", "openenv", "optuna", "prompt-lab")


@dataclass(frozen=True)
class Judged:
    """When a study ended, with or without a verdict.

    Attributes:
        minutes: Working time on the study until then, in minutes.
        created: Time, ISO 8601, UTC.
        limit: Limit of the budget that ended the holdout before all planned episodes were played; else empty.
    """

    minutes: float
    created: str
    limit: str = ""


@dataclass(frozen=True)
class StudyResult(ABC):
    """A study that ended, with or without a verdict.

    Attributes:
        trials: Trials of the search, best first, with the baseline.
        judged: When it ended.
    """

    experiment: Experiment
    model: ModelChoice
    study: str
    trials: tuple[Trial, ...]
    spending: Spending
    judged: Judged

    @property
    @abstractmethod
    def chosen(self) -> tuple[int, Candidate]:
        """The candidate to freeze, with its trial's number."""

    @property
    @abstractmethod
    def evidence(self) -> Evidence:
        """The figures of the chosen candidate and the baseline."""

    def frozen_prompt(self) -> FrozenPrompt:
        """The chosen candidate with evidence, provenance and the versions of the packages used.

        A setting that its endpoint does not have, which some trials began with, is not part of it.
        """
        number, candidate = self.chosen
        spent = self.spending
        provenance = Provenance(
            created=self.judged.created,
            experiment=self.experiment.name,
            study=self.study,
            trial=number,
            calls=spent.calls,
            prompt_tokens=spent.prompt_tokens,
            completion_tokens=spent.completion_tokens,
            minutes=round(self.judged.minutes, 1),
            versions=[f"{name} {version(name)}" for name in PACKAGES],
            dollars=None if spent.unpriced else round(spent.dollars, 4),
            thinking_tokens=spent.thinking_tokens or None,
            estimated_calls=spent.estimated or None,
        )
        model = FrozenModel.of(self.experiment.played_by(candidate, self.model).choice)
        candidate = replace(candidate, sampling=candidate.sampling.without(model.choice.dialect.omit))
        environment, task = self.experiment.environment, self.experiment.task
        return FrozenPrompt(candidate, environment, task, model, self.evidence, provenance)


@dataclass(frozen=True)
class Outcome(StudyResult):
    """The result of a study with a verdict.

    Attributes:
        headroom: Result of the warm-up test; None if it was not made.
        failures: Number of failed attempts at calls, by what happened.
        troubles: Troubles of all steps of the study.
        models: Costs by model, if the space has several.
    """

    verdict: Verdict
    headroom: Headroom | None
    failures: Mapping[str, int]
    troubles: Troubles
    models: tuple[ModelCost, ...]

    @property
    def chosen(self) -> tuple[int, Candidate]:
        """The winner, or the baseline if no finalist beat it."""
        winner = self.verdict.winner
        return winner.trial.number if winner else BASELINE, self.verdict.frozen.candidate

    @property
    def alike(self) -> float | None:
        """The return of every episode, in reward, if all are the same and nothing else decides; else None."""
        if self.experiment.task.own_score and self.experiment.objective.maximise == "score":
            return None
        returns = {round(value, 9) for one in self._played for value in one.returns.values()}
        return returns.pop() if len(returns) == 1 else None

    @property
    def repeated(self) -> bool:
        """Whether every candidate's episodes of a task have one return, so that their number says nothing."""
        seeds = ((one, each) for one in self._played for each in (one.by_task.values() or [one.values]))
        several = [{round(one.returns[seed], 9) for seed in each} for one, each in seeds if len(each) > 1]
        return bool(several) and all(len(returns) == 1 for returns in several)

    @property
    def _played(self) -> list[Evaluation]:
        unseen = [*(one.unseen for one in self.verdict.confirmed), *self.verdict.holdout.values()]
        return [*(trial.evaluation for trial in self.trials), *unseen]

    @property
    def evidence(self) -> Evidence:
        """The holdout's evidence on the frozen prompt and the baseline."""
        verdict, winner = self.verdict, self.verdict.winner
        seeds = verdict.frozen.returns.keys() & verdict.baseline.returns.keys()
        ours, theirs = verdict.frozen.only(seeds), verdict.baseline.only(seeds)
        frozen, baseline = self._estimate(ours), self._estimate(theirs)
        difference = winner.difference if winner else Estimate(0.0, 0.0, 0.0, baseline.n)
        places = 5 if verdict.measure == "score" else 3
        outcome, saving = "winner" if winner else "baseline", ""
        if winner and winner.saving and not winner.better(1 - verdict.confidence):
            outcome = "cheaper"
            saving = f"{estimate_text(winner.saving)} {self.experiment.objective.cost} per episode"
        return Evidence(
            outcome=outcome,
            episodes=difference.n,
            confidence=verdict.confidence,
            method=verdict.method,
            frozen_return=rounded(self._mean(ours, "return")),
            frozen_interval=_ends(frozen),
            baseline_return=rounded(self._mean(theirs, "return")),
            baseline_interval=_ends(baseline),
            difference=rounded(difference.mean),
            difference_interval=_ends(difference),
            p_value=float(f"{winner.p_value:.2g}") if winner else 1.0,
            frozen_score=round(self._mean(ours, "score"), places),
            baseline_score=round(self._mean(theirs, "score"), places),
            frozen_tokens=round(ours.tokens, 1),
            baseline_tokens=round(theirs.tokens, 1),
            frozen_troubles=troubles_text(ours.troubles) or None,
            baseline_troubles=troubles_text(theirs.troubles) or None,
            judged=verdict.measure,
            caution=" ".join(cautions(verdict)),
            saving=saving,
            relative_interval=_ends(winner.relative) if winner and winner.relative else None,
            shortfall=shortfall(verdict.pairs, self.experiment.verdict.episodes, self.judged.limit),
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
            return estimate(evaluation, confidence)
        several = [t_interval(list(one.values()), confidence, len(tasks)) for one in tasks if one]
        low, high = (min(getattr(one, end) for one in several) for end in ("low", "high"))
        return Estimate(min(one.mean for one in several), low, high, len(evaluation.values))


@dataclass(frozen=True)
class Unvalidated(StudyResult):
    """A study whose budget ended before a verdict; at least one of its trials has a whole episode.

    Its figures are the search's: the best of many noisy candidates is overestimated, which nothing corrects.

    Attributes:
        reason: Why there is no verdict.
    """

    reason: LabError

    @property
    def best(self) -> Trial:
        """The best trial of the search, which may be the baseline."""
        return self.trials[0]

    @property
    def baseline(self) -> Evaluation | None:
        """The baseline's episodes in the search."""
        return next((trial.evaluation for trial in self.trials if trial.number == BASELINE), None)

    @property
    def chosen(self) -> tuple[int, Candidate]:
        """The best so far."""
        return self.best.number, self.best.candidate

    @property
    def evidence(self) -> Evidence:
        """The search's figures, without a test."""
        best, baseline, confidence = self.best.evaluation, self.baseline, self.experiment.verdict.confidence
        nothing, values = Estimate(nan, -inf, inf, 0), baseline.values if baseline else {}
        gaps = [value - values[seed] for seed, value in best.values.items() if seed in values]
        difference = t_interval(gaps, confidence) if gaps else nothing
        return Evidence(
            outcome="unvalidated",
            episodes=difference.n,
            confidence=confidence,
            method=METHOD,
            frozen_return=rounded(best.mean_return),
            frozen_interval=_ends(estimate(best, confidence)),
            baseline_return=rounded(baseline.mean_return) if baseline else nan,
            baseline_interval=_ends(estimate(baseline, confidence) if baseline else nothing),
            difference=rounded(difference.mean),
            difference_interval=_ends(difference),
            p_value=1.0,
            frozen_score=round(best.mean_score, 3),
            baseline_score=round(baseline.mean_score, 3) if baseline else nan,
            frozen_tokens=round(best.tokens, 1),
            baseline_tokens=round(baseline.tokens, 1) if baseline else nan,
            judged=self.experiment.objective.maximise,
        )


def _ends(estimate: Estimate) -> list[float]:
    """The two ends of an interval, for a file."""
    return [rounded(estimate.low), rounded(estimate.high)]


def rounded(value: float) -> float:
    """`value` to seven significant digits, so that a sentence made from the file rounds as from the study."""
    return float(f"{value:.7g}")
