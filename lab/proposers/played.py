"""What was played so far, as a proposer's briefing: each text by its best trial.

A trial's figure is what the search expects of it, which is not its mean of a few lucky episodes.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from math import isfinite
from statistics import fmean

from lab.agent.episode import Episode
from lab.agent.evaluation import Trial
from lab.agent.step import Troubles
from lab.experiment.experiment import Experiment
from lab.proposers.briefing import Briefing, Rated
from lab.stats.format import percent
from lab.storage.record import Record


def briefing(experiment: Experiment, trials: Sequence[Trial], record: Record) -> Briefing:
    """The objective, and each text with its results; `trials` are best first."""
    by_text = defaultdict[str, list[Trial]](list)
    for trial in trials:
        by_text[trial.candidate.template.name].append(trial)
    rated = [_rated(played, record) for played in by_text.values()]
    texts = tuple(replace(one, beside=_beside(one, rated, by_text, record)) for one in rated)
    task, measure = experiment.task, experiment.objective.maximise
    objective = f"{experiment.about} The objective is the mean episode {measure}, {task.described(measure)}."
    return Briefing(objective, task, texts)


def _rated(trials: Sequence[Trial], record: Record) -> Rated:
    """A text by its best trial, with its mean value on each seed over all of them."""
    first, by_seed = trials[0], defaultdict[int, list[float]](list)
    for trial in trials:
        for seed, value in trial.evaluation.values.items():
            by_seed[seed].append(value)
    values = first.evaluation.values
    ranked = sorted(values, key=lambda seed: values[seed])
    best, worst = record.episodes_of(first.candidate.digest, [ranked[-1], ranked[0]])
    expected = first.expected.mean if first.expected else first.evaluation.mean
    return Rated(
        first.candidate.template,
        expected if isfinite(expected) else first.evaluation.mean,
        len(values),
        best,
        worst,
        first.evaluation.measure,
        {seed: fmean(known) for seed, known in by_seed.items()},
        troubles=_in_words(first.evaluation.troubles),
    )


def _beside(
    one: Rated, rated: Sequence[Rated], by_text: dict[str, list[Trial]], record: Record
) -> Episode | None:
    """The best other text's episode on a text's worst seed; None if it earned no more."""
    seed = one.worst.seed
    others = [trial for other in rated if other is not one for trial in by_text[other.template.name]]
    able = [trial for trial in others if seed in trial.evaluation.values]
    best = max(able, key=lambda trial: trial.evaluation.values[seed], default=None)
    mine = by_text[one.template.name][0].evaluation.values[seed]
    if best is None or best.evaluation.values[seed] <= mine:
        return None
    return record.episodes_of(best.candidate.digest, [seed])[0]


def _in_words(troubles: Troubles) -> str:
    """The kinds of answers that were not used, each with its most common reason in the other side's words."""
    shares = {kind: percent(troubles.share_of(kind)) for kind in troubles.kinds}
    return "; ".join(
        f"{share} were not used: {kind.replace('_', ' ')} {troubles.reason(kind)}".strip()
        for kind, share in shares.items()
    )
