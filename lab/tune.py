"""The command `python -m lab.tune`: runs an experiment's study and freezes what it finds.

It owns the flags, Ctrl-C, the exit code, and what is printed; results go to stdout, progress to stderr.
"""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lab.command import Debug, Experiment, command_line, manners
from lab.errors import ConfigError
from lab.frozen import BEST
from lab.output import print_result

if TYPE_CHECKING:
    from lab.outcome import Outcome
    from lab.progress import ProgressView
    from lab.record import Record
    from lab.study import Study
    from lab.tracking import Tracker

app = command_line()


@app.command()
def tune(
    experiment: Experiment = Path("experiments/echo.toml"),
    out: Annotated[Path, typer.Option(help="Where the winner is frozen to.")] = BEST,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin a new study; the old ones are kept.")] = False,
    replay: Annotated[
        bool, typer.Option("--replay", help="Tell the last study again; make no call.")
    ] = False,
    storage: Annotated[
        str,
        typer.Option(
            envvar="LAB_STORAGE",
            help="postgresql://USER:PASSWORD@HOST:PORT/DATABASE, for a study on several machines. "
            "In LAB_STORAGE, the password is in no process list.",
            show_default="a file, .lab/calls.db",
            show_envvar=True,
        ),
    ] = "",
    worker: Annotated[
        bool, typer.Option("--worker", help="Share the study on --storage with other workers.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done and what it may cost; do nothing.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Only the result: no progress.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="The result as one JSON document on stdout, for programs.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Tune prompt and sampling on an experiment, and freeze the winner.

    With no API_BASE_URL set, the experiment's own model is used; the embedded one is started and stopped.
    Ctrl-C ends the search early and freezes what is best so far; a second Ctrl-C stops at once.
    A study that was broken off goes on where it was; one that is finished is told again, without a call.

    Examples:

        python -m lab.tune

        python -m lab.tune --dry-run

        python -m lab.tune experiments/smoke.toml --out /tmp/smoke.toml

        python -m lab.tune --storage postgresql://lab@database/lab --worker
    """
    if fresh and replay:
        raise typer.BadParameter("--fresh begins anew, and --replay tells what was: choose one")
    if dry_run and (fresh or replay or worker or as_json):
        raise typer.BadParameter("--dry-run tells a plan, and leaves no room for --fresh, --replay, ...")
    kept = "Stopped. What was played and paid for is kept; the same command goes on from here."
    with manners(debug=debug, interrupted=kept):
        if dry_run:
            print_result(asyncio.run(_planned(experiment)).removesuffix("\n"))
            return
        wanted = _Wanted(experiment, out, storage, fresh, replay, worker, quiet)
        print_result(_told(asyncio.run(_tune(wanted)), out, as_json=as_json))


@dataclass(frozen=True)
class _Wanted:
    """What the command line says."""

    experiment: Path
    out: Path
    storage: str
    fresh: bool
    replay: bool
    worker: bool
    quiet: bool


async def _planned(path: Path) -> str:
    from lab.experiment import load_experiment
    from lab.plan import Plan, opening_of
    from lab.settings import choose_environment, choose_model, read_surroundings, shown_proposer

    read_surroundings(Path.cwd())
    experiment = load_experiment(path)
    model = choose_model(experiment.model)
    environment = choose_environment(experiment.environment)
    opening = await opening_of(experiment, environment)
    return str(Plan(experiment, model, environment, shown_proposer(), opening))


def _told(outcome: "Outcome", out: Path, *, as_json: bool) -> str:
    from lab.outcome import summary
    from lab.result import result

    return result(outcome, out) if as_json else summary(outcome, out)


async def _tune(wanted: _Wanted) -> "Outcome":
    # Here and not above, so that --help answers at once.
    from lab.experiment import load_experiment
    from lab.opening import opening_model
    from lab.plan import Plan
    from lab.progress import ProgressView
    from lab.resume import alone, document, open_record
    from lab.settings import choose_environment, choose_model, read_surroundings, shown_proposer
    from lab.store import CALLS, Store
    from lab.study import Study
    from lab.tracking import Tracker

    read_surroundings(Path.cwd())
    storage = _storage(wanted)
    experiment = load_experiment(wanted.experiment)
    model = choose_model(experiment.model)
    depends_on = document(experiment, model, shown_proposer())
    view = ProgressView(experiment.space.free, quiet=wanted.quiet)
    with (
        nullcontext() if storage else alone(experiment.name, CALLS.parent),
        closing(Store(storage or CALLS)) as store,
    ):
        before = None if wanted.fresh else store.latest(experiment.name)
        record = open_record(store, experiment.name, depends_on, fresh=wanted.fresh, replay=wanted.replay)
        told_again = wanted.replay or record.judged is not None
        with nullcontext() if told_again else opening_model(model, os.environ) as opening:
            tracker = Tracker(experiment, model, record, view.say)
            study = Study(experiment, model, record, view, tracker, shared=wanted.worker)
            if not (wanted.replay or wanted.worker) and (told_again or not storage):
                tracker.lead()
            _on_signals(study, view, leave_at_once=wanted.worker)
            view.say(f"Study {record.name} on {model.name} at {model.shown}: {experiment.about}")
            if record.events:
                view.say(_goes_on(record))
            elif before is not None:
                view.say(
                    f"The experiment has changed since {before[0]}, which is finished: this study is new."
                )
            if not told_again:
                environment = choose_environment(experiment.environment)
                view.say(Plan(experiment, model, environment, shown_proposer()).short)
            with _closing(tracker):
                outcome = await (study.run(opening) if opening else study.replay())
                _keep(outcome, wanted.out, tracker, record)
        tracker.close("FINISHED")  # it reads in the store to its end
    return outcome


def _storage(wanted: _Wanted) -> str:
    """The database's address; empty for the file."""
    storage = wanted.storage or os.environ.get("LAB_STORAGE", "")  # which .env may have set just now
    if wanted.worker and (not storage or wanted.fresh or wanted.replay):
        why = "it shares a study, which others may be at" if storage else "workers meet in a database"
        do = "leave out --fresh and --replay" if storage else "give --storage postgresql://..."
        raise ConfigError("--worker cannot be had in this way.", where="--worker", why=why, do=do)
    return storage


@contextmanager
def _closing(tracker: "Tracker") -> Iterator[None]:
    """Let MLflow know that the study came to no end, where it did not."""
    try:
        yield
    except BaseException as error:
        tracker.close("FAILED" if isinstance(error, Exception) else "KILLED")
        raise


def _keep(outcome: "Outcome", out: Path, tracker: "Tracker", record: "Record") -> None:
    """Freeze the winner, and give MLflow frozen prompt and report."""
    from lab.freeze import freeze
    from lab.history import PastStudy
    from lab.reporting.page import report

    frozen = outcome.frozen_prompt()
    freeze(frozen, out)
    tracker.frozen(frozen)
    past = PastStudy(outcome.experiment, outcome.model, outcome.trials, outcome, record)
    tracker.report(lambda: report(past))


def _goes_on(record: "Record") -> str:
    if record.judged is not None:
        return f"It was finished at {record.judged.created} and is told again; --fresh begins another."
    return (
        f"It goes on where it was: {len(record.ended)} episodes are kept, and every call that was answered."
    )


def _on_signals(study: "Study", view: "ProgressView", *, leave_at_once: bool) -> None:
    main = asyncio.current_task()
    loop = asyncio.get_running_loop()
    assert main is not None

    def on_interrupt() -> None:
        if not leave_at_once and study.interrupt():  # a worker that leaves ends nothing for the others
            view.say("Ending the search; the best so far go to the holdout. Ctrl-C again stops at once.")
        else:
            main.cancel()

    loop.add_signal_handler(signal.SIGINT, on_interrupt)
    loop.add_signal_handler(signal.SIGTERM, main.cancel)


if __name__ == "__main__":
    app()
