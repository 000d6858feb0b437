"""The command `python -m lab.report`: one HTML file about an experiment's last study, finished or not.

It owns the flags and the file's path; `lab.reporting` makes the content. It makes no model call and plays no
episode. With `--mlflow` it writes no file, but logs the study to MLflow again from its record.
"""

import asyncio
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lab.cli.command import Debug, Experiment, Storage, StudyName, Version, command_line, manners, say
from lab.errors import LabError
from lab.submission.stdout import print_result

if TYPE_CHECKING:
    from lab.study.past_study import Which

app = command_line()

WAIT_S = 3600.0
"""Maximum seconds for logging a study to MLflow."""


@app.command()
def report(
    experiment: Experiment = Path("experiments/echo.toml"),
    out: Annotated[
        Path | None, typer.Option(help="The file to write.", show_default=".lab/report-STUDY.html")
    ] = None,
    study: StudyName = "",
    storage: Storage = "",
    mlflow: Annotated[
        bool, typer.Option("--mlflow", help="Write no file; log the study to MLflow again from its record.")
    ] = False,
    debug: Debug = False,
    _version: Version = False,
) -> None:
    """Write a report about a study, by default the experiment's last one: one HTML file that works offline.

    It shows the verdict with its evidence, the race, every candidate with its prompt and episodes, the effect
    of each parameter, the cost, and the reasons for doubt.

    Examples:

        python -m lab.report

        python -m lab.report experiments/smoke.toml --out /tmp/smoke.html

        python -m lab.report --study smoke-20261126-003509

        python -m lab.report experiments/smoke.toml --mlflow
    """
    if mlflow and out:
        raise typer.BadParameter("--mlflow and --out are mutually exclusive")
    with manners(debug=debug):
        from lab.study.past_study import Which

        which = Which(experiment, study, storage)
        if mlflow:
            print_result(f"Logged to MLflow: {asyncio.run(_logged(which))}")
        else:
            print_result(str(_report(which, out)))


def _report(which: "Which", out: Path | None) -> Path:
    from lab.files import write_atomically
    from lab.reporting.page import report as page
    from lab.storage.database import CALLS
    from lab.study.past_study import reading

    with reading(which, say) as past:
        path = out or CALLS.parent / f"report-{past.record.name}.html"
        write_atomically(path, page(past))
        return path


async def _logged(which: "Which") -> str:
    """Log the study again, overwriting existing runs, and return its name."""
    from lab.reporting.page import report as page
    from lab.storage.database import CALLS
    from lab.study.past_study import reading
    from lab.study.resume import alone

    with reading(which, say) as past:
        tracker, shared = past.tracker, past.record.store.shared
        with nullcontext() if shared else alone(past.experiment.name, CALLS.parent):
            if past.outcome:
                tracker.frozen(past.outcome.frozen_prompt())
            tracker.report(lambda: page(past))
            tracker.lead()
            await tracker.finish("FINISHED" if past.outcome else "KILLED", WAIT_S)
        if tracker.missing:
            do = "fix the cause and run the same command again"
            raise LabError("MLflow rejected some items.", why="; ".join(tracker.missing), do=do)
        return past.record.name


if __name__ == "__main__":
    app()
