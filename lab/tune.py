"""The command `python -m lab.tune`: runs an experiment's study and freezes what it finds.

It owns the flags, Ctrl-C, the exit code, and what is printed; results go to stdout, progress to stderr.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lab.errors import LabError, first_of
from lab.frozen import BEST

if TYPE_CHECKING:
    from lab.progress import ProgressView
    from lab.study import Study

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

INTERRUPTED = 130


@app.command()
def tune(
    experiment: Annotated[Path, typer.Argument(help="The experiment file.")] = Path("experiments/echo.toml"),
    out: Annotated[Path, typer.Option(help="Where the winner is frozen to.")] = BEST,
) -> None:
    """Tune prompt and sampling on an experiment, and freeze the winner.

    With no API_BASE_URL set, the experiment's own model is used; the embedded one is started and stopped.
    Ctrl-C ends the search early and freezes what is best so far; a second Ctrl-C stops at once.

    Examples:

        python -m lab.tune

        python -m lab.tune experiments/smoke.toml --out /tmp/smoke.toml
    """
    try:
        asyncio.run(_tune(experiment, out))
    except (LabError, BaseExceptionGroup) as raised:
        error = first_of(raised)
        if not isinstance(error, LabError):
            raise
        typer.echo(str(error), err=True)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, asyncio.CancelledError):
        typer.echo("Stopped. The trials that had finished are kept in MLflow and in .lab/.", err=True)
        sys.exit(INTERRUPTED)


async def _tune(path: Path, out: Path) -> None:
    # Here and not above, so that --help answers at once.
    from lab.experiment import load_experiment
    from lab.freeze import freeze
    from lab.opening import opening_model
    from lab.outcome import summary
    from lab.progress import ProgressView
    from lab.settings import choose_model, read_dotenv
    from lab.study import Study, study_name
    from lab.tracking import Tracker

    read_dotenv(Path.cwd())
    experiment = load_experiment(path)
    view = ProgressView(experiment.space.free)
    with opening_model(choose_model(experiment.model), os.environ) as opening:
        tracker = Tracker(experiment, study_name(experiment), view.say)
        study = Study(experiment, view, tracker)
        _on_signals(study, view)
        view.say(f"Study {study.name} on {opening.model.name} at {opening.model.shown}: {experiment.about}")
        try:
            outcome = await study.run(opening)
            frozen = outcome.frozen_prompt()
            freeze(frozen, out)
            tracker.frozen(frozen)
        except BaseException as error:
            tracker.close("FAILED" if isinstance(error, Exception) else "KILLED")
            raise
    tracker.close("FINISHED")
    typer.echo(summary(outcome, out))


def _on_signals(study: "Study", view: "ProgressView") -> None:
    main = asyncio.current_task()
    loop = asyncio.get_running_loop()
    assert main is not None

    def on_interrupt() -> None:
        if study.interrupt():
            view.say("Ending the search; the best so far go to the holdout. Ctrl-C again stops at once.")
        else:
            main.cancel()

    loop.add_signal_handler(signal.SIGINT, on_interrupt)
    loop.add_signal_handler(signal.SIGTERM, main.cancel)


if __name__ == "__main__":
    app()
