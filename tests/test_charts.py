"""The charts: always valid XML, every mark inside the picture, no text active."""

import xml.etree.ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from lab.reporting.charts import pareto_front
from lab.reporting.svg import Frame, area, axes, box, chart, label, line, mark, path, scale

WIDTH, HEIGHT = 400, 300

finite = st.floats(allow_nan=False, allow_infinity=False)
points = st.lists(st.tuples(finite, finite), min_size=1, max_size=20)


def inside(svg: str) -> ET.Element:
    """The picture, after checking that every point is within its view box."""
    root = ET.fromstring(svg)
    assert root.attrib["viewBox"] == f"0 0 {WIDTH} {HEIGHT}"
    for element in root.iter():
        own = element.attrib
        across = [own[key] for key in ("x", "x1", "x2", "cx") if key in own]
        down = [own[key] for key in ("y", "y1", "y2", "cy") if key in own]
        if "width" in own:
            across.append(str(float(own["x"]) + float(own["width"])))
        for pair in own.get("points", "").split():
            x, y = pair.split(",")
            across.append(x)
            down.append(y)
        assert all(0 <= float(x) <= WIDTH for x in across), own
        assert all(0 <= float(y) <= HEIGHT for y in down), own
    return root


@given(points, st.booleans(), st.text())
def test_whatever_is_drawn_is_valid_and_inside(
    drawn: list[tuple[float, float]], zero: bool, word: str
) -> None:
    xs, ys = [x for x, _ in drawn], [y for _, y in drawn]
    frame = Frame(WIDTH, HEIGHT, scale(xs, 60, 380, zero=zero), scale(ys, 250, 30))
    places = [(frame.x(x), frame.y(y)) for x, y in drawn]
    parts = [
        axes(frame, word, word),
        path(places, "base"),
        area(places, "base"),
        *(mark(x, y, shape, "base", word) for shape, (x, y) in enumerate(places)),
        *(label(x, y, word) for x, y in places),
        *(line(60, 30, x, y, "grid") for x, y in places),
        *(box(60, y, x - 60, 1, "bar", word) for x, y in places),
    ]
    root = inside(chart("a-chart", (WIDTH, HEIGHT), word, word, parts))
    kinds = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert kinds <= {"svg", "title", "desc", "text", "line", "polyline", "polygon", "circle", "rect"}
    assert all(text.isprintable() or text == "\n" for text in "".join(root.itertext()))


@given(points)
def test_a_scale_keeps_the_order_and_has_few_round_ticks(drawn: list[tuple[float, float]]) -> None:
    values = sorted(x for x, _ in drawn)
    across = scale(values, 0, 100)
    placed = [across(value) for value in values]
    assert placed == sorted(placed)
    assert 1 <= len(across.ticks) <= 20
    assert all(-1e-6 <= across(tick) <= 100 + 1e-6 for tick in across.ticks)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=20))
def test_no_point_dominates_the_front_and_all_others_are_dominated(drawn: list[tuple[int, int]]) -> None:
    front = [drawn[place] for place in pareto_front(drawn)]
    for cost, earned in front:
        assert not any(c <= cost and e >= earned and (c, e) != (cost, earned) for c, e in drawn)
    for cost, earned in drawn:
        assert any(c <= cost and e >= earned for c, e in front)
