"""What a candidate unfolds to: its prompt and its episodes.

Texts that many candidates share are written once when there are many candidates; see `MOST_PROMPTS`.
"""

from collections.abc import Iterator, Sequence

from lab.agent.episode import CutEpisode, Ending, Episode, FailedEpisode
from lab.agent.evaluation import Trial
from lab.display.diff import text_lines
from lab.reporting.story import Story, phase_of
from lab.stats.format import count, number

MOST_PROMPTS = 200_000
"""Number of characters of prompts after which a prompt that was shown is only referred to."""


def prompts(story: Story) -> Iterator[tuple[Trial, str]]:
    """Each trial, best first, with the name of another that shows the same prompt; empty for none."""
    first, room = dict[str, str](), MOST_PROMPTS
    for trial in story.trials:
        texts = text_lines(trial.candidate)
        same = first.setdefault(repr(texts), trial.name)
        if same == trial.name or room > 0:
            room -= sum(len("\n".join(lines)) for lines in texts.values())
            same = ""
        yield trial, same


def ended(story: Story, ending: Ending, text: Episode | None) -> str:
    """The phase, seed and figures of an episode; `text` is None if its texts are left out or it has none."""
    if isinstance(ending, FailedEpisode):
        figures = f"failed: {ending.error.what}"
    elif isinstance(ending, CutEpisode):
        figures = f"ended early: its return could not exceed {number(ending.bound)}"
    else:
        value = story.experiment.task.value_of(ending.rewards, story.measure, ending.own_score)
        tokens = ending.prompt_tokens + ending.completion_tokens
        figures = f"{story.measure} {number(value)}, {count(len(ending.rewards), 'step')}, {tokens:,} tokens"
        figures += "" if text else " (texts left out)"
    return f"{phase_of(ending.seed, story.experiment).capitalize()}, seed {ending.seed}: {figures}"


def titled(story: Story, episodes: Sequence[Episode]) -> Iterator[tuple[str, Episode]]:
    """The best and the worst episode of a candidate, each with its title."""
    names = ("Best", "Worst") if len(episodes) > 1 else ("Only",)
    for name, episode in zip(names, episodes, strict=True):
        value = number(story.experiment.task.value_of(episode.rewards, story.measure, episode.own_score))
        yield f"{name}: {story.measure} {value} (seed {episode.seed})", episode
