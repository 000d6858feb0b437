"""A TextRace: a prompt's texts race on rows of data, as an Optuna study that anything can evaluate.

It owns which text plays which row next. Evaluating is MLflow's, new texts are `lab.library.reflection`'s, and
judging is `lab.library.mlflow_optimizer`'s.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from statistics import fmean
from typing import Any

import mlflow
import optuna
from mlflow.genai.optimize.types import EvaluationResultRecord
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from lab.agent.evaluation import trial_name
from lab.errors import ConfigError
from lab.library.reflection import Played, written
from lab.search.pruner import RacePruner
from lab.search.sampler import NEW, RaceSampler

ROUNDS, TEXTS = 2, 3
"""Rounds of reflection, spread evenly over the race, and texts of each."""

REGISTERED = "registered"
"""Name of the texts that the race starts from."""

Row = dict[str, Any]
"""A row of training data."""

Choice = dict[str, str]
"""A text for each prompt."""

Text = str | list[dict[str, Any]]
"""A prompt's text, or a chat prompt's messages."""

Evaluate = Callable[[Choice, list[Row]], list[EvaluationResultRecord]]
"""Plays rows with these texts, and scores them."""

_logger = logging.getLogger(__name__)


@dataclass
class TextRace:
    """The race of the texts on the rows of the search; trial 0 has the registered ones."""

    evaluate: Evaluate
    rows: Sequence[Row]
    registered: Mapping[str, str]
    given: Mapping[str, Sequence[Text]]
    writer: str
    seed: int
    played: dict[int, list[EvaluationResultRecord]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.texts = {name: {REGISTERED: text} for name, text in self.registered.items()}
        for name, texts in self.given.items():
            shown = (text if isinstance(text, str) else json.dumps(text) for text in texts)
            self.texts[name] |= {f"given-{place}": text for place, text in enumerate(shown, 1)}
        to_come = [f"written-{place + 1}" for place in range(ROUNDS * TEXTS if self.writer else 0)]
        space = {name: CategoricalDistribution([*texts, *to_come]) for name, texts in self.texts.items()}
        self.space, self.rounds = space, ROUNDS if self.writer else 0
        self.sampler = RaceSampler(space=space, seed=self.seed)
        pruner = RacePruner(len(self.rows))
        self.study = optuna.create_study(sampler=self.sampler, pruner=pruner, direction="maximize")
        start = dict.fromkeys(self.texts, REGISTERED)
        for prompt, named in self.texts.items():
            for name in named:
                self.study.enqueue_trial({**start, prompt: name}, skip_if_exists=True)

    def run(self, calls: int) -> None:
        """Play up to `calls` rows: a rung of a trial at a time, of 1, 2, 4, ... rows."""
        open_, left = dict[int, optuna.Trial](), calls
        while left:
            drawn = {name: CategoricalDistribution([*own]) for name, own in self.texts.items()}
            self.sampler.widen(drawn, {name: dict(own) for name, own in self.texts.items()})
            waiting = self.study.get_trials(deepcopy=False, states=[TrialState.WAITING])
            choice = NEW if waiting else self.sampler.choose(self.study, sorted(open_))
            if self.rounds and (choice is None or left <= calls * self.rounds / (ROUNDS + 1)):
                self.write()
                continue
            if choice is None:
                break
            trial = self.study.ask({**self.space}) if choice == NEW else open_[choice]
            own = self.played.setdefault(trial.number, [])
            rung = self.rows[len(own) : 1 << len(own).bit_length()][:left]
            open_[trial.number], left = trial, left - len(rung)
            new = evaluated(self.evaluate, self.chosen(trial.params), rung)
            for step, score in enumerate(scores(new), start=len(own)):
                trial.report(score, step)
            own += new
            if trial.should_prune():
                trial.set_user_attr("dropped", True)
                self.study.tell(open_.pop(trial.number), state=TrialState.PRUNED)
            elif len(own) == len(self.rows):
                self.study.tell(open_.pop(trial.number), mean(own))
        for trial in open_.values():
            self.study.tell(trial, state=TrialState.PRUNED)

    def write(self) -> None:
        """A round of reflection: each new text joins the race beside its parent's other texts."""
        first = TEXTS * (ROUNDS - self.rounds)
        self.rounds -= 1
        ranked = self._ranked() or [0]
        parents = [ranked[place % len(ranked)] for place in range(TEXTS)]
        names = [list(self.texts)[(first + place) % len(self.texts)] for place in range(TEXTS)]
        params = [self.study.trials[number].params for number in parents]
        shown = [
            Played(self.texts[name][own[name]], self.played[number])
            for name, own, number in zip(names, params, parents, strict=True)
        ]
        for place, text in enumerate(written(self.writer, shown)):
            if text and text not in self.texts[names[place]].values():
                new = f"written-{first + place + 1}"
                self.texts[names[place]][new] = text
                self.study.enqueue_trial({**params[place], names[place]: new})

    def best(self, most: int) -> list[Choice]:
        """The best of the trials that were not dropped, without the registered texts."""
        numbers = [number for number in self._ranked() if number]
        return [self.chosen(self.study.trials[number].params) for number in numbers[:most]]

    def chosen(self, params: Mapping[str, str]) -> Choice:
        """The texts by prompt."""
        return {name: self.texts[name][params[name]] for name in self.texts}

    def log(self) -> None:
        """Write the trials to MLflow, as child runs of the active one."""
        for trial in self.study.trials:
            tags = {"kind": "search", **({"race": "dropped"} if _is_dropped(trial) else {})}
            with mlflow.start_run(run_name=trial_name(trial.number), nested=True, tags=tags):
                mlflow.log_params(trial.params)
                if played := self.played.get(trial.number):
                    mlflow.log_metrics({"score_mean": mean(played), "rows": len(played)})
                mlflow.log_dict(self.chosen(trial.params), "texts.json")

    def _ranked(self) -> list[int]:
        """Numbers of the trials that have played and were not dropped, by descending expected mean."""
        trials = self.study.get_trials(deepcopy=False)
        expected = self.sampler.expected(trials)
        able = [one.number for one in trials if one.number in self.played and not _is_dropped(one)]
        return sorted(able, key=lambda number: -expected[number])


def _is_dropped(trial: FrozenTrial) -> bool:
    return "dropped" in trial.user_attrs


def evaluated(
    evaluate: Evaluate, texts: Mapping[str, str], rows: Sequence[Row]
) -> list[EvaluationResultRecord]:
    """The rows' results, each with a score.

    Raises:
        ConfigError: One has no number.
    """
    records = evaluate(dict(texts), list(rows))
    if not all(one.score is not None and isfinite(one.score) for one in records):
        what, do = "A row's score is not a number.", "pass scorers that return numbers, or aggregation"
        raise ConfigError(what, where="mlflow.genai.optimize_prompts", do=do)
    failed = [
        one.outputs for one in records if str(one.outputs).startswith("Failed to invoke the predict_fn")
    ]
    if failed:  # MLflow scores the error's text as the output
        _logger.warning("predict_fn failed on %d of %d rows: %s", len(failed), len(records), failed[0])
    return records


def scores(records: Sequence[EvaluationResultRecord]) -> list[float]:
    """The scores, in the rows' order."""
    return [float(one.score) for one in records if one.score is not None]


def mean(records: Sequence[EvaluationResultRecord]) -> float:
    """The mean score."""
    return fmean(scores(records))
