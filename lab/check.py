"""The command `python -m lab.check`: checks whether an evaluator would accept a submission's stdout.

It owns how the result is printed; the checks are `lab.submission.checker`'s.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from lab.cli.command import Debug, command_line, manners
from lab.errors import ConfigError
from lab.submission.checker import check
from lab.submission.stdout import print_result

app = command_line()

MOST_FAULTS = 20
"""Maximum number printed: a capture of something else has one per line."""


@app.command()
def main(
    capture: Annotated[
        str, typer.Argument(metavar="[FILE|-]", help="The captured stdout; - is stdin.")
    ] = "-",
    debug: Debug = False,
) -> None:
    """Check whether an evaluator would accept what a submission printed to stdout.

    Exit codes: 0 accepted, 1 not accepted, 2 no readable capture.

    Examples:

        python inference.py | python -m lab.check

        python -m lab.check capture.txt
    """
    with manners(debug=debug):
        checked = check(_read(capture))
    for fault in checked.faults[:MOST_FAULTS]:
        print_result(f"line {fault.line}: {fault.what}")
    if len(checked.faults) > MOST_FAULTS:
        print_result(f"... and {len(checked.faults) - MOST_FAULTS} more")
    found = f"{_several(checked.episodes, 'episode')}, {_several(checked.steps, 'step')}"
    print_result(f"{'NOT accepted' if checked.faults else 'Accepted'}: {found}.")
    sys.exit(1 if checked.faults else 0)


def _several(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _read(capture: str) -> bytes:
    try:
        if capture == "-" and sys.stdin is None:
            raise OSError("stdin is closed")
        return sys.stdin.buffer.read() if capture == "-" else Path(capture).read_bytes()
    except OSError as error:
        do = "run python inference.py > capture.txt first"
        raise ConfigError("The capture cannot be read.", where=capture, why=str(error), do=do) from None


if __name__ == "__main__":
    app()
