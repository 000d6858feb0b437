"""The report's first screen: what was found, with which prompt, at what cost, and whether to trust it."""

from dataclasses import dataclass

from lab.reporting.story import Story, expected_of
from lab.stats.format import count, interval, number, p_text, percent, price, signed
from lab.stats.intervals import Estimate
from lab.verdict.verdict import Compared, Verdict
from lab.verdict.words import better, cautions, not_shown, shortfall, trouble_cautions


@dataclass(frozen=True)
class Summary:
    """The result for somebody who reads nothing else.

    Attributes:
        found: The difference from the baseline, in percent where its mean is shown to be above zero.
        ends: Its interval, with confidence level and n; empty if nothing has been played.
        about: What the difference is of.
        cost: What the study and an episode cost, in lines.
        trust: Whether to trust the result, and why.
    """

    found: str
    ends: str
    about: str
    cost: tuple[str, ...]
    trust: str


def summary(story: Story) -> Summary:
    """The summary of a study, finished or not."""
    found, ends, about = _found(story)
    return Summary(found, ends, about, _cost(story), _trust(story))


def _found(story: Story) -> tuple[str, str, str]:
    if story.outcome is None:
        return _found_so_far(story)
    verdict, objective = story.outcome.verdict, story.experiment.objective
    one, level = _decisive(verdict), 1 - verdict.confidence
    n, sure = f"n = {count(one.difference.n, 'unseen episode')} each", percent(verdict.confidence)
    if one is verdict.winner and one.saving and not one.better(level):
        less = Estimate(-one.saving.mean, -one.saving.high, -one.saving.low, one.saving.n)
        about = f"{objective.cost} per episode, {one.trial.name} against the baseline"
        found, ends = _gain(less, one.relative_cost)
        return found, f"{sure} interval {ends}, {n}", about
    worst = " of the worst task" if verdict.by == "worst" else ""
    about = f"mean {story.measure}{worst}, {one.trial.name} against the baseline"
    about += ", in percent of the baseline's" if one.relative else ""
    if verdict.winner is None:
        about = f"{about}; the baseline is frozen"
    found, ends = _gain(one.difference, one.relative)
    return found, f"{sure} interval {ends}, {n}", about


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


def _cost(story: Story) -> tuple[str, ...]:
    money = "Cost unknown" if story.cost.dollars is None else price(story.cost.dollars).capitalize()
    lines = [f"{money}, {number(story.cost.minutes)} minutes of work."]
    if story.chosen and story.baseline and story.chosen[0] != "baseline" and story.baseline.episodes:
        own, base = story.chosen[1].tokens, story.baseline.tokens
        share = f" ({_percent(own / base - 1, own / base - 1)})" if base and own != base else ""
        lines.append(f"An episode with {story.chosen[0]}: {own:,.0f} tokens; baseline: {base:,.0f}{share}.")
    return tuple(lines)


def _trust(story: Story) -> str:
    if story.outcome is None:
        return (
            "Not yet. The best of many candidates is overestimated: only the holdout, on unseen episodes,"
            " can show a gain."
        )
    verdict, planned = story.outcome.verdict, story.experiment.verdict.episodes
    told = [*cautions(verdict), *trouble_cautions(verdict)]
    told += filter(None, [shortfall(verdict.pairs, planned, story.outcome.judged.limit)])
    one, level = _decisive(verdict), 1 - verdict.confidence
    test = f"{p_text(one.p_value)}, n = {count(one.difference.n, 'episode')} each"
    if verdict.winner is None and any(each.better(level) or each.cheaper for each in verdict.finalists):
        says = "The baseline is frozen."
    elif verdict.winner is None:
        says = not_shown("the baseline", test)
    elif one.better(level):
        says = f"{better(story.measure)} than the baseline on unseen episodes ({test})."
    else:
        says = f"costs less, and its {story.measure} is within the objective's tolerance of the baseline's."
    if verdict.winner:
        says = f"{'With caution' if told else 'Yes'}: {one.trial.name} {says}"
    return " ".join([says, *told])
