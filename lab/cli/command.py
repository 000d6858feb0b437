"""Command conventions: what every `python -m lab.<name>` shares.

An expected error is printed to stderr and sets the exit code; `--debug` adds the traceback. Results are
printed by `lab.submission.stdout.print_result`; everything else goes to stderr. What a command does is in
its own module.
"""

import asyncio
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from typer.models import ArgumentInfo

from lab.errors import LabError, first_of, plain
from lab.submission.stdout import take_stdout

INTERRUPTED = 130

Debug = Annotated[bool, typer.Option("--debug", help="Show Python's traceback of an error.")]

EndpointUrl = Annotated[
    str,
    typer.Option(
        "--endpoint",
        metavar="URL",
        help="The model's endpoint; confirms that the key may be sent there.",
        show_default="API_BASE_URL, or the experiment's",
    ),
]

StudyName = Annotated[
    str,
    typer.Option(
        "--study",
        metavar="NAME",
        help="Name of a study, also of another experiment; `lab studies` lists them.",
        show_default="the experiment's last one",
    ),
]

Storage = Annotated[
    str,
    typer.Option(
        envvar="LAB_STORAGE",
        help="postgresql://USER:PASSWORD@HOST:PORT/DATABASE, for studies on several machines. "
        "Set it in LAB_STORAGE to keep the password out of process lists.",
        show_default="a file, .lab/calls.db",
        show_envvar=True,
    ),
]


def say(text: str) -> None:
    """Print a line to stderr, with terminal escapes made visible."""
    typer.echo(plain(text), err=True)


def _experiments() -> list[str]:
    """Shell completions of experiment files; Typer keeps those with the prefix."""
    return sorted(map(str, Path("experiments").glob("*.toml")))


def _contenders() -> list[str]:
    """Shell completions of candidates; listing trials would require reading the study, which is too slow."""
    return ["frozen", "baseline", "trial-"]


Experiment = Annotated[
    Path, typer.Argument(metavar="EXPERIMENT", help="The experiment file.", autocompletion=_experiments)
]

ExperimentOrNone = Annotated[
    Path | None,
    typer.Argument(
        metavar="EXPERIMENT",
        help="The experiment file.",
        show_default="the frozen prompt's, or experiments/echo.toml",
        autocompletion=_experiments,
    ),
]


def who(metavar: str) -> ArgumentInfo:
    """The argument that names a candidate, by `lab.cli.contenders`'s names."""
    names = "frozen, baseline, a trial's number or name, or the path of a frozen file."
    info: ArgumentInfo = typer.Argument(metavar=metavar, help=names, autocompletion=_contenders)
    return info


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"prompt-lab {version('prompt-lab')}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
]

HELP = {"help_option_names": ["-h", "--help"]}
"""Context settings of every command."""


def command_line() -> typer.Typer:
    """A Typer application for one command, which also takes `_version: Version`, last."""
    return typer.Typer(context_settings=HELP, add_completion=False, pretty_exceptions_enable=False)


@contextmanager
def manners(*, debug: bool, interrupted: str = "Stopped.") -> Iterator[None]:
    """Run a command's body: print an error, or `interrupted` after Ctrl-C, and set the exit code."""
    take_stdout()
    try:
        yield
    except (BrokenPipeError, typer.Exit, typer.Abort, typer.BadParameter):
        raise  # Typer's own; a closed stdout ends the command quietly
    except BaseException as raised:  # foreign code may raise SystemExit in a task
        error = first_of(raised)
        if isinstance(error, KeyboardInterrupt | asyncio.CancelledError):
            typer.echo(interrupted, err=True)
            sys.exit(INTERRUPTED)
        if not isinstance(error, LabError):
            if debug:
                raise error  # noqa: B904  # with its own cause
            why, do = f"{type(error).__name__}: {error}", "run the same command with --debug to see where"
            error = LabError("The lab itself failed.", why=why, do=do)
        elif debug:
            traceback.print_exception(error)
        typer.echo(str(error), err=True)
        sys.exit(error.exit_code)
