"""The command `python -m lab.check`: checks whether an evaluator would accept a submission.

It owns how the result is printed; what is checked of stdout is `lab.submission.checker`'s, and of the rest of
a project `lab.submission.project`'s.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from lab.cli.command import Debug, Version, command_line, manners
from lab.errors import ConfigError, plain
from lab.stats.format import count
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
        str, typer.Argument(metavar="[FILE|-|FOLDER]", help="The captured stdout; - is stdin.")
    ] = "-",
    rules: ByRules = None,
    project: Annotated[
        bool, typer.Option("--project", help="Check a project's folder, by default this one, and run it.")
    ] = False,
    debug: Debug = False,
    _version: Version = False,
) -> None:
    """Check whether an evaluator would accept what a submission printed to stdout.

    It is judged by three sets of rules: sample, the reference script's; phase1, public validators'; phase2,
    the second phase's. docs/contract.md lists them with their sources.

    With --project, what evaluators look for besides stdout: inference.py, openenv.yaml and Dockerfile; then
    inference.py is run once as they run it, with an injected API_BASE_URL and API_KEY that lead to the
    endpoint that is set, or to the embedded model.

    Exit codes: 0 accepted by the given rules, by default by any; 1 not accepted; 2 no readable capture; with
    --project also 3 endpoint or key.

    Examples:

        python inference.py | python -m lab.check

        python -m lab.check capture.txt --rules phase2

        python -m lab.check --project --rules phase2
    """
    asked = [rules] if rules else list(RULES)
    with manners(debug=debug):
        if project:
            passed = _check_project(Path("." if capture == "-" else capture), asked)
        else:
            passed = _check_capture(_read(capture), asked)
    sys.exit(0 if passed else 1)


def _check_capture(data: bytes, asked: Sequence[Rules]) -> bool:
    """Print the findings of a capture, and which rules accept it; returns whether any do."""
    checked = check(data)
    _print_findings(checked, asked)
    found = f"{count(checked.episodes, 'episode')}, {count(checked.steps, 'step')}"
    print_result(f"{verdict(checked, asked)}: {found}.")
    return bool(set(asked) & set(checked.accepted_by))


def _check_project(folder: Path, asked: Sequence[Rules]) -> bool:
    """Print what a project's files and a run of it look like; returns whether all is well."""
    from lab.llm.settings import EMBEDDED, ModelChoice, read_surroundings
    from lab.local_model.weights import MODEL_ID
    from lab.submission.project import SCRIPT, Look, files, opened_endpoint, played, run

    failed = 0

    def tell(look: Look) -> None:
        nonlocal failed
        failed += look.passed is False
        mark = {True: "ok", None: "warn", False: "FAIL"}[look.passed]
        print_result(plain(f"{mark:<4}  {look.about:<9} {look.said}"))

    for look in files(folder):
        tell(look)
    if not (folder / SCRIPT).is_file():
        return False
    read_surroundings(folder)
    with opened_endpoint(folder, ModelChoice(EMBEDDED, MODEL_ID)) as endpoint:
        done = run(folder, endpoint)
    checked = check(done.stdout)
    _print_findings(checked, asked)
    for look in played(done, checked):
        tell(look)
    tell(Look("output", verdict(checked, asked), passed=bool(set(asked) & set(checked.accepted_by))))
    print_result("All checks passed." if not failed else f"{count(failed, 'check')} failed.")
    return not failed


def _print_findings(checked: Checked, asked: Sequence[Rules]) -> None:
    told = [_told(finding, asked) for finding in checked.findings]
    for line in told[:MOST_FINDINGS]:
        print_result(line)
    if len(told) > MOST_FINDINGS:
        print_result(f"... and {len(told) - MOST_FINDINGS} more")


def _told(finding: Finding, asked: Sequence[Rules]) -> str:
    """A finding as a line, with the rules that refuse it if several are asked."""
    refusing = [rules for rules in asked if rules in finding.refused_by]
    if not refusing:
        return f"line {finding.line}: warning: {finding.what}"
    by = f" (refused by {', '.join(refusing)})" if len(asked) > 1 else ""
    return f"line {finding.line}: {finding.what}{by}"


def verdict(checked: Checked, asked: Sequence[Rules]) -> str:
    """Which rules accept a capture."""
    yes = [rules for rules in asked if rules in checked.accepted_by]
    no = [rules for rules in asked if rules not in yes]
    told = [f"accepted by {', '.join(yes)}"] if yes else []
    told += [f"NOT accepted by {', '.join(no)}"] if no else []
    text = "; ".join(told)
    return text[0].upper() + text[1:]


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
