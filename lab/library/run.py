"""Running a study from Python: as `python -m lab.tune` does, without flags, signals and a frozen file."""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lab.display.progress import ProgressView
from lab.errors import ConfigError
from lab.experiment.experiment import Experiment, read_experiment
from lab.library.study import Study, load_study
from lab.llm.settings import read_surroundings
from lab.reporting.page import report
from lab.storage.storage import address_of
from lab.study.past_study import PastStudy
from lab.study.running import Run
from lab.verdict.outcome import Unvalidated


def run_study(
    experiment: Experiment | Path | str, *, fresh: bool = False, storage: str = "", quiet: bool = False
) -> Study:
    """Run an experiment's study to its end, and return it; also inside a running event loop, which waits.

    As with `python -m lab.tune`, an unfinished study resumes and a finished one is read again without a call,
    or continues to another verdict if its limits were raised; variables and `.env` choose endpoint and key;
    calls are recorded in `.lab/`, and MLflow shows the study. No file is frozen: see `Study.freeze`. After
    Ctrl-C, the same call resumes.

    Args:
        experiment: The experiment, or the path of its file.
        fresh: Whether to start a new study.
        storage: As for `load_study`.
        quiet: Whether to show no progress on stderr.

    Returns:
        The study, without a verdict if its budget ended before.

    Raises:
        LabError: The experiment, the endpoint, the environment or the disk failed.
    """
    study = run_study_async(experiment, fresh=fresh, storage=storage, quiet=quiet)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(study)
    return _in_thread(study)


async def run_study_async(
    experiment: Experiment | Path | str, *, fresh: bool = False, storage: str = "", quiet: bool = False
) -> Study:
    """As `run_study`, for programs with an event loop and for notebooks; cancelling it stops the study."""
    read_surroundings(Path.cwd())
    chosen = experiment if isinstance(experiment, Experiment) else Experiment.load(experiment)
    if read_experiment(chosen.source, chosen.root) != chosen:
        do = "pass the changed table: Experiment.from_table({**experiment.table, ...}, experiment.name)"
        what = "The experiment was changed after it was read, so its study could not be read again."
        raise ConfigError(what, where=chosen.name, do=do)
    view = ProgressView(chosen.space.free, quiet=quiet)
    with ExitStack() as last:
        name, tracker = await Run(chosen, view, address_of(storage), fresh).result(_named, last)
    for line in tracker.missing or ():
        view.say(f"MLflow rejected: {line}")
    return load_study(name, storage=storage)


def _named(ended: PastStudy | Unvalidated) -> str:
    """The study's name; its frozen prompt and report go to MLflow."""
    if isinstance(ended, Unvalidated):
        return ended.study
    ended.tracker.frozen(ended.finished().frozen_prompt())
    ended.tracker.report(lambda: report(ended))
    return ended.record.name


def _in_thread(study: Coroutine[Any, Any, Study]) -> Study:
    """Run it on an event loop in another thread; Ctrl-C here cancels it there."""
    begun = Future[Callable[[], object]]()

    async def main() -> Study:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None
        begun.set_result(lambda: loop.call_soon_threadsafe(task.cancel))
        return await study

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(asyncio.run, main())
        try:
            return running.result()
        finally:
            if not running.done():
                begun.result()()
