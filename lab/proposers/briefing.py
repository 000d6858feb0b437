"""A Briefing: what a proposer is told: the objective, and the texts so far with what they earned.

Episodes are shown as data: what a model or an environment wrote is clipped, quoted, and never syntax.
"""

import json
from dataclasses import dataclass

from lab.agent.episode import Episode
from lab.agent.task import Measure, Task
from lab.agent.template import PromptTemplate
from lab.stats.format import number

SHOWN_STEPS = 3
SHOWN_CHARACTERS = 160
"""Of an action or an observation: small models have small contexts."""


@dataclass(frozen=True)
class Rated:
    """A text and the trial that did best with it.

    Attributes:
        mean: of its episodes' values, by `measure`.
        episodes: how many `mean` is over.
        best, worst: the trial's episodes with the highest and the lowest value.
    """

    template: PromptTemplate
    mean: float
    episodes: int
    best: Episode
    worst: Episode
    measure: Measure = "return"

    @property
    def earned(self) -> str:
        """The mean value with its count."""
        return f"mean {self.measure} {number(self.mean)} over {self.episodes} episodes"


@dataclass(frozen=True)
class Briefing:
    """What is to be done better.

    Attributes:
        objective: in words.
        texts: best first, never empty.
    """

    objective: str
    task: Task
    texts: tuple[Rated, ...]

    def value_of(self, episode: Episode) -> float:
        """What an episode earned, by the number that is to become higher."""
        return self.task.value_of(episode.rewards, self.texts[0].measure, episode.own_score)

    def shown(self, episode: Episode) -> str:
        """What an episode earned, and what `shown` tells of it."""
        by_score = self.texts[0].measure == "score"
        return (f"score {number(self.value_of(episode))}, " if by_score else "") + shown(episode)


def shown(episode: Episode) -> str:
    """An episode's return and its steps of most and least reward, in order, as indented text."""
    ranked = sorted(episode.steps, key=lambda step: -step.reward)
    chosen = {step.number for step in (*ranked[: SHOWN_STEPS - 1], *ranked[-1:])}
    lines = [f"return {number(episode.episode_return)} in {len(episode.steps)} steps"]
    lines.append(f"it began with: {clipped(episode.opening)}")
    for step in episode.steps:
        if step.number in chosen:
            lines.append(f"step {step.number}, reward {step.reward:.2f}")
            lines.append(f"  action: {clipped(step.action)}")
            lines.append(f"  then observed: {clipped(step.observation)}")
    return "\n".join(lines)


def clipped(text: str) -> str:
    """`text` as a JSON string on one line, at most `SHOWN_CHARACTERS`, and a note of what was left out.

    Unprintables become spaces, and backticks quotes: a library's prompt fences its parts with backticks.
    """
    one_line = "".join(character if character.isprintable() else " " for character in text)
    quoted = json.dumps(one_line[:SHOWN_CHARACTERS].replace("`", "'"), ensure_ascii=False)
    left_out = len(one_line) - SHOWN_CHARACTERS
    return quoted if left_out <= 0 else f"{quoted} [... {left_out} characters more]"
