"""Studies side by side: tables and JSON documents of `lab compare --study` and `lab studies EXPERIMENT`.

It owns the rows, the documents' keys, and the sentence about two holdouts; the figures are
`lab.study.results`'.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from lab.errors import plain
from lab.stats.format import count, estimate_text, estimate_with_n, mean, p_text, percent, price

if TYPE_CHECKING:
    from lab.stats.intervals import Estimate
    from lab.study.results import Between, Past, Result

FORMAT = 1

HOLDOUTS = {
    "same": "Both holdouts have the same seeds: the difference is paired by seed",
    "overlapping": "The holdouts share {n} seeds: the difference is paired over these",
    "other": "The holdouts have no seed in common: the interval is Welch's, which is wider than a paired one",
    "incomparable": "The studies differ in environment, task or judged number: no difference is shown",
}


def side_by_side(studies: Sequence[str], *, as_json: bool) -> str:
    """The studies of these names beside each other, as a table or as one JSON document.

    Raises:
        LabError: One does not exist, is damaged, or has no verdict.
    """
    from lab.study.results import compared, read_result

    results = [read_result(name) for name in studies]
    comparisons = compared(results)
    if as_json:
        found, between = [_study(one) for one in results], [_between(one) for one in comparisons]
        return _json({"format": FORMAT, "studies": found, "comparisons": between})
    return "\n".join(plain(line) for line in _text(results, comparisons))


def _text(results: "Sequence[Result]", comparisons: "Sequence[Between]") -> Iterator[str]:
    """A table with a column for each study, each verdict, and how what was frozen differs."""
    rows = [("", *(one.study for one in results)), *_rows(results)]
    yield from aligned(rows, words=len(rows[0]))
    yield from (f"{one.study}: {one.claim}" for one in results)
    yield from (sentence(one) for one in comparisons)
    if len(comparisons) > 1:
        yield f"The intervals hold for all {len(comparisons)} comparisons together."


def history_rows(past: "Sequence[Past]") -> "list[tuple[str, ...]]":
    """A table of an experiment's studies, latest first, with its head."""
    head = ("study", "began (UTC)", "state", "frozen", "holdout seeds", "baseline mean", "frozen mean")
    return [(*head, "difference", "n", "calls", "cost"), *(_past(one) for one in past)]


def _past(one: "Past") -> tuple[str, ...]:
    listed, result = one.listed, one.result
    if result is None or one.holdout is None:
        calls = "-" if listed.calls is None else f"{listed.calls:,}"
        return (listed.name, listed.began_text, listed.state, *["-"] * 6, calls, "-")
    evidence = result.evidence
    values = (mean(evidence.baseline_value), estimate_text(evidence.frozen_value), result.gain)
    figures = (*values, str(evidence.episodes), f"{result.calls:,}", price(result.dollars))
    return (listed.name, listed.began_text, listed.state, result.frozen, one.holdout, *figures)


def aligned(rows: "Sequence[tuple[str, ...]]", words: int) -> Iterator[str]:
    """The rows as lines; the first `words` columns are aligned left, and the figures after them right."""
    wide = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            f"{cell:<{width}}" if place < words else f"{cell:>{width}}"
            for place, (cell, width) in enumerate(zip(row, wide, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def _rows(results: "Sequence[Result]") -> Iterator[tuple[str, ...]]:
    from lab.display.diff import settings_of

    measure = "/".join(dict.fromkeys(one.played.measure for one in results))
    yield "experiment", *(one.experiment.name for one in results)
    yield "model", *(one.model for one in results)
    yield "frozen", *(one.frozen for one in results)
    settings = [settings_of(one.played.candidate) for one in results]
    for name in dict.fromkeys(name for one in settings for name in one):
        values = [str(one.get(name, "")) for one in settings]
        if len(set(values)) > 1:
            yield f"  {name}", *values
    yield f"baseline {measure}", *(estimate_with_n(one.evidence.baseline_value) for one in results)
    yield f"frozen {measure}", *(estimate_with_n(one.evidence.frozen_value) for one in results)
    yield "frozen - baseline", *(one.gain for one in results)
    yield "holdout seeds", *(f"{one.seeds[0]} to {one.seeds[-1]}" for one in results)
    yield "calls", *(f"{one.calls:,}" for one in results)
    yield "tokens", *(f"{one.tokens:,}" for one in results)
    yield "cost", *(price(one.dollars) for one in results)
    yield "minutes", *(f"{one.minutes:.1f}" for one in results)


def sentence(between: "Between") -> str:
    """How what two studies froze differs, and how the holdouts are related."""
    from lab.verdict.words import better

    one, other, gap = between.one, between.other, between.difference
    told = HOLDOUTS[between.holdout].format(n=gap.n if gap else 0)
    if gap is None:
        return f"{told}."
    measure, confidence = one.played.measure, max(one.evidence.confidence, other.evidence.confidence)
    is_shown = gap.low > 0 or gap.high < 0
    if between.p_value is not None:
        is_shown = is_shown and between.p_value <= 1 - confidence
        n = f"n = {count(gap.n, 'pair')}, {p_text(between.p_value)}"
    else:
        n = f"n = {len(one.played.values)} and {len(other.played.values)} episodes"
    figures = f"{estimate_text(gap, sign=True)} ({percent(confidence)} interval), {n}"
    names = f"what {one.study} froze", f"what {other.study} froze"
    if is_shown:
        return f"On the holdouts, {names[0]} {better(measure, gap.mean)} than {names[1]}: {figures}. {told}."
    return f"No difference between {names[0]} and {names[1]} is shown: {figures}. {told}."


def history_document(past: "Sequence[Past]") -> str:
    """The studies of an experiment as a JSON array: those of `lab studies --json`, with what each found."""
    results = [one.result and _study(one.result) for one in past]
    return _json(
        [
            {**asdict(one.listed), "holdout": one.holdout, "result": result}
            for one, result in zip(past, results, strict=True)
        ]
    )


def _json(table: object) -> str:
    """A JSON document; `docs/commands.md` describes them. Unknown or unbounded values are null."""
    return json.dumps(table, indent=2, allow_nan=False, ensure_ascii=False)


def _study(one: "Result") -> dict[str, Any]:
    return {
        "study": one.study,
        "experiment": one.experiment.name,
        "model": one.model,
        "outcome": one.evidence.outcome,
        "claim": one.claim,
        "judged": one.played.measure,
        "confidence": one.evidence.confidence,
        "frozen": {
            "trial": one.frozen,
            "settings": one.played.candidate.settings,
            **_estimate(one.evidence.frozen_value),
        },
        "baseline": _estimate(one.evidence.baseline_value),
        "difference": {**_estimate(one.evidence.gap), "p_value": one.evidence.p_value},
        "holdout": {"first_seed": one.seeds[0], "episodes": len(one.seeds)},
        "cost": {"calls": one.calls, "tokens": one.tokens, "dollars": one.dollars, "minutes": one.minutes},
    }


def _between(one: "Between") -> dict[str, Any]:
    paired = one.p_value is not None
    method = None if one.difference is None else "paired t interval" if paired else "Welch's t interval"
    return {
        "study": one.one.study,
        "versus": one.other.study,
        "holdout": one.holdout,
        "method": method,
        "difference": None
        if one.difference is None
        else {**_estimate(one.difference), "p_value": one.p_value},
    }


def _estimate(one: "Estimate") -> dict[str, Any]:
    return {"mean": one.mean, "interval": [one.low, one.high] if one.bounded else None, "n": one.n}
