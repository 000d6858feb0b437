"""The live comparison over several grounds: sealed returns, paired differences, and claims beside them.

It owns these figures and their tables; `live_report` is the report of one ground at several budgets.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import hypot
from pathlib import Path
from statistics import fmean, median
from typing import Any

from lab.stats.intervals import Estimate, t_interval

OURS, BASELINE = "lab", "baseline"
CONFIDENCE = 0.95
WORSE, BETTER = "↓", "↑"
"""Marks of a method that is shown to be worse, or better, than ours on one ground."""


@dataclass(frozen=True)
class Result:
    """One run of a method.

    Attributes:
        returns: Its pick's returns on the sealed episodes, in reward; every run has the same episodes.
        scale: The task's `max_return`; differences over several grounds are shares of it.
        claimed, interval: As in `benchmarks.ground.Pick`.
    """

    ground: str
    method: str
    run: int
    returns: tuple[float, ...]
    scale: float
    claimed: float | None
    interval: tuple[float, float] | None
    calls: int
    seconds: float

    @property
    def sealed(self) -> float:
        """Mean of the sealed returns."""
        return fmean(self.returns)


@dataclass(frozen=True)
class Claims:
    """What a method claims, beside the sealed episodes; gains over the baseline, as shares of `max_return`.

    Attributes:
        excess: Mean of claimed minus sealed gain, with its interval over the runs.
        held: Runs whose claimed interval contains the mean sealed gain; None for a method without intervals.
        agreeing: Runs whose claim differs from the sealed gain by no more than the intervals of both allow.
    """

    claimed: float
    sealed: float
    excess: Estimate
    held: int | None
    agreeing: int | None


def read_results(lines: Sequence[Mapping[str, Any]]) -> list[Result]:
    """The runs of the harness's lines."""
    return [
        Result(
            line["ground"],
            line["method"],
            line["run"],
            tuple(line["holdout"]),
            line["task"]["max_return"],
            line["claimed"],
            tuple(line["interval"]) if line["interval"] else None,
            line["calls"],
            line["seconds"],
        )
        for line in lines
    ]


def leads(results: Sequence[Result]) -> dict[str, Estimate]:
    """Our sealed return minus each peer's, paired by ground and run, as shares of `max_return`."""
    pairs = {method: [lead for _, lead in own] for method, own in _pairs(results).items()}
    return {method: t_interval(own, CONFIDENCE) for method, own in pairs.items() if len(own) > 1}


def leads_of_grounds(results: Sequence[Result]) -> dict[str, Estimate]:
    """As `leads`, of each ground's mean: what another ground may be expected to bring."""
    found = dict[str, Estimate]()
    for method, own in _pairs(results).items():
        grounds = defaultdict[str, list[float]](list)
        for ground, lead in own:
            grounds[ground].append(lead)
        found[method] = t_interval([fmean(one) for one in grounds.values()], CONFIDENCE)
    return found


def _pairs(results: Sequence[Result]) -> dict[str, list[tuple[str, float]]]:
    ours = {(one.ground, one.run): one.sealed / one.scale for one in results if one.method == OURS}
    pairs = defaultdict[str, list[tuple[str, float]]](list)
    for one in results:
        if one.method != OURS and (one.ground, one.run) in ours:
            pairs[one.method].append((one.ground, ours[one.ground, one.run] - one.sealed / one.scale))
    return pairs


def claims(results: Sequence[Result]) -> dict[str, Claims]:
    """Each method's claims, over its runs that claim something on a ground whose baseline was played."""
    baselines = defaultdict[str, list[tuple[float, ...]]](list)
    for one in results:
        if one.method == BASELINE:
            baselines[one.ground].append(one.returns)
    by_method = defaultdict[str, list[tuple[Result, Estimate]]](list)
    for one in results:
        if one.claimed is not None and one.ground in baselines:
            usual = map(fmean, zip(*baselines[one.ground], strict=True))
            gains = [own - before for own, before in zip(one.returns, usual, strict=True)]
            by_method[one.method].append((one, t_interval(gains, CONFIDENCE)))
    return {method: _claims(own) for method, own in by_method.items() if len(own) > 1}


def _claims(own: Sequence[tuple[Result, Estimate]]) -> Claims:
    claimed = [(one.claimed or 0.0) / one.scale for one, _ in own]
    sealed = [gain.mean / one.scale for one, gain in own]
    excess = [said - gain for said, gain in zip(claimed, sealed, strict=True)]
    bounds = [(one.interval, gain) for one, gain in own if one.interval]
    held = sum(low <= gain.mean <= high for (low, high), gain in bounds) if bounds else None
    agreeing = sum(_agree(interval, gain) for interval, gain in bounds) if bounds else None
    return Claims(fmean(claimed), fmean(sealed), t_interval(excess, CONFIDENCE), held, agreeing)


def _agree(claimed: tuple[float, float], sealed: Estimate) -> bool:
    low, high = claimed
    allowed = hypot((high - low) / 2, (sealed.high - sealed.low) / 2)
    return abs((low + high) / 2 - sealed.mean) <= allowed


def markdown(results: Sequence[Result]) -> str:
    """The four tables."""
    tables = [_returns(results), _leads(results), _claimed(results), _spent(results)]
    return "\n".join(line for table in tables for line in [*table, ""])


def _returns(results: Sequence[Result]) -> Iterator[str]:
    grounds, methods = (list(dict.fromkeys(names)) for names in zip(*_names(results), strict=True))
    yield f"| sealed return | {' | '.join(grounds)} |"
    yield "|---|" + "---|" * len(grounds)
    cells = defaultdict[tuple[str, str], list[float]](list)
    for one in results:
        cells[one.method, one.ground].append(one.sealed)
    marks = {ground: _marks([one for one in results if one.ground == ground]) for ground in grounds}
    means = {
        ground: [fmean(own) for (_, where), own in cells.items() if where == ground] for ground in grounds
    }
    best = {ground: max(own) for ground, own in means.items() if len(own) > 1}
    for method in methods:
        row = [
            _cell(cells.get((method, ground), []), best.get(ground), marks[ground].get(method, ""))
            for ground in grounds
        ]
        yield f"| {method} | {' | '.join(row)} |"
    yield ""
    yield (
        "Mean over the runs of the pick's mean return on the sealed episodes, with the runs' range. "
        f"{WORSE}: shown to be worse than {OURS} there, {BETTER}: shown to be better (95 %, paired by run)."
    )


def _marks(results: Sequence[Result]) -> dict[str, str]:
    """The methods that differ from ours on one ground, by the mark."""
    found = leads(results)
    worse = {method: WORSE for method, lead in found.items() if lead.low > 0}
    return worse | {method: BETTER for method, lead in found.items() if lead.high < 0}


def _names(results: Sequence[Result]) -> Iterator[tuple[str, str]]:
    return ((one.ground, one.method) for one in results)


def _cell(own: Sequence[float], best: float | None, mark: str) -> str:
    if not own:
        return "-"
    mean, count = fmean(own), len(own)
    middle = f"**{mean:.2f}**" if mean == best else f"{mean:.2f}"
    runs = "n = 1" if count == 1 else f"{min(own):.2f} to {max(own):.2f}, n = {count}"
    return f"{middle}{mark} ({runs})"


def _leads(results: Sequence[Result]) -> Iterator[str]:
    yield f"| {OURS} minus | share of the maximum return, 95 % | pairs | of the grounds, 95 % | grounds |"
    yield "|---|---|---|---|---|"
    wider = leads_of_grounds(results)
    for method, lead in leads(results).items():
        figures = [f"{_interval(one)} | {one.n}" for one in (lead, wider[method])]
        yield f"| {method} | {' | '.join(figures)} |"
    yield ""
    yield (
        "Sealed returns, paired by ground and run. The first interval is of these grounds; the second, of "
        "their means, of others like them."
    )


def _interval(estimate: Estimate) -> str:
    return f"{estimate.mean:+.3f} ({estimate.low:+.3f} to {estimate.high:+.3f})"


def _claimed(results: Sequence[Result]) -> Iterator[str]:
    yield (
        "| method | claimed gain | sealed gain | claimed minus sealed, 95 % | runs "
        "| claimed interval holds the sealed mean | claim and sealed gain agree |"
    )
    yield "|---|---|---|---|---|---|---|"
    for method, own in claims(results).items():
        counts = ["no interval" if one is None else f"{one}" for one in (own.held, own.agreeing)]
        figures = [
            f"{own.claimed:+.3f}",
            f"{own.sealed:+.3f}",
            _interval(own.excess),
            str(own.excess.n),
            *counts,
        ]
        yield f"| {method} | {' | '.join(figures)} |"
    yield ""
    yield (
        "Gains over the baseline, as shares of the maximum return. The sealed gain is a mean of episodes "
        "too: whether they agree allows for both."
    )


def _spent(results: Sequence[Result]) -> Iterator[str]:
    yield "| method | runs | calls, median | seconds, median |"
    yield "|---|---|---|---|"
    for method in dict.fromkeys(one.method for one in results):
        own = [one for one in results if one.method == method]
        calls, seconds = median(one.calls for one in own), median(one.seconds for one in own)
        yield f"| {method} | {len(own)} | {calls:.0f} | {seconds:.0f} |"
    yield ""
    yield "Seconds are of a run with its sealed episodes, beside all others."


def write_grounds(lines: Sequence[Mapping[str, Any]], folder: Path, name: str) -> None:
    """Write the tables of several grounds' results, as `name` with `.md`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.md").write_text(markdown(read_results(lines)))
