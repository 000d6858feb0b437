"""A LabOptimizer: the lab's race and verdict as an optimizer of `mlflow.genai.optimize_prompts`.

It owns how rows of training data are used; evaluating a row and registering the result are MLflow's. It is
imported on first use, because MLflow takes seconds.
"""

import logging
import random
from collections.abc import Mapping, Sequence
from statistics import fmean

import mlflow
import optuna
from mlflow.genai.optimize.optimizers import BasePromptOptimizer
from mlflow.genai.optimize.types import EvaluationResultRecord, PromptOptimizerOutput

from lab.errors import ConfigError
from lab.library.text_race import Evaluate, Row, Text, TextRace, evaluated, mean, scores
from lab.stats.format import count, estimate_text, number, p_text, percent
from lab.stats.intervals import Estimate, sign_flip_p, t_interval
from lab.tracking.metrics import difference_figures
from lab.tracking.pages import NOTE

CONFIDENCE, LEAST_PAIRS = 0.95, 6
"""Confidence of the verdict, and the fewest rows that can reach it: 2 of 2^6 sign patterns are 3 %."""

CONFIRMED = 3
"""Number of candidates that are confirmed."""

_logger = logging.getLogger(__name__)


class LabOptimizer(BasePromptOptimizer):
    """An optimizer for MLflow: `mlflow.genai.optimize_prompts(..., optimizer=lab.LabOptimizer(...))`.

    Given texts and those that a model writes race against the registered ones, paired by training row. The
    best 3 are confirmed on other rows (a fifth of all), and the first of them plays the holdout (two fifths)
    against the registered texts. Those are kept unless an interval and a test both show a higher score.

    Args:
        candidates: Texts to try by name of the prompt; a chat prompt's is a list of messages.
        reflection_model: Name of a model that writes new texts by GEPA's reflection, at `API_BASE_URL` (by
            default OpenAI's).
        max_metric_calls: Maximum number of evaluated rows; the verdict uses up to half of them.
        seed: Seed of the split of the rows and of the race.

    Attributes:
        study: The race as an Optuna study, after `optimize_prompts`.
        claim: The verdict in one sentence, which is logged too.
    """

    def __init__(
        self,
        *,
        candidates: Mapping[str, Sequence[Text]] | None = None,
        reflection_model: str = "",
        max_metric_calls: int = 300,
        seed: int = 0,
    ) -> None:
        self._given, self._writer = dict(candidates or {}), reflection_model
        self._most_calls, self._seed = max_metric_calls, seed
        self.study: optuna.Study | None = None
        self.claim = ""

    def optimize(
        self,
        eval_fn: Evaluate,
        train_data: list[Row],
        target_prompts: dict[str, str],
        enable_tracking: bool = True,
    ) -> PromptOptimizerOutput:
        """Race the texts and judge the best; MLflow calls this.

        Raises:
            LabError: There is nothing to try, or too little data or budget for a verdict.
        """
        self._check(train_data, target_prompts)
        rows = random.Random(self._seed).sample(train_data, len(train_data))
        holdout = rows[: min(len(rows) * 2 // 5, self._most_calls // 5)]
        rest = rows[len(holdout) :]
        confirmation = rest[: max(1, min(len(rows) // 5, self._most_calls // 30))]
        calls = self._most_calls - 2 * len(holdout) - CONFIRMED * len(confirmation)
        searched = rest[len(confirmation) :][: max(LEAST_PAIRS, calls // 5)]
        race = TextRace(eval_fn, searched, target_prompts, self._given, self._writer, self._seed)
        self.study = race.study
        race.run(calls)
        baseline = evaluated(eval_fn, target_prompts, holdout)
        best, verdict = baseline, dict[str, float]()
        texts, challengers = target_prompts, race.best(CONFIRMED)
        if challengers:
            confirmed = [mean(evaluated(eval_fn, one, confirmation)) for one in challengers]
            challenger = challengers[confirmed.index(max(confirmed))]
            played = evaluated(eval_fn, challenger, holdout)
            gaps = [own - base for own, base in zip(scores(played), scores(baseline), strict=True)]
            difference, p_value = t_interval(gaps, CONFIDENCE), sign_flip_p(gaps)
            won = difference.low > 0 and p_value <= 1 - CONFIDENCE
            if won:
                best, texts = played, challenger
            verdict = difference_figures(difference, p_value)
            self.claim = _claim(difference, p_value, mean(played), won=won)
        else:
            self.claim = "The registered texts are kept: no other text was left to judge."
        _logger.log(logging.INFO if best is not baseline else logging.WARNING, self.claim)
        if enable_tracking and (run := mlflow.active_run()):
            mlflow.set_tag("outcome", "baseline" if best is baseline else "winner")
            if NOTE not in run.data.tags:  # the caller's own run may have a description
                mlflow.set_tag(NOTE, self.claim)
            mlflow.log_metrics(verdict)
            race.log()
        return PromptOptimizerOutput(
            dict(texts), mean(baseline), mean(best), _by_scorer(baseline), _by_scorer(best)
        )

    def _check(self, rows: Sequence[Row], prompts: Mapping[str, str]) -> None:
        where = "lab.LabOptimizer"
        if unknown := self._given.keys() - prompts.keys():
            do = f"use names of prompt_uris: {', '.join(prompts)}"
            raise ConfigError(f"candidates names another prompt, {min(unknown)!r}.", where=where, do=do)
        if not self._writer and not any(self._given.values()):
            raise ConfigError(
                "There is no text to try.", where=where, do="set candidates or reflection_model"
            )
        least_rows, least_calls = LEAST_PAIRS * 5 // 2, LEAST_PAIRS * 5
        if len(rows) < least_rows:
            what = f"train_data has {count(len(rows), 'row')}, too few for a verdict."
            raise ConfigError(what, where=where, do=f"use {least_rows} rows or more")
        if self._most_calls < least_calls:
            do = f"use {least_calls} or more"
            raise ConfigError("max_metric_calls is too low for a verdict.", where=where, do=do)


def _claim(difference: Estimate, p_value: float, score: float, *, won: bool) -> str:
    """The verdict in a sentence."""
    figures = (
        f"{number(score)} ({estimate_text(difference, sign=True)} vs. the registered texts,"
        f" {percent(CONFIDENCE)} interval), n = {difference.n} unseen rows, {p_text(p_value)}"
        " (paired t interval and paired sign-flip test)"
    )
    if won:
        return f"New texts score higher on unseen rows: {figures}."
    return f"The registered texts are kept: no other is shown to score higher. The best scored {figures}."


def _by_scorer(records: Sequence[EvaluationResultRecord]) -> dict[str, float]:
    """Mean of each scorer's numbers."""
    names = dict.fromkeys(name for one in records for name in one.individual_scores)
    found = {name: [one.individual_scores.get(name) for one in records] for name in names}
    return {name: fmean(one for one in own if one is not None) for name, own in found.items()}
