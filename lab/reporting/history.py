"""How the last studies of the experiment went, for the report: a table, and a chart of their gains."""

from lab.reporting.charts import BOTTOM, ROW, TOP, WIDTH, ends_of, whisker, x_axis
from lab.reporting.story import Story
from lab.reporting.svg import Frame, chart, label, line, scale
from lab.stats.format import number
from lab.study.results import Holdout, Past

LEFT = 140

HOLDOUTS: dict[Holdout, str] = {
    "same": "the same",
    "overlapping": "some are the same",
    "other": "others",
    "incomparable": "another task or measure",
}
"""What is said of a study's holdout seeds, beside those of this study."""

FOUND = {"winner": "better than the baseline", "cheaper": "costs less", "baseline": "none shown to be better"}


def began(one: Past) -> str:
    """When the study began, UTC, to the minute."""
    return one.listed.began[:16].replace("T", " ")


def gains(story: Story) -> str:
    """The gain of each study that has the judged number of this one; empty if there are fewer than two."""
    known = [(one, one.result) for one in story.history if one.result and one.holdout != "incomparable"]
    if len(known) < 2:
        return ""
    height = TOP + ROW * len(known) + BOTTOM
    x = scale([0.0, *ends_of([result.difference for _, result in known])], LEFT, WIDTH - 64)
    axis = Frame(WIDTH, height, x, scale([0.0, 1.0], height - BOTTOM, height - BOTTOM))
    parts = [x_axis(axis, f"frozen minus baseline, mean {story.measure} of a holdout episode")]
    parts.append(line(x(0), TOP, x(0), height - BOTTOM, "axis"))
    for place, (one, result) in enumerate(known):
        y = TOP + ROW * place + ROW / 2
        style = "chosen" if one.listed.name == story.study else "other"
        parts.append(label(LEFT - 6, y + 4, began(one)[5:], anchor="end", style="tick"))
        parts.append(whisker(result.difference, x, y, 0 if one.holdout == "same" else 3, style, result.study))
        parts.append(label(WIDTH - 58, y + 4, f"n = {result.difference.n}", style="tick"))
    says = "; ".join(f"{result.study} {number(result.difference.mean)}" for _, result in known)
    return chart("history-chart", (WIDTH, height), "Gain by study", f"Latest first: {says}.", parts)
