"""What a candidate unfolds to: its prompt, the difference from the baseline's, and its episodes.

Texts that many candidates share are written once when there are many candidates; see `MOST_PROMPTS`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from lab.agent.candidate import Candidate
from lab.agent.episode import CutEpisode, Ending, Episode, FailedEpisode
from lab.agent.evaluation import Trial
from lab.display.diff import text_lines
from lab.reporting.evidence import Line, difference
from lab.reporting.story import Story, phase_of
from lab.stats.format import count, number

MOST_PROMPTS = 200_000
"""Number of characters of prompts after which a prompt that was shown is only referred to."""


@dataclass(frozen=True)
class Played:
    """An episode of a candidate.

    Attributes:
        figures: How it ended.
        episode: Its texts; None if it has none, or if they are left out.
        left_out: Whether its texts are left out to keep the page small.
    """

    seed: int
    phase: str
    figures: str
    episode: Episode | None
    left_out: bool


@dataclass(frozen=True)
class Details:
    """A candidate's prompt and episodes.

    Attributes:
        same: Name of a candidate whose details show the same prompt; empty if these do.
        prompt: Texts by part.
        difference: Lines by part; empty for the baseline's own prompt.
    """

    name: str
    same: str
    prompt: tuple[tuple[str, str], ...]
    difference: tuple[tuple[str, list[Line]], ...]
    episodes: tuple[Played, ...]


def details(story: Story) -> Iterator[Details]:
    """The details of all candidates and the baseline, in the order of the race."""
    base, room = story.experiment.baseline, MOST_PROMPTS
    shown = dict[str, Details]()
    for trial in story.trials:
        texts, episodes = text_lines(trial.candidate), tuple(_episodes(trial, story))
        key = repr(texts)
        if key not in shown:
            prompt = tuple((part, "\n".join(lines)) for part, lines in texts.items() if lines)
            shown[key] = Details(trial.name, "", prompt, tuple(_differs(base, trial.candidate)), episodes)
        first = shown[key]
        if first.name == trial.name or room > 0:
            room -= sum(len(text) for _, text in first.prompt)
            yield replace(first, name=trial.name, episodes=episodes)
        else:
            yield Details(trial.name, first.name, (), (), episodes)


def _differs(base: Candidate, other: Candidate) -> Iterator[tuple[str, list[Line]]]:
    for part, lines in difference(base, other):
        if any(line.kind != "kept" for line in lines):
            yield part, lines


def _episodes(trial: Trial, story: Story) -> Iterator[Played]:
    digest = trial.candidate.digest
    for seed, ending in story.endings.get(digest, {}).items():
        episode = story.texts.get((digest, seed))
        figures, whole = _figures(ending, story)
        phase = phase_of(seed, story.experiment)
        yield Played(seed, phase, figures, episode, whole and episode is None)


def _figures(ending: Ending, story: Story) -> tuple[str, bool]:
    """How an episode ended, and whether it was completed."""
    if isinstance(ending, FailedEpisode):
        return f"failed: {ending.error.what}", False
    if isinstance(ending, CutEpisode):
        return f"ended early: its return could not exceed {number(ending.bound)}", False
    value = story.experiment.task.value_of(ending.rewards, story.measure, ending.own_score)
    tokens = ending.prompt_tokens + ending.completion_tokens
    return (
        f"{story.measure} {number(value)}, {count(len(ending.rewards), 'step')}, {tokens:,} tokens",
        True,
    )
