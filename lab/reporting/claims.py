"""What the report says of a study: the verdict, and the reasons for doubt.

It owns the doubts about the search, the model and the environment; `lab.verdict.words` has the holdout's.
"""

from collections.abc import Iterator

from lab.reporting.story import Story, expected_of
from lab.search.trouble_words import troubles_text
from lab.stats.format import count, interval, mean, p_text
from lab.verdict.words import Doubt, alike, claim, doubts, trouble_cautions


def verdict(story: Story) -> str:
    """The claim, then any caution about unusable answers; without a verdict, the state of the search."""
    if story.outcome is None:
        return f"The study was stopped: {story.stopped}" if story.stopped else _so_far(story)
    return " ".join([claim(story.outcome.frozen_prompt()), *trouble_cautions(story.outcome.verdict)])


def _so_far(story: Story) -> str:
    if story.chosen is None:
        return "No verdict yet: no episode has ended."
    one = expected_of(story.trials[0])
    ends = f", {interval(one)}" if one.bounded else ""
    return (
        f"No verdict yet. So far {story.trials[0].name} leads the search, with an expected mean"
        f" {story.measure} of {mean(one)}{ends}, n = {count(one.n, 'episode')}. The best of"
        f" {count(len(story.trials), 'candidate')} is overestimated: only the holdout can show a gain."
    )


def reasons(story: Story) -> list[Doubt]:
    """The reasons for doubt that apply to this study, the most important first."""
    outcome, held_out = story.outcome, list[Doubt]()
    if outcome:
        tests = len(outcome.verdict.finalists) * (1 if outcome.experiment.objective.cost is None else 2)
        held_out = [*doubts(outcome.verdict, tests)]
    return [*_of_answers(story), *held_out, *_of_the_search(story), *_of_what_was_played(story)]


def _of_answers(story: Story) -> Iterator[Doubt]:
    if told := troubles_text(story.troubles):
        yield Doubt(
            f"In the whole study, {told}. Such a step still has a reward, which counts in the returns.",
            "The returns with a model that answers, and with actions that the environment accepts.",
        )
    if story.outcome and story.outcome.alike is not None:
        yield Doubt(
            alike(story.outcome.alike),
            "Whether the environment pays rewards at all, and after how many steps.",
        )


def _of_the_search(story: Story) -> Iterator[Doubt]:
    if story.headroom is not None and not story.headroom.found:
        yield Doubt(
            f"The warm-up test of whether candidates differ: {story.headroom.result}"
            f" ({p_text(story.headroom.p_value)}).",
            "Whether a wider space, or more episodes for each candidate, shows a difference.",
        )
    if story.headroom is None:
        yield Doubt(
            "The warm-up test could not be made: it is unknown whether candidates differ at all.",
            f"The {story.measure}s of more candidates, and of their second episodes.",
        )
    once = sum(len(trial.evaluation.episodes) == 1 for trial in story.trials)
    if once:
        yield Doubt(
            f"{once} of {count(len(story.trials), 'candidate')} played a single episode of the search: what"
            " is expected of them rests on candidates with similar settings, and slices and Pareto front"
            " include them.",
            "Whether a second study, with another seed, finds the same effects.",
        )


def _of_what_was_played(story: Story) -> Iterator[Doubt]:
    yield Doubt(
        f"Everything was played with {'models' if story.experiment.others else 'one model,'}"
        f" {story.experiment.models_text(story.model)}, and one environment,"
        f" {story.experiment.environment.shown}.",
        "The results with the model that you will use, if it is another one or a later version.",
    )
    yield Doubt(
        "Pairs share the environment's seed, but the model gets no seed: its sampling differs between runs,"
        " and a repeated study may give other figures.",
        "The result of a second study, or of both prompts head to head on fresh episodes.",
    )
    if story.failures or story.failed:
        times = sum(story.failures.values())
        yield Doubt(
            f"{count(times, 'attempt')} at calls failed, against {story.cost.spent.calls:,} that succeeded;"
            f" {count(len(story.failed), 'episode')} could not be played.",
            "Whether long answers fail more often: then the remaining episodes are a biased sample.",
        )
    if story.cost.dollars is None:
        yield Doubt(
            "The cost in money is unknown: the experiment sets no prices for a model that was called.",
            "dollars_in and dollars_out, the prices of a million tokens.",
        )
