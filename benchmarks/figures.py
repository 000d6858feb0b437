"""A table of what was measured: one row a claim, so that several benchmarks fill one table."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """What was done, and what came of it; `aim` is empty where there was none."""

    what: str
    figure: str
    aim: str = ""


def table(rows: Iterable[Row]) -> str:
    """The rows in Markdown."""
    lines = ["| what | measured | aim |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {row.what} | {row.figure} | {row.aim} |" for row in rows)])
