"""Two candidates head to head, in words: the table of settings and results, and what the test shows.

The figures are `lab.verdict.words`'; the test is `lab.verdict.verdict`'s.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab.cli.side_by_side import aligned
from lab.search.trouble_words import troubles_brief, troubles_text
from lab.stats.format import count, estimate_with_n, percent, price
from lab.stats.intervals import lowest_sign_flip_p

if TYPE_CHECKING:
    from lab.agent.evaluation import Evaluation
    from lab.cli.contenders import Contender, Stage
    from lab.verdict.verdict import Compared, Verdict


@dataclass(frozen=True)
class Round:
    """What both candidates did on one model.

    Attributes:
        label: Name of the model and a colon, if the user chose it; else empty.
    """

    label: str
    stage: "Stage"
    verdict: "Verdict"

    @property
    def played(self) -> "tuple[tuple[Contender, Evaluation], ...]":
        """The contenders with their episodes."""
        one, other = self.stage.contenders
        return (one, self.verdict.finalists[0].unseen), (other, self.verdict.baseline)


def told(rounds: Sequence[Round], confidence: float) -> Iterator[str]:
    """The table, and what the test shows, line by line."""
    yield from _table(rounds)
    if len(rounds) > 1:
        level = percent(confidence)
        yield f"The intervals hold for all {len(rounds)} models together, at {level} confidence."
    for one in rounds:
        yield from (f"{one.label}{line}" for line in _told_of(one))


def _told_of(played: Round) -> Iterator[str]:
    from lab.verdict.words import at_limit

    (compared,), confidence = played.verdict.finalists, played.verdict.confidence
    for contender, its in played.played:
        if its.failed:
            why = its.failed[0].error.one_line
            yield f"{contender.name}: {count(len(its.failed), 'episode')} failed, the first with: {why}"
        if told := troubles_text(its.troubles):
            yield f"{contender.name}: {told}."
    one, other = played.stage.contenders
    if one.candidate == other.candidate:
        noise = _figures(other.name, compared, confidence)
        yield f"Both are the same candidate, so this is noise: {noise}."
    else:
        yield claim(one.name, other.name, compared, confidence)
        yield from other_claim(one.name, other.name, compared, confidence)
    scores = (*compared.unseen.scores, *played.verdict.baseline.scores)
    yield from at_limit(scores, compared.unseen.measure, "episode")


def other_claim(one: str, other: str, compared: "Compared", confidence: float) -> Iterator[str]:
    """A line on the number that is not judged, if it shows the opposite."""
    from lab.verdict.words import better, figures

    gap, unseen = compared.other, compared.unseen.other
    if compared.difference.mean > 0 > gap.high or compared.difference.mean < 0 < gap.low:
        told = figures(unseen.mean, gap, confidence, versus=other, relative=compared.other_relative)
        yield f"However: {one} {better(unseen.measure, gap.mean)} than {other}: {told}."


Row = tuple[str, str, str]


def _table(rounds: Sequence[Round]) -> Iterator[str]:
    """The settings that differ, and the results on each model."""
    first, second = rounds[0].stage.contenders
    rows: list[Row] = [("", first.name, second.name), *_settings(first, second)]
    for one in rounds:
        rows += [(f"{one.label}{name}", mine, its) for name, mine, its in _results(one)]
    yield from aligned(rows, words=len(rows[0]))


def _results(played: Round) -> Iterator[Row]:
    from lab.verdict.verdict import estimate
    from lab.verdict.words import other_mean

    (first, one), (second, other) = played.played
    mine, its = (estimate(each, played.verdict.confidence) for each in (one, other))
    yield one.measure, estimate_with_n(mine), estimate_with_n(its)
    yield one.other.measure, other_mean(one), other_mean(other)
    yield "tokens per episode", one.tokens_text, other.tokens_text
    yield "dollars per episode", _dollars(first, one), _dollars(second, other)
    yield "seconds per call", f"{one.latency_s:.2f}", f"{other.latency_s:.2f}"
    troubles = [troubles_brief(each.troubles) or "none" for each in (one, other)]
    if troubles != ["none", "none"]:
        yield "unusable answers", troubles[0], troubles[1]


def _settings(first: "Contender", second: "Contender") -> Iterator[Row]:
    from lab.display.diff import differing, text_diff

    pairs = differing(first.candidate, second.candidate)
    for name, (mine, its) in pairs.items():
        yield name, str(mine), str(its)
    if "template" not in pairs and text_diff(first.candidate, second.candidate, ("", "")):
        yield "texts", "differ", "from these"


def _dollars(contender: "Contender", played: "Evaluation") -> str:
    prices = contender.model.prices
    tokens_in = sum(episode.prompt_tokens for episode in played.episodes)
    tokens_out = sum(episode.completion_tokens for episode in played.episodes)
    return price(prices.dollars(tokens_in, tokens_out) / len(played.episodes) if prices.known else None)


def claim(one: str, other: str, compared: "Compared", confidence: float) -> str:
    """What the test shows about two candidates, in a sentence.

    Args:
        compared: `one` against `other`; a difference is claimed only if interval and test agree.
    """
    from lab.verdict.words import better

    gap, told = compared.difference, _figures(other, compared, confidence)
    if compared.p_value <= 1 - confidence and (gap.low > 0 or gap.high < 0):
        return f"{one} {better(compared.unseen.measure, gap.mean)} than {other}: {told}."
    few = least_pairs(confidence)
    more = f" Fewer than {few} pairs cannot show one: use --episodes {few} or more." if gap.n < few else ""
    return f"No difference between {one} and {other} is shown: {told}.{more}"


def _figures(other: str, compared: "Compared", confidence: float) -> str:
    from lab.verdict.words import figures

    gap, relative = compared.difference, compared.relative
    return figures(compared.unseen.mean, gap, confidence, compared.p_value, other, relative)


def least_pairs(confidence: float) -> int:
    """Minimum number of pairs for a significant sign-flip test."""
    pairs = 2
    while lowest_sign_flip_p(pairs) > 1 - confidence:
        pairs += 1
    return pairs
