"""Errors for people: at most four lines, whatever texts they contain."""

from hypothesis import given
from hypothesis import strategies as st

from lab.errors import EndpointError


@given(st.text(), st.text(), st.text())
def test_an_error_is_four_printable_lines_at_most(where: str, why: str, do: str) -> None:
    lines = str(EndpointError("It failed.", where=where, why=why, do=do)).split("\n")
    assert lines[0] == "It failed."
    assert len(lines) <= 4
    assert all(line.isprintable() for line in lines)


@given(st.text())
def test_an_error_has_a_form_for_one_line(why: str) -> None:
    assert EndpointError("It failed.", why=why).one_line.isprintable()
