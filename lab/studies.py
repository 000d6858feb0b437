"""The command `python -m lab.studies`: lists every recorded study, one line each.

It owns the table; the states are `lab.study.listing`'s.
"""

import json
from contextlib import closing, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lab.cli.command import Debug, Storage, Version, command_line, manners
from lab.cli.side_by_side import aligned
from lab.errors import plain
from lab.submission.stdout import print_result

if TYPE_CHECKING:
    from lab.storage.storage import Storage as Opened
    from lab.study.listing import Listed

app = command_line()

COLUMNS = ("study", "experiment", "began (UTC)", "state", "trials", "episodes", "calls")


@app.command()
def studies(
    experiment: Annotated[
        Path | None,
        typer.Argument(
            metavar="EXPERIMENT",
            help="An experiment file: show what its last studies found.",
            show_default="all studies",
        ),
    ] = None,
    storage: Storage = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array, for programs.")] = False,
    debug: Debug = False,
    _version: Version = False,
) -> None:
    """List all studies, latest first: experiment, start, state, trials, completed episodes, calls.

    With an EXPERIMENT: how its last studies went: what was frozen, its holdout return beside the baseline's,
    cost, and whether the holdout is that of the latest study.
    A study is searching or judging while a process works on it; unfinished if none does and it can resume;
    finished; or stopped by an error that would occur again.
    show, report, play, compare and tune --replay accept a study's name: --study NAME.

    Examples:

        python -m lab.studies

        python -m lab.studies --json

        python -m lab.studies experiments/echo.toml
    """
    with manners(debug=debug):
        from lab.llm.settings import read_surroundings
        from lab.study.past_study import open_storage

        read_surroundings(Path.cwd())
        opened = open_storage(storage)
        with nullcontext() if opened is None else closing(opened):
            if experiment is None:
                print_result(_all(opened, as_json=as_json))
            else:
                print_result(_history(opened, experiment.stem, as_json=as_json))


def _all(storage: "Opened | None", *, as_json: bool) -> str:
    from lab.study.listing import listing

    listed = listing(storage) if storage else []
    if as_json:
        return json.dumps([asdict(one) for one in listed], indent=2)
    if not listed:
        return "No study is recorded. Start one with python -m lab.tune."
    return "\n".join(plain(line) for line in aligned([COLUMNS, *map(_row, listed)], words=4))


def _history(storage: "Opened | None", experiment: str, *, as_json: bool) -> str:
    from lab.cli.side_by_side import history_document, history_rows
    from lab.study.results import history

    past = history(storage, experiment) if storage else []
    if as_json:
        return history_document(past)
    if not past:
        return "No study of this experiment is recorded. Start one with python -m lab.tune."
    return "\n".join(plain(line) for line in aligned(history_rows(past), words=5))


def _row(one: "Listed") -> tuple[str, ...]:
    counts = ("-" if count is None else f"{count:,}" for count in (one.trials, one.episodes, one.calls))
    return (one.name, one.experiment, one.began_text, one.state, *counts)


if __name__ == "__main__":
    app()
