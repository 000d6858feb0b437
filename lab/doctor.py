"""The command `python -m lab.doctor`: checks what a study needs, one line each, with what to do.

It uses the same code as a study and changes nothing: it calls each model with each free sampling setting at
both ends, plays two steps with the baseline's prompt, and a few with an example of an action.
"""

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lab.cli.command import Debug, EndpointUrl, Experiment, Version, command_line, manners
from lab.cli.finding import Finding, looked
from lab.errors import ConfigError, EnvError, LabError, plain
from lab.stats.format import count
from lab.submission.frozen import BEST, read_frozen
from lab.submission.stdout import print_result

if TYPE_CHECKING:
    from lab.agent.episode import Start
    from lab.agent.step import Step
    from lab.cli.model_check import ModelCheck
    from lab.environments.isolation import Isolation
    from lab.experiment.experiment import Experiment as Loaded

app = command_line()

PYTHONS = ((3, 11), (3, 14))
"""Supported versions: from the first, below the second."""

FREE_BYTES = 500_000_000
"""Disk space required: 1,000 calls take a few megabytes; this is for many studies and MLflow's artifacts."""

DATABASE = Path("mlflow.db")
"""MLflow's default database, in the working directory."""

PINS = Path(__file__).resolve().parents[1] / "constraints.txt"


@app.command()
def doctor(
    experiment: Experiment = Path("experiments/echo.toml"),
    endpoint: EndpointUrl = "",
    debug: Debug = False,
    _version: Version = False,
) -> None:
    """Check what a study needs, one line each: what is ok, what failed, and what to do.

    Calls each hosted model with each sampling setting that [space] frees at both ends, opens and resets the
    environment, plays two steps with the baseline's prompt (the embedded model is started for them), and sees
    whether an episode is the same when it is repeated, and beside another. Says what requests may hold, as
    far as an endpoint refused anything. Checks of [models.NAME] start with its name. Shows the baseline's
    prompt as it is sent, and warns of templates with an empty message. No key is ever printed.
    Exit code: 0 if all checks pass, else that of the first failed one: 2 configuration, 3 endpoint or key,
    4 environment, 1 anything else.

    Examples:

        python -m lab.doctor

        python -m lab.doctor experiments/smoke.toml
    """
    with manners(debug=debug):
        wrong = asyncio.run(_examine(experiment, endpoint))
    print_result(f"{count(len(wrong), 'check')} failed." if wrong else "All checks passed.")
    sys.exit(wrong[0].exit_code if wrong else 0)


async def _examine(path: Path, endpoint: str) -> list[LabError]:
    """Print each finding as it is made, and return the errors of failed checks."""
    from lab.llm.settings import read_surroundings

    read_surroundings(Path.cwd(), endpoint)
    wrong: list[LabError] = []

    def tell(finding: Finding) -> None:
        print_result(plain(str(finding)))
        if finding.wrong:
            wrong.append(finding.wrong)

    tell(looked("Python", _python))
    tell(looked("packages", _packages))
    loaded: list[Loaded] = []
    tell(looked("experiment", lambda: _experiment(path, loaded)))
    tell(looked("frozen", _frozen))
    if loaded:
        async for finding in _models(loaded[0]):
            tell(finding)
    else:
        for about in ("endpoint", "key", "model", "environment", "steps", "prompts", "sessions"):
            tell(Finding(about, "skipped: needs a valid experiment file", looked=False))
    tell(looked("MLflow store", lambda: _mlflow(path.stem)))
    tell(looked("disk", _disk))
    return wrong


def _python() -> str:
    version = ".".join(map(str, sys.version_info[:3]))
    if not PYTHONS[0] <= sys.version_info[:2] < PYTHONS[1]:
        do = "make setup PYTHON=python3.11"
        raise ConfigError(f"Python {version} is not supported.", why="the lab needs 3.11 to 3.13", do=do)
    return version


def _packages() -> str:
    """Every required package is installed in an allowed version; differences from the pins are listed."""
    from importlib.metadata import PackageNotFoundError, requires, version

    from packaging.requirements import Requirement

    try:
        wanted = [Requirement(text) for text in requires("prompt-lab") or ()]
    except PackageNotFoundError:
        do = "pip install -c constraints.txt -e '.[local,dev]'"
        raise ConfigError("The lab is not installed.", do=do) from None
    wanted = [one for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    pinned, others = dict(_pins()), []
    for one in wanted:
        try:
            found = version(one.name)
        except PackageNotFoundError:
            raise _unfit(f"{one.name} is not installed.", one) from None
        if not one.specifier.contains(found, prereleases=True):
            raise _unfit(f"{one.name} is {found}.", one)
        if found != pinned.get(one.name, found):
            others.append(f"{one.name} {found}, tested with {pinned[one.name]}")
    return f"{len(wanted)} as required" + "".join(f"; {other}" for other in others)


def _unfit(what: str, wanted: object) -> ConfigError:
    do = "make setup, or pip install -c constraints.txt -e '.[local]'"
    return ConfigError(what, why=f"the lab requires {wanted}", do=do)


def _pins() -> Iterator[tuple[str, str]]:
    lines = PINS.read_text(encoding="utf-8").splitlines() if PINS.exists() else []
    for line in lines:
        name, is_pin, rest = line.partition("==")
        if is_pin and ";" not in rest:
            yield name.strip(), rest.strip()


def _experiment(path: Path, loaded: "list[Loaded]") -> str:
    from lab.experiment.experiment import load_experiment

    loaded.append(load_experiment(path))
    return f"{path}: {loaded[0].about}"


def _frozen() -> str:
    frozen = read_frozen(BEST)
    return f"{BEST}: template {frozen.candidate.template.name}, of {frozen.provenance.study}"


async def _models(experiment: "Loaded") -> AsyncIterator[Finding]:
    """Check every model, and the environment with each."""
    from lab.cli.model_check import checks_of

    models = list(checks_of(experiment))
    for model in models:
        for finding in await model.calls():
            yield finding
    async for finding in _environment(experiment, models):
        yield finding
    left_out = [name for name in experiment.space.free if all(model.lacks(name) for model in models)]
    for model in models:
        if model.answers:
            yield model.dialect(left_out)


async def _environment(experiment: "Loaded", models: "Sequence[ModelCheck]") -> AsyncIterator[Finding]:
    """Check the environment, and play two steps in it with each model."""
    from lab.agent.episode import Start
    from lab.environments.config import choose_environment
    from lab.environments.environment import open_environment
    from lab.environments.isolation import isolation_of

    about = "environment"
    try:
        where = choose_environment(experiment.environment)
        setup, seed = experiment.task.setup(experiment.seed)
        async with open_environment(where, experiment.root) as environment:
            async with environment.session() as session:
                seen = await session.reset(seed, setup.reset)
                start = Start(seen.text, seen.fields, session.form.asked)
                yield Finding(about, f"{where.shown}: opened and reset")
                for model in models:
                    yield await model.play(session)
            about = "prompts"
            for finding in _prompts(experiment, start, models[0].steps):
                yield finding
            about = "sessions"
            tasks = [setup.reset, *(one.reset for one in experiment.task.tasks if one != setup)]
            yield _sessions(experiment, await isolation_of(environment, seed, tasks))
    except LabError as error:
        yield Finding(about, "", error)
        for other in ("steps", "prompts", "sessions") if about == "environment" else ():
            yield Finding(other, "skipped", looked=False)


def _sessions(experiment: "Loaded", isolation: "Isolation") -> Finding:
    """Whether episodes that are played at the same time are separate."""
    about, in_flight = "sessions", experiment.search.in_flight
    match isolation:
        case "separate":
            return Finding(about, "an episode is the same when it is repeated, and beside another")
        case "single":
            return Finding(about, "one episode is played at a time")
        case "random":
            said = "episodes of one seed differ, so candidates cannot be compared on the same ones"
            return Finding(about, f"{said}: they need more episodes", warned=True)
        case "shared" if in_flight > 1:
            what = "An episode changes when another begins: the environment's sessions are not separate."
            return Finding(about, "", EnvError(what, do="set search.in_flight = 1"))
        case "shared":
            return Finding(about, "not separate, but one episode is played at a time (search.in_flight = 1)")
    return Finding(about, "not tested: no example of an action has an effect that can be seen", looked=False)


def _prompts(experiment: "Loaded", start: "Start", steps: "list[Step]") -> Iterator[Finding]:
    """Check that no message of any template is empty, and show the baseline's prompt and those with one."""
    from lab.study.prompts import candidates, empty_messages, prompt

    empty, (baseline, *others) = empty_messages(experiment, start, steps), candidates(experiment)
    said = empty.get(baseline) or f"of {len(others) + 1} templates; lab.tune --dry-run shows all"
    shown = prompt(experiment, baseline, start)
    yield Finding("prompts", said, warned=baseline in empty, shown=shown)
    for name in filter(empty.get, others):
        shown = prompt(experiment, name, start)
        yield Finding("prompts", f"{name}: {empty[name]}", warned=True, shown=shown)


def _mlflow(experiment: str) -> str:
    """Open the store as a study does, but never create one."""
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if not uri and not DATABASE.exists():
        return f"{DATABASE}, created by the first study"
    for name, value in (("MAX_RETRIES", "1"), ("TIMEOUT", "10")):
        os.environ.setdefault(f"MLFLOW_HTTP_REQUEST_{name}", value)
    import mlflow

    from lab.addresses import shown_url
    from lab.tracking.database import database_file, is_half_made

    shown = shown_url(mlflow.get_tracking_uri()) if uri else str(DATABASE)
    try:
        path = database_file(mlflow.get_tracking_uri())
        if path is not None and is_half_made(path):
            why = "the command that created it was killed; it holds no run"
            do = f"delete {path}, or start a study"
            raise ConfigError("MLflow's database is incomplete.", where=str(path), why=why, do=do)
        client = mlflow.MlflowClient()
        found = client.search_experiments(max_results=100)
        ours = client.get_experiment_by_name(experiment)
    except ConfigError:
        raise
    except Exception as error:  # whatever MLflow or its database raises
        do = "check MLFLOW_TRACKING_URI" if uri else f"move {DATABASE} away; the next study creates a new one"
        raise ConfigError("MLflow's store cannot be opened.", where=shown, why=str(error), do=do) from None
    deleted = ours is not None and ours.lifecycle_stage == "deleted"
    note = f"; {experiment} was deleted there; the next study restores it" if deleted else ""
    return f"{shown}: {len(found)} experiments{note}"


def _disk() -> str:
    here, free = Path.cwd(), shutil.disk_usage(Path.cwd()).free
    if not os.access(here, os.W_OK):
        raise LabError("The folder is not writable.", where=str(here), do="run it in one that is")
    if free < FREE_BYTES:
        what = f"Only {free / 1e9:.1f} GB are free."
        raise LabError(what, where=str(here), do=f"free at least {FREE_BYTES / 1e9:g} GB")
    return f"{free / 1e9:.0f} GB free"


if __name__ == "__main__":
    app()
