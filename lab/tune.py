"""The command `python -m lab.tune`: runs an experiment's study and freezes what it finds.

It owns the flags, Ctrl-C, the exit code, and what is printed; results go to stdout, progress to stderr.
"""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from lab.cli.command import Debug, EndpointUrl, Experiment, StudyName, command_line, manners, say
from lab.errors import BudgetError, ConfigError, LabError
from lab.submission.frozen import BEST
from lab.submission.stdout import print_result

if TYPE_CHECKING:
    from lab.display.progress import ProgressView
    from lab.storage.record import Record
    from lab.study.study import Study
    from lab.tracking.tracker import Tracker
    from lab.verdict.outcome import Outcome
    from lab.verdict.unvalidated import Unvalidated

app = command_line()


@app.command()
def tune(
    experiment: Experiment = Path("experiments/echo.toml"),
    out: Annotated[Path, typer.Option(help="Where the winner is frozen to.")] = BEST,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin a new study; the old ones are kept.")] = False,
    replay: Annotated[
        bool, typer.Option("--replay", help="Print the last study's result again without making calls.")
    ] = False,
    study: StudyName = "",
    freeze_unvalidated: Annotated[
        bool,
        typer.Option(
            "--freeze-unvalidated",
            help="Where the budget ends before a verdict, freeze the best of the search, marked as such.",
        ),
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
    endpoint: EndpointUrl = "",
    debug: Debug = False,
) -> None:
    """Tune prompt and sampling on an experiment, and freeze the winner.

    With no API_BASE_URL set, the experiment's own model is used; the embedded one is started and stopped.
    Ctrl-C ends the search early and freezes what is best so far; a second Ctrl-C stops at once.
    An unfinished study resumes, also after a limit was raised; of a finished one the result is printed again.

    Examples:

        python -m lab.tune

        python -m lab.tune --dry-run

        python -m lab.tune experiments/smoke.toml --out /tmp/smoke.toml

        python -m lab.tune --storage postgresql://lab@database/lab --worker
    """
    if replay and (fresh or worker):
        raise typer.BadParameter("--replay and --fresh or --worker are mutually exclusive")
    if study and not replay:
        raise typer.BadParameter("--study requires --replay")
    if dry_run and (fresh or replay or worker or as_json or freeze_unvalidated):
        raise typer.BadParameter("--dry-run cannot be combined with --fresh, --replay, ...")
    kept = "Stopped. What was played and paid for is kept; the same command resumes."
    with ExitStack() as last, manners(debug=debug, interrupted=kept):
        if dry_run:
            from lab.study.around import planned

            print_result(asyncio.run(planned(experiment, endpoint)).removesuffix("\n"))
            return
        wanted = _Wanted(experiment, out, storage, fresh, worker, quiet, endpoint, freeze_unvalidated)
        ended = asyncio.run(_replayed(wanted, study) if replay else _tune(wanted, last))
        print_result(_shown(ended, wanted, as_json=as_json))
        if ended.not_written is not None:
            raise ended.not_written
        if ended.unvalidated and not freeze_unvalidated:
            raise typer.Exit(BudgetError.exit_code)


@dataclass(frozen=True)
class _Wanted:
    """What the command line says."""

    experiment: Path
    out: Path
    storage: str
    fresh: bool
    worker: bool
    quiet: bool
    endpoint: str
    freeze_unvalidated: bool


@dataclass(frozen=True)
class _Ended:
    """How a study ended.

    Attributes:
        not_written: why what was to be frozen is not.
        untracked: what MLflow did not take, a line for each reason; None where nothing was sent to it.
    """

    outcome: "Outcome | Unvalidated"
    not_written: LabError | None = None
    untracked: list[str] | None = None

    @property
    def unvalidated(self) -> bool:
        """Whether there is no verdict."""
        from lab.verdict.unvalidated import Unvalidated

        return isinstance(self.outcome, Unvalidated)


def _shown(ended: _Ended, wanted: _Wanted, *, as_json: bool) -> str:
    from lab.verdict.outcome import Outcome
    from lab.verdict.result_json import result
    from lab.verdict.summary import summary, untracked_lines
    from lab.verdict.unvalidated import unvalidated_result, unvalidated_summary

    outcome, out = ended.outcome, None if ended.not_written else wanted.out
    if isinstance(outcome, Outcome):
        if as_json:
            return result(outcome, out, ended.untracked)
        return summary(outcome, out, ended.untracked, wanted.experiment)
    out = out if wanted.freeze_unvalidated else None
    again = f"python -m lab.tune {quote(str(wanted.experiment))}"
    if as_json:
        return unvalidated_result(outcome, out, ended.untracked)
    told = unvalidated_summary(outcome, out, again)
    return "\n".join([told, *untracked_lines(ended.untracked, wanted.experiment)])


async def _tune(wanted: _Wanted, last: ExitStack) -> _Ended:
    """How it ended; `last` is unwound when an error has been printed."""
    # Here and not above, so that --help answers at once.
    from lab.display.progress import ProgressView
    from lab.experiment.experiment import load_experiment
    from lab.files import check_writable
    from lab.llm.launch import opening_model
    from lab.llm.settings import choose_model, read_surroundings, shown_proposer
    from lab.search.first_answers import stop_error
    from lab.storage.database import CALLS, Store
    from lab.study.around import first_lines, untouched
    from lab.study.document import document
    from lab.study.resume import alone, open_record
    from lab.study.study import Study
    from lab.tracking.tracker import Tracker

    read_surroundings(Path.cwd(), wanted.endpoint)
    storage = _storage(wanted)
    experiment = load_experiment(wanted.experiment)
    check_writable(wanted.out)
    model = choose_model(experiment.model)
    depends_on = document(experiment, model, shown_proposer())
    view = ProgressView(experiment.space.free, quiet=wanted.quiet)
    with (
        nullcontext() if storage else alone(experiment.name, CALLS.parent),
        closing(Store(storage or CALLS)) as store,
        untouched(wanted.out),
    ):
        before = None if wanted.fresh else store.latest(experiment.name)
        record = open_record(store, experiment, depends_on, fresh=wanted.fresh)
        if record.stopped is not None:
            raise stop_error(record.stopped)
        told_again = record.judged is not None
        tracker = Tracker(experiment, model, record, view.say)
        study = Study(experiment, model, record, view, tracker, shared=wanted.worker)
        if not wanted.worker and (told_again or not storage):
            tracker.lead()
        _on_signals(study, view, leave_at_once=wanted.worker)
        for line in first_lines(study, record, before[0] if before else None):
            view.say(line)
        no_model = told_again or study.spending.used_up() is not None
        with (
            nullcontext() if no_model else opening_model(model, os.environ) as opening,
            _closing(tracker, last),
        ):
            outcome = await (study.replay() if told_again else study.run(opening))
            ended = _keep(outcome, wanted, tracker, record)
        await tracker.finish(
            "KILLED" if ended.unvalidated else "FINISHED"
        )  # it reads in the store to its end
    return replace(ended, untracked=tracker.missing)


async def _replayed(wanted: _Wanted, study: str) -> _Ended:
    """The result of a past study, from its record alone."""
    from lab.files import check_writable
    from lab.study.around import heading, untouched
    from lab.study.past_study import Which, past_study

    check_writable(wanted.out)
    with untouched(wanted.out):
        async with past_study(Which(wanted.experiment, study, wanted.storage), say) as past:
            outcome = past.finished()
            for line in () if wanted.quiet else heading(past.experiment, past.model, past.record):
                say(line)
            return _keep(outcome, wanted, past.tracker, past.record)


def _storage(wanted: _Wanted) -> str:
    """The database's address; empty for the file."""
    storage = wanted.storage or os.environ.get("LAB_STORAGE", "")  # which .env may have set just now
    if wanted.worker and (not storage or wanted.fresh):
        what = "--worker cannot be combined with --fresh." if storage else "--worker requires --storage."
        do = "leave out --fresh" if storage else "give --storage postgresql://..."
        raise ConfigError(what, where="--worker", do=do)
    return storage


@contextmanager
def _closing(tracker: "Tracker", last: ExitStack) -> Iterator[None]:
    """Let MLflow know that the study came to no end, where it did not: once the error has been printed."""
    try:
        yield
    except BaseException as error:
        last.callback(tracker.close, "FAILED" if isinstance(error, Exception) else "KILLED")
        raise


def _keep(outcome: "Outcome | Unvalidated", wanted: _Wanted, tracker: "Tracker", record: "Record") -> _Ended:
    """Freeze what was found, and give MLflow the frozen prompt and the report."""
    from lab.reporting.page import report
    from lab.study.around import from_before
    from lab.study.past_study import PastStudy
    from lab.submission.freeze import freeze
    from lab.verdict.outcome import Outcome

    judged = isinstance(outcome, Outcome)
    if not judged and not wanted.freeze_unvalidated:
        if note := from_before(wanted.out):
            typer.echo(note, err=True)
        return _Ended(outcome)
    frozen = outcome.frozen_prompt()
    try:
        freeze(frozen, wanted.out)
    except LabError as error:
        error.do = "name another file with --out: the same command prints the result again, without calls"
        return _Ended(outcome, error)
    if isinstance(outcome, Outcome):
        tracker.frozen(frozen)
        past = PastStudy(outcome.experiment, outcome.model, outcome.trials, outcome, record, tracker)
        tracker.report(lambda: report(past))
    return _Ended(outcome)


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
