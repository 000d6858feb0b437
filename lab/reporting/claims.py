"""What the report says of a study: what was found and at what cost, whether to trust it, reasons for doubt.

It owns the doubts about the search, the model and the environment; `lab.verdict.words` has the holdout's.
"""

from collections.abc import Iterator

from lab.reporting.story import Story, expected_of
from lab.search.trouble_words import troubles_text
from lab.stats.format import count, interval, mean, number, p_text, percent, price, signed
from lab.stats.intervals import Estimate
from lab.verdict import words
from lab.verdict.verdict import Compared, Verdict
from lab.verdict.words import Doubt


def verdict(story: Story) -> str:
    """The claim, then any caution about unusable answers; without a verdict, the state of the search."""
    if story.outcome is None:
        return f"The study was stopped: {story.stopped}" if story.stopped else _so_far(story)
    return " ".join(
        [words.claim(story.outcome.frozen_prompt()), *words.trouble_cautions(story.outcome.verdict)]
    )


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


def found(story: Story) -> tuple[str, str, str]:
    """The difference from the baseline, in percent where its mean is shown to be above zero.

    Returns:
        The difference; its interval with confidence level and n, empty if nothing has been played; and what
        the difference is of.
    """
    if story.outcome is None:
        return _found_so_far(story)
    verdict = story.outcome.verdict
    one, worst = _decisive(verdict), " of the worst task" if verdict.by == "worst" else ""
    about = f"mean {story.measure}{worst}"
    gap, relative = one.difference, one.relative
    if one is verdict.winner and one.saving and not one.better(1 - verdict.confidence):
        gap = Estimate(-one.saving.mean, -one.saving.high, -one.saving.low, one.saving.n)
        relative, about = one.relative_cost, f"{story.experiment.objective.cost} per episode"
    about += f", {one.trial.name} against the baseline"
    about += ", in percent of the baseline's" if relative else ""
    about += "" if verdict.winner else "; the baseline is frozen"
    shown, ends = _gain(gap, relative)
    n = f"n = {count(one.difference.n, 'unseen episode')} each"
    return shown, f"{percent(verdict.confidence)} interval {ends}, {n}", about


def _found_so_far(story: Story) -> tuple[str, str, str]:
    if not story.trials:
        return "Nothing yet", "", "no episode has ended"
    leader, one = story.trials[0], expected_of(story.trials[0])
    ends = f"95 % interval {interval(one)}" if one.bounded else "no interval"
    about = f"expected mean {story.measure} of {leader.name}, which leads the search; there is no verdict yet"
    return number(one.mean), f"{ends}, n = {count(one.n, 'episode')}", about


def _decisive(verdict: Verdict) -> Compared:
    """The winner, else the finalist that came nearest to one."""
    return verdict.winner or max(verdict.finalists, key=lambda one: one.difference.mean)


def _gain(gap: Estimate, relative: Estimate | None) -> tuple[str, str]:
    """A difference and its interval, in percent if it is known as a share."""
    if relative is None:
        return signed(gap.mean), interval(gap, sign=True)
    mean, low, high = (_percent(one, relative.mean) for one in (relative.mean, relative.low, relative.high))
    return mean, f"[{low}, {high}]"


def _percent(share: float, beside: float) -> str:
    """A share with its sign, and a decimal if the main figure is below 10 %."""
    return f"{share:+.{0 if abs(beside) >= 0.1 else 1}%}".replace("%", " %")


def cost(story: Story) -> list[str]:
    """What the study and an episode cost, in lines."""
    money = "Cost unknown" if story.spent.cost is None else price(story.spent.cost).capitalize()
    lines = [f"{money}, {number(story.minutes)} minutes of work."]
    if story.chosen and story.baseline and story.chosen[0] != "baseline" and story.baseline.episodes:
        own, base = story.chosen[1].tokens, story.baseline.tokens
        share = f" ({_percent(own / base - 1, own / base - 1)})" if base and own != base else ""
        lines.append(f"An episode with {story.chosen[0]}: {own:,.0f} tokens; baseline: {base:,.0f}{share}.")
    return lines


def trust(story: Story) -> str:
    """Whether to trust the result, and why."""
    if story.outcome is None:
        return (
            "Not yet. The best of many candidates is overestimated: only the holdout, on unseen episodes,"
            " can show a gain."
        )
    verdict, planned = story.outcome.verdict, story.experiment.verdict.episodes
    told = [*words.cautions(verdict), *words.trouble_cautions(verdict)]
    told += filter(None, [words.shortfall(verdict.pairs, planned, story.outcome.judged.limit)])
    one, level = _decisive(verdict), 1 - verdict.confidence
    test = f"{p_text(one.p_value)}, n = {count(one.difference.n, 'episode')} each"
    if verdict.winner is None and any(each.better(level) or each.cheaper for each in verdict.finalists):
        says = "The baseline is frozen."
    elif verdict.winner is None:
        says = words.not_shown("the baseline", test)
    elif one.better(level):
        says = f"{words.better(story.measure)} than the baseline on unseen episodes ({test})."
    else:
        says = f"costs less, and its {story.measure} is within the objective's tolerance of the baseline's."
    if verdict.winner:
        says = f"{'With caution' if told else 'Yes'}: {one.trial.name} {says}"
    return " ".join([says, *told])


def reasons(story: Story) -> list[Doubt]:
    """The reasons for doubt that apply to this study, the most important first."""
    outcome, held_out = story.outcome, list[Doubt]()
    if outcome:
        tests = len(outcome.verdict.finalists) * (1 if outcome.experiment.objective.cost is None else 2)
        held_out = [*words.doubts(outcome.verdict, tests)]
    return [*_of_answers(story), *held_out, *_of_the_search(story), *_of_what_was_played(story)]


def _of_answers(story: Story) -> Iterator[Doubt]:
    if told := troubles_text(story.troubles):
        yield Doubt(
            f"In the whole study, {told}. Such a step still has a reward, which counts in the returns.",
            "The returns with a model that answers, and with actions that the environment accepts.",
        )
    if story.outcome and story.outcome.alike is not None:
        yield Doubt(
            words.alike(story.outcome.alike),
            "Whether the environment pays rewards at all, and after how many steps.",
        )
    elif story.outcome and story.outcome.repeated:
        yield Doubt(
            words.REPEATED, "Whether the endpoint samples at all, by lab.doctor: else n counts copies."
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
            f"{count(times, 'attempt')} at calls failed, against {story.spent.calls:,} that succeeded;"
            f" {count(len(story.failed), 'episode')} could not be played.",
            "Whether long answers fail more often: then the remaining episodes are a biased sample.",
        )
    if story.spent.cost is None:
        yield Doubt(
            "The cost in money is unknown: the experiment sets no prices for a model that was called.",
            "dollars_in and dollars_out, the prices of a million tokens.",
        )
