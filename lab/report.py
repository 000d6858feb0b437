"""The command `python -m lab.report`: one HTML file on an experiment's last study, finished or so far.

It owns the flags and where the file goes; what is in it is `lab.reporting`'s. It asks, plays and changes
nothing.
"""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from lab.command import Debug, Experiment, command_line, manners
from lab.output import print_result

app = command_line()


@app.command()
def report(
    experiment: Experiment = Path("experiments/echo.toml"),
    out: Annotated[
        Path | None,
        typer.Option(help="The file to write.", show_default=".lab/report-STUDY.html"),
    ] = None,
    storage: Annotated[
        str,
        typer.Option(
            envvar="LAB_STORAGE",
            help="postgresql://USER:PASSWORD@HOST:PORT/DATABASE, where the study is there.",
            show_default="a file, .lab/calls.db",
            show_envvar=True,
        ),
    ] = "",
    debug: Debug = False,
) -> None:
    """Write a report on an experiment's last study: one HTML file that opens offline.

    It has the verdict with its evidence, the race, the effect of each parameter, episodes to read, the
    prompt's difference from the baseline, the cost, and what there is to doubt.

    Examples:

        python -m lab.report

        python -m lab.report experiments/smoke.toml --out /tmp/smoke.html
    """
    with manners(debug=debug):
        print_result(str(asyncio.run(_report(experiment, out, storage))))


async def _report(experiment: Path, out: Path | None, storage: str) -> Path:
    # Here and not above, so that --help answers at once.
    from lab.files import write_atomically
    from lab.history import past_study
    from lab.reporting.page import report as page
    from lab.store import CALLS

    async with past_study(experiment, storage) as past:
        path = out or CALLS.parent / f"report-{past.record.name}.html"
        write_atomically(path, page(past))
        return path


if __name__ == "__main__":
    app()
