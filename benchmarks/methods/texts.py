"""What the methods that write texts share: candidates from texts, transcripts from episodes.

A text that is not a valid template is not played: it costs no call, and scores the task's `min_return`.
"""

from dataclasses import replace

from benchmarks.ground import Ground
from lab.agent.candidate import Candidate
from lab.agent.episode import Episode
from lab.agent.template import PromptTemplate
from lab.errors import ConfigError
from lab.experiment.experiment import Experiment


def with_texts(ground: Ground, name: str, system: str, turn: str) -> Candidate:
    """The baseline with these texts and unchanged numbers.

    Raises:
        ConfigError: A text is empty, or has a stray brace or an unknown placeholder.
    """
    return replace(ground.experiment.baseline, template=PromptTemplate(name, system, turn))


def try_texts(ground: Ground, name: str, system: str, turn: str) -> Candidate | str:
    """As `with_texts`, or the reason for refusing the texts, for the model that wrote them."""
    try:
        return with_texts(ground, name, system, turn)
    except ConfigError as error:
        return error.one_line


def transcript(episode: Episode) -> str:
    """The transcript of an episode, a paragraph per step, and its return."""
    steps = [f"Step {step.number}: {step.action}\nReward: {step.reward:.1f}" for step in episode.steps]
    return "\n\n".join([*steps, f"Total reward of the episode: {episode.episode_return:.1f}"])


def goal(experiment: Experiment) -> str:
    """The task in the baseline's words, for a proposing model."""
    return (
        "An agent acts in an environment step by step; the prompt should bring the highest total reward. "
        f"{experiment.about}\nThe present prompt says of the task:\n"
        f"{experiment.baseline.template.system.strip()}"
    )
