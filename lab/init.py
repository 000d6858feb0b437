"""The command `python -m lab.init`: an experiment for an environment, given its location.

It owns the questions and the output. What an environment shows is in `lab.experiment.inspection`, the files'
texts are in `lab.experiment.draft`.
"""

import asyncio
import json
import os
import re
import sys
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from lab.addresses import is_url
from lab.cli.command import Debug, Version, command_line, manners, say
from lab.errors import ConfigError, LabError, plain
from lab.submission.stdout import print_result

if TYPE_CHECKING:
    from lab.experiment.draft import Draft
    from lab.experiment.inspection import Inspection, Kind

app = command_line()

Answer = TypeVar("Answer", str, int, float)

SHIPPED = Path(__file__).resolve().parents[1] / "experiments"

MOST_SHOWN = 300
"""Characters of an observation that are printed."""


@app.command()
def init(
    where: Annotated[
        str,
        typer.Argument(
            metavar="WHERE",
            help="A server's URL, a Space (owner/name), a class (file.py:Name or module:Name), or an image.",
            show_default="asked for",
        ),
    ] = "",
    name: Annotated[
        str, typer.Option(help="The experiment's name.", show_default="from WHERE, asked for")
    ] = "",
    about: Annotated[str, typer.Option(help="The task, in one sentence.", show_default="asked for")] = "",
    max_steps: Annotated[
        int | None, typer.Option(min=1, help="Maximum steps of an episode.", show_default="asked for, 10")
    ] = None,
    max_return: Annotated[
        float | None,
        typer.Option(help="The sum of rewards that is a full score.", show_default="asked for, 1"),
    ] = None,
    tasks: Annotated[
        str,
        typer.Option(
            help="Names of its tasks, with commas, if it does not list them.", show_default="its list"
        ),
    ] = "",
    example: Annotated[bool, typer.Option("--example", help="List the experiments that ship.")] = False,
    debug: Debug = False,
    _version: Version = False,
) -> None:
    """Write an experiment for an environment: its file, templates, and a hooks file where one is needed.

    Opens and resets the environment, reads the form of its actions, plays an episode with an example of an
    action, and looks for its tasks and its own score; no model is called. At a terminal, it asks for what no
    flag sets.

    Examples:

        python -m lab.init http://127.0.0.1:8000

        python -m lab.init owner/space --name inbox --max-steps 8

        python -m lab.init --example
    """
    with manners(debug=debug):
        if example:
            _list_examples()
            return
        where = where or _asked("Where is the environment? (URL, owner/space, file.py:Class, image)", "")
        name = _checked(name or _asked("A name for the experiment?", _name_of(where)))
        key, value = place_of(where)
        named = [one.strip() for one in tasks.split(",") if one.strip()]
        found, kind = _inspected(name, key, value, named)
        about = about or _asked("What is the task, in one sentence?", f"This is {name}, an environment.")
        steps = max_steps or _asked("The maximum number of steps in an episode?", found.max_steps or 10)
        own_score = "" if max_return else found.own_score
        if max_return is None:
            max_return = 1.0 if own_score else _asked("The sum of rewards that is a full score?", 1.0)
        if not (steps >= 1 and 0 < max_return < inf):
            do = "use 1 step or more, and a finite return above 0"
            raise ConfigError(
                "max_steps or max_return is out of range.", where="max_steps, max_return", do=do
            )
        from lab.experiment.draft import Draft

        place = (key, _beside(value) if key == "python" else value)
        draft = Draft(name, place, found, kind, about, steps, max_return, own_score)
        _tell(draft, _written(draft))


def place_of(where: str) -> tuple[str, str]:
    """The key and value of `[environment]` for a location.

    Raises:
        ConfigError: It is empty.
    """
    if not where:
        do = "name a URL, a Space (owner/name), a class (file.py:Name or module:Name), or an image"
        raise ConfigError("No environment location given.", where="WHERE", do=do)
    if is_url(where):
        return "url", where
    if re.fullmatch(r".*\.py:\w+|[A-Za-z_][\w.]*:[A-Z]\w*", where):
        return "python", where
    if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", where):
        return "space", where
    return "image", where


def _name_of(where: str) -> str:
    kind, value = place_of(where)
    last = re.split(r"[/:]", value.partition(":")[0] if kind == "image" else value)[-1]
    if kind == "url":
        last = value.split("://", 1)[-1].partition("/")[2].strip("/") or "environment"
    return re.sub(r"\W+", "_", last).strip("_").lower() or "environment"


def _checked(name: str) -> str:
    if not re.fullmatch(r"[\w.-]+", name):
        do = "use letters, digits, - and _"
        raise ConfigError(f"{name!r} is not a valid name for an experiment.", where="--name", do=do)
    return name


def _asked(question: str, usual: Answer) -> Answer:
    """The answer at a terminal, of the usual one's type; the usual one elsewhere."""
    if not sys.stdin.isatty():
        return usual
    answer: Answer = typer.prompt(question, default=usual or None, type=type(usual), err=True)
    return answer


def _list_examples() -> None:
    import tomllib

    for path in sorted(SHIPPED.glob("*.toml")):
        about = tomllib.loads(path.read_text(encoding="utf-8"))["about"]
        print_result(f"{path.stem:<12} {about}")


def _inspected(name: str, key: str, value: str, named_tasks: list[str]) -> "tuple[Inspection, Kind]":
    """What the environment shows, and what an answer is; writes the hooks file where one is needed."""
    from lab.environments.config import EnvironmentConfig, choose_environment
    from lab.environments.failures import UnpublishedError
    from lab.experiment.draft import HOOKS, paths_of
    from lab.experiment.environment_schema import refuse_credentials
    from lab.experiment.inspection import inspect
    from lab.files import write_atomically
    from lab.llm.settings import read_surroundings

    read_surroundings(Path.cwd())
    for file in paths_of(name):
        if Path(file).exists():
            do = "choose another --name, or remove the file"
            raise ConfigError("The file already exists.", where=file, do=do)
    refuse_credentials(value, "WHERE", "ENV_BASE_URL")
    located: dict[str, Any] = {key: value}
    config = choose_environment(EnvironmentConfig(**located))
    try:
        found = asyncio.run(inspect(config, say, named_tasks))
    except UnpublishedError as error:
        hooks = paths_of(name)[-1]
        say(f"{error.what} {hooks} reads an answer as JSON: list its fields in the templates.")
        write_atomically(Path(hooks), HOOKS)
        return asyncio.run(inspect(replace(config, hooks=hooks), say, named_tasks)), "hook"
    return found, found.kind


def _written(draft: "Draft") -> str:
    """Write the files; the experiment's path, once it is read back."""
    from lab.experiment.draft import SCHEMA_FILE
    from lab.experiment.experiment import load_experiment
    from lab.experiment.json_schema import experiment_schema
    from lab.files import write_atomically

    for file, text in draft.files.items():
        write_atomically(Path(file), text)
    write_atomically(Path("experiments") / SCHEMA_FILE, experiment_schema())
    return load_experiment(Path(f"experiments/{draft.name}.toml")).file


def _beside(python: str) -> str:
    """The path of a class, relative to the folder of experiments."""
    file, _, name = python.rpartition(":")
    return f"{os.path.relpath(file, 'experiments')}:{name}" if file.endswith(".py") else python


def _tell(draft: "Draft", experiment: str) -> None:
    found = draft.found
    print_result(f"Wrote {', '.join(draft.files)}.")
    print_result(plain(f"\nObservation after reset:\n{_cut(found.first.text)}"))
    action = f"\nA step with the example {_cut(found.action)}"
    if isinstance(found.step, LabError):
        print_result(plain(f"{action}: {found.step.one_line}"))
    else:
        done = ", done" if found.step.done else ""
        print_result(plain(f"{action}: reward {found.step.reward:g}{done}\n{_cut(found.step.text)}"))
        if found.step.reward < 0 and not draft.own_score:
            print_result("Rewards may be negative: set task.min_return to the return that is a score of 0.")
    listed = len(found.listed.tasks)
    of = f", of {listed} listed" if listed > len(found.tasks) else ""
    none = f"none of {listed} listed can be chosen" if listed else "none listed"
    none = f"{none}; name them with --tasks, or in [[tasks]]"
    print_result(plain(f"\nTasks: {', '.join(found.tasks) + of if found.tasks else none}."))
    print_result(f"Score: {draft.own_score or 'the sum of rewards'}, {draft.max_return:g} is a full score.")
    if found.earned > draft.max_return and not draft.own_score:
        more = f"The example alone earns more, {found.earned:g}"
        print_result(f"{more}: set task.max_return to the return of a full score.")
    if found.grader is not None and not draft.own_score:
        said = _cut(json.dumps(found.grader, ensure_ascii=False, default=str))
        has = f"Its grader says {said}" if found.grader else "It has a grader"
        print_result(plain(f'{has}: "grader.FIELD" as task.score judges by its answer.'))
    if found.isolation == "shared":
        print_result("Its sessions share one environment: search.in_flight is 1.")
    print_result(
        f"""
Next:
  python -m lab.doctor {experiment}            # plays two steps with the model
  python -m lab.tune {experiment} --dry-run    # shows the prompts and what a study costs
  python -m lab.tune {experiment}              # tunes, and freezes prompts/best.toml"""
    )


def _cut(text: str) -> str:
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]} [... {len(text) - MOST_SHOWN} more]"


if __name__ == "__main__":
    app()
