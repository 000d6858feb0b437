"""The live comparison over several grounds: sealed returns, paired differences, and claims beside them.

It owns these figures and their tables; `live_report` is the report of one ground at several budgets.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from lab.stats.intervals import Estimate, t_interval

OURS, BASELINE = "lab", "baseline"
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Result:
    """One run of a method.

    Attributes:
        sealed: Mean return of its pick on the sealed episodes, in reward.
        scale: The task's `max_return`; differences over several grounds are shares of it.
        claimed, interval: As in `benchmarks.ground.Pick`.
    """

    ground: str
    method: str
    run: int
    sealed: float
    scale: float
    claimed: float | None
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Claims:
    """What a method claims, beside the sealed episodes; gains over the baseline, as shares of `max_return`.

    Attributes:
        excess: Mean of claimed minus sealed gain, with its interval over the runs.
        held: Runs whose claimed interval contains the sealed gain; None for a method without intervals.
    """

    claimed: float
    sealed: float
    excess: Estimate
    held: int | None


def read_results(lines: Sequence[Mapping[str, Any]]) -> list[Result]:
    """The runs of the harness's lines."""
    return [
        Result(
            line["ground"],
            line["method"],
            line["run"],
            fmean(line["holdout"]),
            line["task"]["max_return"],
            line["claimed"],
            tuple(line["interval"]) if line["interval"] else None,
        )
        for line in lines
    ]


def leads(results: Sequence[Result]) -> dict[str, Estimate]:
    """Our sealed return minus each peer's, paired by ground and run, as shares of `max_return`."""
    by_method = defaultdict[str, dict[tuple[str, int], float]](dict)
    for one in results:
        by_method[one.method][one.ground, one.run] = one.sealed / one.scale
    ours = by_method.pop(OURS, {})
    pairs = {
        method: [ours[key] - value for key, value in own.items() if key in ours]
        for method, own in by_method.items()
    }
    return {method: t_interval(own, CONFIDENCE) for method, own in pairs.items() if len(own) > 1}


def claims(results: Sequence[Result]) -> dict[str, Claims]:
    """Each method's claims, over its runs that claim something on a ground whose baseline was played."""
    baselines = defaultdict[str, list[float]](list)
    for one in results:
        if one.method == BASELINE:
            baselines[one.ground].append(one.sealed)
    by_method = defaultdict[str, list[tuple[Result, float]]](list)
    for one in results:
        if one.claimed is not None and one.ground in baselines:
            by_method[one.method].append((one, one.sealed - fmean(baselines[one.ground])))
    return {method: _claims(own) for method, own in by_method.items() if len(own) > 1}


def _claims(own: Sequence[tuple[Result, float]]) -> Claims:
    claimed = [(one.claimed or 0.0) / one.scale for one, _ in own]
    sealed = [gain / one.scale for one, gain in own]
    excess = [said - gain for said, gain in zip(claimed, sealed, strict=True)]
    bounds = [(one.interval, gain) for one, gain in own if one.interval]
    held = sum(interval[0] <= gain <= interval[1] for interval, gain in bounds) if bounds else None
    return Claims(fmean(claimed), fmean(sealed), t_interval(excess, CONFIDENCE), held)


def markdown(results: Sequence[Result]) -> str:
    """The three tables."""
    return "\n".join([*_returns(results), "", *_leads(results), "", *_claimed(results), ""])


def _returns(results: Sequence[Result]) -> Iterator[str]:
    grounds, methods = (list(dict.fromkeys(names)) for names in zip(*_names(results), strict=True))
    yield f"| sealed return | {' | '.join(grounds)} |"
    yield "|---|" + "---|" * len(grounds)
    cells = defaultdict[tuple[str, str], list[float]](list)
    for one in results:
        cells[one.method, one.ground].append(one.sealed)
    means = {
        ground: [fmean(own) for (_, where), own in cells.items() if where == ground] for ground in grounds
    }
    best = {ground: max(own) for ground, own in means.items() if len(own) > 1}
    for method in methods:
        row = [_cell(cells.get((method, ground), []), best.get(ground)) for ground in grounds]
        yield f"| {method} | {' | '.join(row)} |"
    yield ""
    yield "Mean over the runs of the pick's mean return on the sealed episodes, with the runs' range."


def _names(results: Sequence[Result]) -> Iterator[tuple[str, str]]:
    return ((one.ground, one.method) for one in results)


def _cell(own: Sequence[float], best: float | None) -> str:
    if not own:
        return "-"
    mean, count = fmean(own), len(own)
    middle = f"**{mean:.2f}**" if mean == best else f"{mean:.2f}"
    return f"{middle} (n = 1)" if count == 1 else f"{middle} ({min(own):.2f} to {max(own):.2f}, n = {count})"


def _leads(results: Sequence[Result]) -> Iterator[str]:
    yield f"| {OURS} minus | share of the maximum return, 95 % | pairs |"
    yield "|---|---|---|"
    for method, lead in leads(results).items():
        yield f"| {method} | {lead.mean:+.3f} ({lead.low:+.3f} to {lead.high:+.3f}) | {lead.n} |"
    yield ""
    yield "Sealed returns, paired by ground and run, over all grounds."


def _claimed(results: Sequence[Result]) -> Iterator[str]:
    yield "| method | claimed gain | sealed gain | claimed minus sealed, 95 % | runs | within it |"
    yield "|---|---|---|---|---|---|"
    for method, own in claims(results).items():
        excess = f"{own.excess.mean:+.3f} ({own.excess.low:+.3f} to {own.excess.high:+.3f})"
        held = "has none" if own.held is None else f"{own.held} of {own.excess.n}"
        yield f"| {method} | {own.claimed:+.3f} | {own.sealed:+.3f} | {excess} | {own.excess.n} | {held} |"
    yield ""
    yield "Gains over the baseline, as shares of the maximum return."


def write_grounds(lines: Sequence[Mapping[str, Any]], folder: Path, name: str) -> None:
    """Write the tables of several grounds' results, as `name` with `.md`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.md").write_text(markdown(read_results(lines)))
