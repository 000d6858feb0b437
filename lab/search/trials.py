"""A candidate as an Optuna trial, and its evaluation from the episodes that it played.

It owns the user attributes of a trial: `candidate`, all of it as JSON; `digest`; `dropped`, if the pruner
ended it; `reason`, if it failed; `begun`, its number of started episodes, if several workers share the study.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from math import inf, nan
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState
from pydantic import TypeAdapter

from lab.agent.candidate import Candidate
from lab.agent.episode import Ending
from lab.agent.evaluation import BASELINE, Evaluation, Trial
from lab.agent.template import PromptTemplate
from lab.experiment.experiment import Experiment
from lab.experiment.schema import MOST_UNSEEN
from lab.experiment.space import Space
from lab.search.likeness import Texts
from lab.search.sampler import RaceSampler
from lab.stats.intervals import Estimate
from lab.storage.keys import CONFIRMATION, EpisodeKey
from lab.storage.trials import Trials

CONFIDENCE = 0.95
"""Confidence level of the search model's intervals, which are for display only."""

_CANDIDATE = TypeAdapter(Candidate)


def attributes(candidate: Candidate) -> dict[str, Any]:
    """Return the user attributes that define what a trial plays."""
    return {"candidate": _CANDIDATE.dump_python(candidate, mode="json"), "digest": candidate.digest}


def note_of(candidate: Candidate) -> str:
    """Return a candidate in Markdown, for optuna-dashboard's note on a trial."""
    settings = ", ".join(f"{name} = {value}" for name, value in candidate.settings.items())
    parts = {"system": candidate.template.system, "turn": candidate.template.turn}
    texts = "\n".join(f"\n**{part}**\n\n{_indented(text)}" for part, text in parts.items())
    return f"{settings}\n{texts}\n"


def _indented(text: str) -> str:
    """Any text as a block of code in Markdown."""
    return "\n".join(f"    {line}" for line in text.splitlines())


def candidate_of(trial: FrozenTrial) -> Candidate | None:
    """Return the candidate of a trial; None if its process died before it was stored."""
    table = trial.user_attrs.get("candidate")
    return None if table is None else _CANDIDATE.validate_python(table)


def words_of(templates: Iterable[PromptTemplate]) -> Texts:
    """Return the words by which the sampler compares texts."""
    return {"template": {one.name: f"{one.system} {one.turn}" for one in templates}}


def read_texts(study: Trials) -> None:
    """Give the lab's own sampler the texts of a study's trials, as the search gave it those of its space."""
    sampler, candidates = study.study.sampler, map(candidate_of, study.known)
    if isinstance(sampler, RaceSampler):
        sampler.widen(sampler.drawn, words_of(one.template for one in candidates if one is not None))


def number_of(trial: FrozenTrial) -> int:
    """Return a trial's number; a trial taken over from a dead worker keeps its first one."""
    first = RetryHeartbeatStaleTrialCallback.retried_trial_number(trial)
    return trial.number if first is None else first


def numbers_of(known: Iterable[FrozenTrial]) -> dict[str, int]:
    """Return the number of each trial, by its candidate's digest."""
    return {one.user_attrs["digest"]: number_of(one) for one in known if "digest" in one.user_attrs}


def distributions_of(experiment: Experiment) -> dict[str, BaseDistribution]:
    """Return the distributions of a study, with reserved names for texts that will be proposed."""
    distributions = experiment.space.distributions()
    if experiment.proposals is not None:
        names = [*experiment.space.templates, *experiment.proposals.names]
        distributions["template"] = CategoricalDistribution(names)
    return distributions


def drawn_from(space: Space, distributions: Mapping[str, BaseDistribution]) -> dict[str, BaseDistribution]:
    """Return the part of a study's distributions that can be played now.

    Texts that are not written yet, and demonstrations that were not found, are left out.
    """
    now = space.distributions()
    if "demonstrations" in now and not space.demonstrations:
        now["demonstrations"] = CategoricalDistribution([min(space.free["demonstrations"].ends)])
    fixed = space.start.settings
    return {name: now.get(name, CategoricalDistribution([fixed[name]])) for name in distributions}


class Standings:
    """The ranked trials of a search, with their evaluations; unchanged ones are cached.

    Args:
        ended: The ending of each ended episode.
    """

    def __init__(self, experiment: Experiment, ended: Mapping[EpisodeKey, Ending]) -> None:
        self._experiment, self._ended = experiment, ended
        self._candidates = dict[int, Candidate]()
        self._evaluations = dict[int, tuple[tuple[int, bool], Evaluation]]()

    def ranked(self, trials: Sequence[FrozenTrial], expected: Sequence[Estimate]) -> list[Trial]:
        """Return the trials that have played, by descending expected mean, with dropped ones last."""
        able = [one for one in trials if one.intermediate_values and one.state is not TrialState.FAIL]
        pairs = [(one, self._evaluation(one)) for one in able]
        played = [one for one, evaluation in pairs if evaluation.episodes]
        evaluations = [evaluation for _, evaluation in pairs if evaluation.episodes]
        objective = self._experiment.objective
        costs = np.array([objective.mean_cost(one) if objective.cost else 0.0 for one in evaluations])
        order = objective.order(np.array([expected[one.number].mean for one in played]), costs)
        order.sort(key=lambda place: "dropped" in played[place].user_attrs)
        return [
            Trial(
                number_of(played[place]),
                evaluations[place],
                rank,
                "dropped" in played[place].user_attrs,
                len(evaluations[place].cut),
                expected[played[place].number],
            )
            for rank, place in enumerate(order, 1)
        ]

    def _evaluation(self, trial: FrozenTrial) -> Evaluation:
        key = (len(trial.intermediate_values), trial.state.is_finished())
        known = self._evaluations.get(trial.number)
        if known is None or known[0] != key:
            evaluation = self._read(trial)
            if len(evaluation.episodes) < key[0]:  # another worker's trial, whose episodes were not read yet
                return evaluation
            known = self._evaluations[trial.number] = (key, evaluation)
        return known[1]

    def _read(self, trial: FrozenTrial) -> Evaluation:
        candidate = self._candidates.get(trial.number) or candidate_of(trial)
        assert candidate is not None
        self._candidates[trial.number] = candidate
        first, episodes = self._experiment.seed, self._experiment.search.episodes
        return evaluation(self._experiment, candidate, range(first, first + episodes), self._ended)


def best_of(trials: Sequence[Trial], count: int, winner: int | None = None) -> list[Trial]:
    """The `count` best trials without the baseline.

    Args:
        trials: Trials, best first.
        winner: Number of the trial that won an earlier verdict: it is one of them, unless they are only one.
    """
    others = [one for one in trials if one.number != BASELINE]
    best, rest = others[:count], others[count:]
    earlier = [one for one in rest if one.number == winner and count > 1]
    return [*best[: count - len(earlier)], *earlier]


def seeds_of(experiment: Experiment, offset: int) -> range:
    """Return the seeds of CONFIRMATION or HOLDOUT, which no earlier verdict of the study has used."""
    first = experiment.seed + offset + experiment.verdicts * MOST_UNSEEN
    table = experiment.confirmation if offset == CONFIRMATION else experiment.verdict
    return range(first, first + table.episodes)


def evaluation(
    experiment: Experiment, candidate: Candidate, seeds: range, ended: Mapping[EpisodeKey, Ending]
) -> Evaluation:
    """Return a candidate's evaluation on these seeds."""
    endings = [ended[key] for seed in seeds if (key := (candidate.digest, seed)) in ended]
    return Evaluation.of(candidate, experiment.task, endings, experiment.objective.maximise)


def state_leader(study: Trials, leader: Trial) -> None:
    """Add a trial to the study's leaders over time, unless it is the last of them."""
    before, evaluation = study.fact("leaders") or [], leader.evaluation
    if not before or before[-1]["trial"] != leader.number:
        figures = {"trial": leader.number, "mean": evaluation.mean, "episodes": len(evaluation.episodes)}
        study.state_fact("leaders", [*before, {"at": time.time(), **figures}])


def expected(study: Trials, of: Sequence[int] | None = None) -> list[Estimate]:
    """Return each trial's expected mean by number: the model's, with its interval, or its own without.

    Args:
        of: Numbers of the trials that need an interval; None for all.
    """
    sampler, known = study.study.sampler, study.known
    if isinstance(sampler, RaceSampler):
        columns = (sampler.expected(known), *sampler.intervals(known, CONFIDENCE, of))
        counts = [len(trial.intermediate_values) for trial in known]
        return list(map(Estimate, *(column.tolist() for column in columns), counts))
    values = [list(trial.intermediate_values.values()) for trial in known]
    return [Estimate(sum(one) / len(one) if one else nan, -inf, inf, len(one)) for one in values]
