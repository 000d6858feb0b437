"""The command `python -m lab.studies`: lists every recorded study, one line each.

It owns the table; the states are `lab.study.listing`'s.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lab.cli.command import Debug, Storage, command_line, manners
from lab.errors import plain
from lab.submission.stdout import print_result

if TYPE_CHECKING:
    from lab.study.listing import Listed

app = command_line()

COLUMNS = ("study", "experiment", "began (UTC)", "state", "trials", "episodes", "calls")


@app.command()
def studies(
    storage: Storage = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array, for programs.")] = False,
    debug: Debug = False,
) -> None:
    """List all studies, latest first: experiment, start, state, trials, completed episodes, calls.

    A study is searching or judging while a process works on it; unfinished if none does and it can resume;
    finished; or stopped by an error that would occur again.
    show, report, play, compare and tune --replay accept a study's name: --study NAME.

    Examples:

        python -m lab.studies

        python -m lab.studies --json
    """
    with manners(debug=debug):
        listed = _listed(storage)
        if as_json:
            print_result(json.dumps([asdict(one) for one in listed], indent=2))
        elif listed:
            print_result("\n".join(plain(line) for line in _table(listed)))
        else:
            print_result("No study is recorded. Start one with python -m lab.tune.")


def _listed(storage: str) -> "list[Listed]":
    # Here and not above, so that --help answers at once.
    from contextlib import closing

    from lab.llm.settings import read_surroundings
    from lab.study.listing import listing
    from lab.study.past_study import open_storage

    read_surroundings(Path.cwd())
    opened = open_storage(storage)
    if opened is None:
        return []
    with closing(opened):
        return listing(opened)


def _table(listed: "list[Listed]") -> Iterator[str]:
    rows = [COLUMNS, *(_row(one) for one in listed)]
    wide = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        words = [f"{cell:<{width}}" for cell, width in zip(row[:4], wide[:4], strict=True)]
        figures = [f"{cell:>{width}}" for cell, width in zip(row[4:], wide[4:], strict=True)]
        yield "  ".join([*words, *figures])


def _row(one: "Listed") -> tuple[str, ...]:
    counts = ("-" if count is None else f"{count:,}" for count in (one.trials, one.episodes, one.calls))
    return (one.name, one.experiment, one.began[:16].replace("T", " "), one.state, *counts)


if __name__ == "__main__":
    app()
