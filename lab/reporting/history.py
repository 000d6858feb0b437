"""How the last studies of the experiment went, for the report: a table, and a chart of their gains."""

from lab.reporting import svg
from lab.reporting.charts import COUNTS, ROW, TOP, WIDTH, ends_of, rows_of, whisker
from lab.reporting.story import Story
from lab.stats.format import number
from lab.study.results import Holdout

HOLDOUTS: dict[Holdout, str] = {
    "same": "the same",
    "overlapping": "some are the same",
    "other": "others",
    "incomparable": "another task or measure",
}
"""What is said of a study's holdout seeds, beside those of this study."""

FOUND = {"winner": "better than the baseline", "cheaper": "costs less", "baseline": "none shown to be better"}


def gains(story: Story) -> str:
    """The gain of each study that has the judged number of this one; empty if there are fewer than two."""
    known = [(one, one.result) for one in story.history if one.result and one.holdout != "incomparable"]
    if len(known) < 2:
        return ""
    x = svg.scale([0.0, *ends_of([result.evidence.gap for _, result in known])], 140, WIDTH - COUNTS)
    axis = f"frozen minus baseline, mean {story.measure} of a holdout episode"
    rows = rows_of([one.listed.began_text[5:] for one, _ in known], x, axis)
    rows.parts.append(svg.line(x(0), TOP, x(0), rows.middle(len(known) - 1) + ROW / 2, "axis"))
    for place, (one, result) in enumerate(known):
        gap, y, shape = result.evidence.gap, rows.middle(place), 0 if one.holdout == "same" else 3
        style = "chosen" if one.listed.name == story.study else "other"
        rows.parts.append(whisker(gap, x, y, shape, style, result.study))
        rows.parts.append(svg.label(x.end + 6, y + 4, f"n = {gap.n}", style="tick"))
    says = "; ".join(f"{result.study} {number(result.evidence.difference)}" for _, result in known)
    return svg.chart("history-chart", rows.size, "Gain by study", f"Latest first: {says}.", rows.parts)
