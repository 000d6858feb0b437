"""The command `python -m lab.tune`: runs an experiment's study and freezes the winner.

It owns the flags, Ctrl-C, the exit code, and the output: results on stdout, progress on stderr.
"""

import asyncio
import signal
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lab.cli.command import (
    Debug,
    EndpointUrl,
    Experiment,
    Storage,
    StudyName,
    Version,
    command_line,
    manners,
    say,
)
from lab.cli.ended import Ended, keep, shown
from lab.errors import BudgetError, ConfigError
from lab.submission.frozen import BEST
from lab.submission.stdout import print_result

if TYPE_CHECKING:
    from lab.display.progress import ProgressView
    from lab.study.past_study import PastStudy, Which
    from lab.study.running import Run
    from lab.study.study import Study
    from lab.verdict.outcome import Unvalidated

app = command_line()


@app.command()
def tune(
    experiment: Experiment = Path("experiments/echo.toml"),
    out: Annotated[Path, typer.Option(help="The file for the frozen prompt.")] = BEST,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start a new study; old ones are kept.")] = False,
    replay: Annotated[
        bool, typer.Option("--replay", help="Print the last study's result again without making calls.")
    ] = False,
    study: StudyName = "",
    freeze_unvalidated: Annotated[
        bool,
        typer.Option(
            "--freeze-unvalidated",
            help="If the budget ends before a verdict, freeze the search's best, marked as unvalidated.",
        ),
    ] = False,
    storage: Storage = "",
    worker: Annotated[
        bool, typer.Option("--worker", help="Share the study on --storage with other workers.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and its maximum cost, and exit.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print only the result.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as one JSON document, for programs.")
    ] = False,
    endpoint: EndpointUrl = "",
    debug: Debug = False,
    _version: Version = False,
) -> None:
    """Tune prompt and sampling on an experiment, and freeze the winner.

    Without API_BASE_URL, the experiment's model is used; an embedded one is started and stopped.
    Ctrl-C ends the search early, and judges and freezes the best so far; a second Ctrl-C stops at once.
    An unfinished study resumes, and a finished one prints its result again; with raised limits both continue.

    Examples:

        python -m lab.tune

        python -m lab.tune --dry-run

        python -m lab.tune experiments/smoke.toml --out /tmp/smoke.toml

        python -m lab.tune --storage postgresql://lab@database/lab --worker
    """
    if replay and (fresh or worker):
        raise typer.BadParameter("--replay is mutually exclusive with --fresh and --worker")
    if study and not replay:
        raise typer.BadParameter("--study requires --replay")
    if dry_run and (fresh or replay or worker or as_json or freeze_unvalidated):
        others = "--fresh, --replay, --worker, --json and --freeze-unvalidated"
        raise typer.BadParameter(f"--dry-run is mutually exclusive with {others}")
    kept = "Stopped. All calls and episodes are recorded; the same command resumes."
    with ExitStack() as last, manners(debug=debug, interrupted=kept):
        if dry_run:
            from lab.study.around import planned

            print_result(asyncio.run(planned(experiment, endpoint)).removesuffix("\n"))
            return
        if replay:
            from lab.study.past_study import Which

            ended = _replayed(Which(experiment, study, storage), out, quiet=quiet)
        else:
            run = _run(experiment, storage, endpoint, fresh=fresh, worker=worker, quiet=quiet)
            ended = asyncio.run(_tune(run, out, last, freeze_unvalidated=freeze_unvalidated))
        print_result(shown(ended, experiment, as_json=as_json))
        if ended.not_written is not None:
            raise ended.not_written
        from lab.verdict.outcome import Unvalidated

        if isinstance(ended.outcome, Unvalidated) and not freeze_unvalidated:
            raise typer.Exit(BudgetError.exit_code)


def _run(experiment: Path, storage: str, endpoint: str, *, fresh: bool, worker: bool, quiet: bool) -> "Run":
    """The run that the flags ask for."""
    from lab.display.progress import ProgressView
    from lab.experiment.experiment import load_experiment
    from lab.llm.settings import read_surroundings
    from lab.storage.storage import address_of
    from lab.study.running import Run

    read_surroundings(Path.cwd(), endpoint)
    address = address_of(storage)  # .env may have set it just now
    if worker and fresh:
        what = "--worker cannot be combined with --fresh."
        raise ConfigError(what, where="--worker", do="leave out --fresh")
    if worker and not address.startswith("postgres"):
        what = "--worker requires --storage postgresql://..."
        raise ConfigError(what, where="--worker", do="use --storage postgresql://...")
    loaded = load_experiment(experiment)
    return Run(loaded, ProgressView(loaded.space.free, quiet=quiet), address, fresh, worker)


async def _tune(run: "Run", out: Path, last: ExitStack, *, freeze_unvalidated: bool) -> Ended:
    """Run or resume the study; `last` is unwound after an error has been printed."""
    from lab.files import check_writable
    from lab.study.around import untouched

    def kept(ended: "PastStudy | Unvalidated") -> Ended:
        return keep(ended, out, unvalidated=freeze_unvalidated)

    def started(study: "Study") -> None:
        _on_signals(study, run.view, leave_at_once=run.worker)

    check_writable(out)
    with untouched(out):
        ended, tracker = await run.result(kept, last, started)
    return replace(ended, untracked=tracker.missing, urls=tracker.urls)


def _replayed(which: "Which", out: Path, *, quiet: bool) -> Ended:
    """The result of a past study, from its record only."""
    from lab.files import check_writable
    from lab.study.around import heading, untouched
    from lab.study.past_study import reading

    check_writable(out)
    with untouched(out), reading(which, say) as past:
        past.finished()
        for line in () if quiet else heading(past):
            say(line)
        return keep(past, out)


def _on_signals(study: "Study", view: "ProgressView", *, leave_at_once: bool) -> None:
    main = asyncio.current_task()
    loop = asyncio.get_running_loop()
    assert main is not None

    def on_interrupt() -> None:
        if not leave_at_once and study.interrupt():  # a worker that stops does not end the search for others
            view.say("Ending the search; the best so far play the holdout. Ctrl-C again stops at once.")
        else:
            main.cancel()

    loop.add_signal_handler(signal.SIGINT, on_interrupt)
    loop.add_signal_handler(signal.SIGTERM, main.cancel)


if __name__ == "__main__":
    app()
