"""A Briefing: a proposer's input: the objective, and each text so far by its best trial.

A trial's figure is what the search expects of it, which is not its mean of a few lucky episodes. Episodes are
shown as data: text of a model or an environment is clipped, quoted, and never syntax.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from statistics import fmean
from typing import Literal

from lab.agent.episode import Episode
from lab.agent.evaluation import Trial
from lab.agent.step import Troubles
from lab.agent.task import Measure, Task
from lab.agent.template import PromptTemplate
from lab.experiment.experiment import Experiment
from lab.stats.format import number, percent
from lab.storage.record import Record

SHOWN_STEPS = 3
SHOWN_CHARACTERS = 160
"""Maximum characters of an action or an observation: small models have small contexts."""

LONG = 1_000
"""Maximum characters of another text."""

Part = Literal["system", "turn"]
"""A component, in GEPA's terms."""


@dataclass(frozen=True)
class Rated:
    """A text, and the results of its best trial.

    Attributes:
        mean: Expected mean of the trial's values, by `measure`: what the search ranks by.
        episodes: Number of episodes of the trial.
        best, worst: The trial's episodes with the highest and the lowest value.
        values: Mean value of the text's trials on each instance, by seed.
        beside: The best other text's episode on the worst one's instance; None if it earned no more.
        troubles: Why answers of the trial were not used, in words; empty if all were.
    """

    template: PromptTemplate
    mean: float
    episodes: int
    best: Episode
    worst: Episode
    measure: Measure = "return"
    values: Mapping[int, float] = field(default_factory=dict)
    beside: Episode | None = None
    troubles: str = ""

    @property
    def earned(self) -> str:
        """The mean with its number of episodes, as text."""
        return f"mean {self.measure} {number(self.mean)} over {self.episodes} episodes"


@dataclass(frozen=True)
class Briefing:
    """The objective, and the texts to improve.

    Attributes:
        objective: Description of the objective.
        texts: Texts, best first; never empty.
    """

    objective: str
    task: Task
    texts: tuple[Rated, ...]

    def value_of(self, episode: Episode) -> float:
        """An episode's value by the objective's measure."""
        return self.task.value_of(episode.rewards, self.texts[0].measure, episode.own_score)

    def shown(self, episode: Episode) -> str:
        """An episode's value, and its text by `shown`."""
        by_score = self.texts[0].measure == "score"
        return (f"score {number(self.value_of(episode))}, " if by_score else "") + shown(episode)


def shown(episode: Episode) -> str:
    """An episode's return and its steps with the highest and lowest rewards, in order, as indented text."""
    ranked = sorted(episode.steps, key=lambda step: -step.reward)
    chosen = {step.number for step in (*ranked[: SHOWN_STEPS - 1], *ranked[-1:])}
    lines = [f"return {number(episode.episode_return)} in {len(episode.steps)} steps"]
    lines.append(f"it began with: {clipped(episode.opening)}")
    for step in episode.steps:
        if step.number in chosen:
            lines.append(f"step {step.number}, reward {step.reward:.2f}")
            lines.append(f"  action: {clipped(step.action)}")
            lines.append(f"  then observed: {clipped(step.observation)}")
            if step.reported_error:
                lines.append(f"  error: {clipped(step.reported_error)}")
    return "\n".join(lines)


def clipped(text: str, longest: int = SHOWN_CHARACTERS) -> str:
    """`text` as a JSON string on one line, cut to `longest`, with a note of how many are missing.

    Unprintable characters become spaces, and backticks quotes, because DSPy and GEPA use backticks as fences.
    """
    one_line = "".join(character if character.isprintable() else " " for character in text)
    quoted = json.dumps(one_line[:longest].replace("`", "'"), ensure_ascii=False)
    left_out = len(one_line) - longest
    return quoted if left_out <= 0 else f"{quoted} [... {left_out} characters more]"


def briefing(experiment: Experiment, trials: Sequence[Trial], record: Record) -> Briefing:
    """The objective, and each text with its results; `trials` are best first."""
    by_text = defaultdict[str, list[Trial]](list)
    for trial in trials:
        by_text[trial.candidate.template.name].append(trial)
    texts = tuple(_rated(name, by_text, record) for name in by_text)
    task, measure = experiment.task, experiment.objective.maximise
    objective = f"{experiment.about} The objective is the mean episode {measure}, {task.described(measure)}."
    return Briefing(objective, task, texts)


def _rated(name: str, by_text: Mapping[str, Sequence[Trial]], record: Record) -> Rated:
    """A text by its best trial, with its mean value on each seed over all of them."""
    first, by_seed = by_text[name][0], defaultdict[int, list[float]](list)
    for trial in by_text[name]:
        for seed, value in trial.evaluation.values.items():
            by_seed[seed].append(value)
    values = first.evaluation.values
    ranked = sorted(values, key=lambda seed: values[seed])
    best, worst = record.episodes_of(first.candidate.digest, [ranked[-1], ranked[0]])
    others = [trial for other, trials in by_text.items() if other != name for trial in trials]
    expected = first.expected.mean if first.expected else first.evaluation.mean
    return Rated(
        first.candidate.template,
        expected if isfinite(expected) else first.evaluation.mean,
        len(values),
        best,
        worst,
        first.evaluation.measure,
        {seed: fmean(known) for seed, known in by_seed.items()},
        _beside(first, ranked[0], others, record),
        _in_words(first.evaluation.troubles),
    )


def _beside(first: Trial, seed: int, others: Sequence[Trial], record: Record) -> Episode | None:
    """The best other text's episode on a text's worst seed; None if it earned no more."""
    able = [trial for trial in others if seed in trial.evaluation.values]
    best = max(able, key=lambda trial: trial.evaluation.values[seed], default=None)
    if best is None or best.evaluation.values[seed] <= first.evaluation.values[seed]:
        return None
    return record.episodes_of(best.candidate.digest, [seed])[0]


def _in_words(troubles: Troubles) -> str:
    """The kinds of answers that were not used, each with its most common reason in the other side's words."""
    shares = {kind: percent(troubles.share_of(kind)) for kind in troubles.kinds}
    return "; ".join(
        f"{share} were not used: {kind.replace('_', ' ')} {troubles.reason(kind)}".strip()
        for kind, share in shares.items()
    )
