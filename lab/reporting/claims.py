"""The report's claims, in sentences, and the reasons for doubt.

A claim says no more than the verdict's test has shown; a caveat is a figure of this study.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf, isclose

from lab.agent.task import Measure
from lab.reporting.charts import holdout
from lab.reporting.story import Story
from lab.search.trouble_words import troubles_text
from lab.stats.format import LESS, MORE, count, estimate_text, interval, mean, number, p_text, percent
from lab.verdict.cautions import lower_cautions, trouble_cautions
from lab.verdict.outcome import Outcome
from lab.verdict.verdict import Compared


@dataclass(frozen=True)
class Caveat:
    """A reason for doubt.

    Attributes:
        known: The figure, in a sentence.
        wanted: What would settle the doubt.
    """

    known: str
    wanted: str


def verdict(story: Story) -> str:
    """The verdict in a sentence or two: first what speaks against it, last unusable answers."""
    if story.outcome is None:
        return f"The study was stopped: {story.stopped}" if story.stopped else _so_far(story)
    judged = story.outcome.verdict
    return " ".join([*lower_cautions(judged), _judged(story.outcome), *trouble_cautions(judged)])


def _judged(outcome: Outcome) -> str:
    winner, measure = outcome.verdict.winner, outcome.verdict.measure
    if winner is None:
        return "The baseline is frozen." if outcome.verdict.refused else _nothing_shown(outcome)
    if outcome.evidence.outcome == "cheaper":
        return _cheaper(outcome, winner)
    pairs = count(winner.difference.n, "pair")
    return (
        f"On {pairs} of unseen episodes, {winner.trial.name} {_earned(measure)}"
        f" {MORE[measure]} than the baseline: {_difference(outcome, winner)}."
    )


def _earned(measure: Measure) -> str:
    return "scored" if measure == "score" else "returned"


def _difference(outcome: Outcome, one: Compared) -> str:
    sure = percent(outcome.verdict.confidence)
    gain = f"{mean(one.difference, sign=True)} {_unit(outcome)} an episode"
    return f"{gain}, {sure} interval {interval(one.difference, sign=True)}, {p_text(one.p_value)}"


def _unit(outcome: Outcome) -> str:
    return "score" if outcome.verdict.measure == "score" else "reward"


def _nothing_shown(outcome: Outcome) -> str:
    told = "; ".join(f"{one.trial.name}: {_difference(outcome, one)}" for one in outcome.verdict.finalists)
    if not told:
        return "No result: no finalist completed enough holdout episodes. The baseline is frozen."
    measure = outcome.verdict.measure
    return (
        f"No candidate was shown to {measure} {MORE[measure]} than the baseline on unseen episodes, so the"
        f" baseline is frozen ({told}). That does not show that they are equal."
    )


def _cheaper(outcome: Outcome, winner: Compared) -> str:
    saved = estimate_text(winner.saving, sign=True) if winner.saving else "an unknown amount"
    unit = outcome.experiment.objective.cost or "cost"
    within, measure = percent(outcome.experiment.objective.within), outcome.verdict.measure
    return (
        f"{winner.trial.name} was shown to cost less than the baseline, by {saved} {unit} an episode, at a"
        f" {measure} within {within} of the baseline's. A higher {measure} was not shown:"
        f" {_difference(outcome, winner)}."
    )


def _so_far(story: Story) -> str:
    if story.chosen is None:
        return "There is no verdict yet: no episode has ended."
    name, played = story.chosen
    return (
        f"There is no verdict yet. So far {name} is ahead in the search, with a mean {story.measure} of"
        f" {number(played.mean)} over {count(len(played.episodes), 'episode')}. As the best of"
        f" {count(len(story.trials), 'candidate')}, it is likely to be overestimated; nothing is shown before"
        " the holdout is played."
    )


def caveats(story: Story) -> list[Caveat]:
    """The reasons for doubt that apply to this study, the most important first."""
    found = [*_of_the_search(story), *_of_what_was_played(story)]
    held_out = [*_of_the_holdout(story, story.outcome)] if story.outcome else []
    return [*_of_answers(story), *held_out, *found]


def _of_answers(story: Story) -> Iterator[Caveat]:
    if told := troubles_text(story.troubles):
        yield Caveat(
            f"In the whole study, {told}. Such a step still has a reward, which counts in the returns.",
            "The returns with a model that answers, and with actions that the environment accepts.",
        )
    if story.outcome and story.outcome.alike is not None:
        yield Caveat(
            f"Every episode returned {number(story.outcome.alike)}, so returns cannot tell candidates apart.",
            "Whether the environment pays rewards at all, and after how many steps.",
        )


def _of_the_holdout(story: Story, outcome: Outcome) -> Iterator[Caveat]:
    judged = outcome.verdict
    tests = len(judged.finalists) * (1 if outcome.experiment.objective.cost is None else 2)
    for one in judged.finalists[:1] if judged.winner is None else [judged.winner]:
        half, n = one.difference.high - one.difference.mean, one.difference.n
        if half < inf and (half or one.difference.mean):
            yield Caveat(
                f"The difference rests on {count(n, 'pair')} of holdout episodes and is known to ±"
                f"{number(half)} {_unit(outcome)}, {_share_of(half, one.difference.mean)}.",
                f"The result of {4 * n} holdout episodes, with an interval about half as wide.",
            )
        if n <= 8:
            yield Caveat(
                f"With {count(n, 'pair')} the sign-flip test cannot give a p-value below"
                f" {min(1.0, 2 / 2**n * tests):.2g}.",
                "The result of more holdout episodes: the t interval assumes nearly normal values.",
            )
    yield from _saturation(outcome)
    yield from _shrinkage(story, outcome)
    if judged.winner and len(judged.finalists) == 1 and len(judged.confirmed) > 1:
        yield Caveat(
            f"One finalist of {len(judged.confirmed)} confirmed candidates played the holdout: it was"
            " compared with the baseline only, and not shown to be the best candidate.",
            "The others' holdout results: raise verdict.finalists.",
        )
    if len(judged.finalists) > 1:
        yield Caveat(
            f"{len(judged.finalists)} finalists share the holdout; intervals and p-values are corrected for"
            " that, but the choice among those that beat the baseline is not tested.",
            "Which of them is better, head to head on fresh episodes.",
        )
    lost = sum(len(one.failed) for one in (judged.baseline, *(one.unseen for one in judged.finalists)))
    if lost:
        yield Caveat(
            f"{count(lost, 'holdout episode')} failed, and are excluded from the comparison.",
            "Whether they failed at random, or because of the candidate's requests.",
        )


def _share_of(half: float, mean: float) -> str:
    return f"{percent(half / abs(mean))} of it" if half < abs(mean) else "more than the difference itself"


def _saturation(outcome: Outcome) -> Iterator[Caveat]:
    judged = outcome.verdict
    played = [judged.baseline, *(one.unseen for one in judged.finalists)]
    scores = [score for evaluation in played for score in evaluation.scores]
    share = sum(score >= 1.0 for score in scores) / len(scores)
    if share > 0 and judged.measure == "score":
        yield Caveat(
            f"{percent(share)} of {count(len(scores), 'holdout episode')} reached the maximum score,"
            " 1.0: among these, scores cannot tell candidates apart.",
            'Which candidate returns more: set [objective] maximise = "return".',
        )
    elif share > 0:
        yield Caveat(
            f"{percent(share)} of {count(len(scores), 'holdout episode')} reached the maximum score,"
            " 1.0: among these, scores cannot tell candidates apart.",
            "Whether the evaluator uses the score alone: then a gain in return is worth nothing.",
        )


def _shrinkage(story: Story, outcome: Outcome) -> Iterator[Caveat]:
    winner = outcome.verdict.winner
    unseen = holdout(story)
    if winner is None or winner.trial.name not in unseen:
        return
    searched = next((one for one in story.trials if one.name == winner.trial.name), winner.trial).evaluation
    here, there, measure = searched.mean, unseen[winner.trial.name].mean, outcome.verdict.measure
    way = (LESS if there < here else MORE)[measure]
    share = f" ({percent(abs(here - there) / abs(here))})" if here else ""
    change = "the same" if isclose(here, there) else f"{number(abs(here - there))} {way}{share}"
    yield Caveat(
        f"{winner.trial.name} {_earned(measure)} {number(here)} over"
        f" {count(len(searched.episodes), 'episode')} of the search"
        f" and {number(there)} on the holdout: {change}.",
        "Nothing more: the best of many looks better than it is. Quote the holdout's figure.",
    )


def _of_the_search(story: Story) -> Iterator[Caveat]:
    if story.headroom is not None and not story.headroom.found:
        yield Caveat(
            "The warm-up test found no difference between the initial candidates"
            f" ({p_text(story.headroom.p_value)}).",
            "Whether a wider space, or more episodes for each candidate, shows a difference.",
        )
    if story.headroom is None:
        yield Caveat(
            "The warm-up test could not be made: it is unknown whether candidates differ at all.",
            f"The initial candidates' {story.measure}s in second episodes.",
        )
    once = sum(len(trial.evaluation.episodes) == 1 for trial in story.trials)
    if once:
        yield Caveat(
            f"{once} of {count(len(story.trials), 'candidate')} played a single episode of the search: their"
            f" {story.measure}s have no interval, but slices and Pareto front include them.",
            "Whether a second study, with another seed, finds the same effects.",
        )


def _of_what_was_played(story: Story) -> Iterator[Caveat]:
    yield Caveat(
        f"Everything was played with one model, {story.model.name} at {story.model.shown}, and one"
        f" environment, {story.experiment.environment.shown}.",
        "The results with the model that you will use, if it is another one or a later version.",
    )
    yield Caveat(
        "Pairs share the environment's seed, but the model gets no seed: its sampling differs between runs,"
        " and a repeated study may give other figures.",
        "The result of a second study, or of both prompts head to head on fresh episodes.",
    )
    if story.failures or story.failed:
        times = sum(story.failures.values())
        yield Caveat(
            f"{count(times, 'attempt')} at calls failed, against {story.cost.spent.calls:,} that succeeded;"
            f" {count(len(story.failed), 'episode')} could not be played.",
            "Whether long answers fail more often: then the remaining episodes are a biased sample.",
        )
    if story.cost.dollars is None:
        yield Caveat(
            "The cost in money is unknown: the experiment sets no prices for a model that was called.",
            "dollars_in and dollars_out, the prices of a million tokens.",
        )
