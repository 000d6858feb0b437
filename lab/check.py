"""The command `python -m lab.check`: checks whether an evaluator would accept a submission's stdout.

It owns how the result is printed; the checks are `lab.submission.checker`'s.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from lab.cli.command import Debug, command_line, manners
from lab.errors import ConfigError
from lab.submission.checker import RULES, Checked, Finding, Rules, check
from lab.submission.stdout import print_result

app = command_line()

MOST_FINDINGS = 20
"""Maximum number printed: a capture of something else has one per line."""


ByRules = Annotated[
    Rules | None, typer.Option("--rules", metavar="|".join(RULES), help="Judge by these rules alone.")
]


@app.command()
def main(
    capture: Annotated[
        str, typer.Argument(metavar="[FILE|-]", help="The captured stdout; - is stdin.")
    ] = "-",
    rules: ByRules = None,
    debug: Debug = False,
) -> None:
    """Check whether an evaluator would accept what a submission printed to stdout.

    It is judged by three sets of rules: sample, the reference script's; phase1, public validators'; phase2,
    the second phase's. docs/contract.md lists them with their sources.

    Exit codes: 0 accepted by the given rules, by default by any; 1 not accepted; 2 no readable capture.

    Examples:

        python inference.py | python -m lab.check

        python -m lab.check capture.txt --rules phase2
    """
    with manners(debug=debug):
        checked = check(_read(capture))
    asked = [rules] if rules else list(RULES)
    told = [_told(finding, asked) for finding in checked.findings]
    for line in told[:MOST_FINDINGS]:
        print_result(line)
    if len(told) > MOST_FINDINGS:
        print_result(f"... and {len(told) - MOST_FINDINGS} more")
    found = f"{_several(checked.episodes, 'episode')}, {_several(checked.steps, 'step')}"
    print_result(f"{verdict(checked, asked)}: {found}.")
    sys.exit(0 if set(asked) & set(checked.accepted_by) else 1)


def _told(finding: Finding, asked: Sequence[Rules]) -> str:
    """A finding as a line, with who refuses it if several are asked."""
    refusing = [rules for rules in asked if rules in finding.refused_by]
    if not refusing:
        return f"line {finding.line}: warning: {finding.what}"
    by = f" (refused by {', '.join(refusing)})" if len(asked) > 1 else ""
    return f"line {finding.line}: {finding.what}{by}"


def verdict(checked: Checked, asked: Sequence[Rules]) -> str:
    """Who accepts a capture."""
    yes = [rules for rules in asked if rules in checked.accepted_by]
    no = [rules for rules in asked if rules not in yes]
    told = [f"accepted by {', '.join(yes)}"] if yes else []
    told += [f"NOT accepted by {', '.join(no)}"] if no else []
    text = "; ".join(told)
    return text[0].upper() + text[1:]


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
