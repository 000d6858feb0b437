"""What the methods that write texts share: texts to a candidate, an episode to words.

A text that is no template is a candidate that was not played: it costs no call and scores nothing.
"""

from dataclasses import replace

from benchmarks.ground import Ground
from lab.agent.candidate import Candidate
from lab.agent.episode import Episode
from lab.agent.template import PromptTemplate
from lab.errors import ConfigError
from lab.experiment.experiment import Experiment


def with_texts(ground: Ground, name: str, system: str, turn: str) -> Candidate:
    """The baseline with these texts: who tunes texts leaves the numbers as they are.

    Raises:
        ConfigError: a text is empty, or has a brace or a placeholder that no template may have.
    """
    return replace(ground.experiment.baseline, template=PromptTemplate(name, system, turn))


def try_texts(ground: Ground, name: str, system: str, turn: str) -> Candidate | str:
    """The same, or what is wrong with the texts, in words for the model that wrote them."""
    try:
        return with_texts(ground, name, system, turn)
    except ConfigError as error:
        return error.one_line


def told(episode: Episode) -> str:
    """The transcript, a step a paragraph, and what it brought."""
    steps = [f"Step {step.number}: {step.action}\nReward: {step.reward:.1f}" for step in episode.steps]
    return "\n\n".join([*steps, f"Total reward of the episode: {episode.episode_return:.1f}"])


def goal(experiment: Experiment) -> str:
    """The task, for a model that proposes texts: the baseline's own words for it."""
    return (
        "An agent acts in an environment step by step; the prompt should bring the highest total reward. "
        f"{experiment.about}\nThe present prompt says of the task:\n"
        f"{experiment.baseline.template.system.strip()}"
    )
