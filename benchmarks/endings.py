"""Eighty endings: each of the four limits of a budget ends a study at a random moment, twenty times.

`python -m benchmarks.endings` takes about ten minutes, mostly Python's start. Every study must end with a
verdict, or say why it has none and offer the best of its search; the frozen file must be readable. A limit of
calls ends a study early only if it is lowered after a kill; tokens and dollars if answers become more
expensive during the study; minutes if they are few.
"""

# ruff: noqa: T201 - the figures are for people
import argparse
import random
import re
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import Row, table
from benchmarks.kills import COMMAND, answer, rows
from lab.storage.keys import CONFIRMATION, HOLDOUT
from lab.submission.frozen import read_frozen
from tests.fake_endpoint import Body, FakeEndpoint, Reply, fake_endpoint
from tests.project import Project
from tests.test_resume import EXPERIMENT

TIMES, DEARER, LEAST_CALLS = 20, 3, 92
"""Endings per limit; factor by which answers become more expensive; lowest allowed limit of calls."""

LIMITS = {
    "calls": "calls = 240",
    "tokens": "tokens = 3600",
    "dollars": "dollars = 0.0036",
    "minutes": "minutes = {minutes:.3f}",
}
PRICED = ('name = "fake"', 'name = "fake"\ndollars_in = 1.0\ndollars_out = 1.0')


@dataclass(frozen=True)
class Ending:
    """The end of one study: its phase, the number of planned pairs played, and the exit code."""

    phase: str
    pairs: int
    code: int
    sound: bool


def an_ending(kind: str, number: int, folder: Path) -> Ending:
    """Run one study until the limit `kind` ends it."""
    chance = random.Random(f"{kind} {number}")
    project = Project.make(folder / f"{kind}-{number}")
    limit = LIMITS[kind].format(minutes=chance.uniform(0.01, 0.15))
    text = EXPERIMENT.replace("calls = 240", limit)
    project.write("experiments/known.toml", text.replace(*PRICED) if kind == "dollars" else text)
    turn = chance.randint(1, 235)
    with fake_endpoint(_dearer_after(turn) if kind in ("tokens", "dollars") else answer) as endpoint:
        if kind == "calls":
            _kill_after(project, endpoint, turn)
            lowered = max(LEAST_CALLS, turn + chance.randint(0, 60))
            project.write("experiments/known.toml", text.replace("calls = 240", f"calls = {lowered}"))
        done = project.run(*COMMAND, API_BASE_URL=endpoint.url, MODEL_NAME="fake")
        sound = "Traceback" not in done.stderr and "itself failed" not in done.stderr
        if done.returncode == 5:
            sound = sound and "NOT VALIDATED" in done.stdout and "budget." in done.stdout
            again = project.run(
                *COMMAND, "--freeze-unvalidated", API_BASE_URL=endpoint.url, MODEL_NAME="fake"
            )
            sound = sound and again.returncode == 0
    frozen = read_frozen(project.folder / "prompts/best.toml")
    sound = sound and frozen.provenance.experiment == "known" and done.returncode in (0, 5)
    if not sound:
        print(done.stdout, done.stderr, file=sys.stderr)
    fewer = re.search(r"on (\d+) of 6 planned", done.stdout)
    pairs = 0 if done.returncode else int(fewer[1]) if fewer else 6
    return Ending(_phase(project), pairs, done.returncode, sound)


def _dearer_after(turn: int) -> Callable[[Body], Reply]:
    made, lock = [0], threading.Lock()

    def script(body: Body) -> Reply:
        reply = answer(body)
        with lock:
            made[0] += 1
            reply.prompt_tokens *= DEARER if made[0] > turn else 1
        return reply

    return script


def _kill_after(project: Project, endpoint: FakeEndpoint, calls: int) -> None:
    process = project.start(*COMMAND, API_BASE_URL=endpoint.url, MODEL_NAME="fake")
    while len(endpoint.requests) < calls and process.poll() is None:
        time.sleep(0.005)
    process.kill()
    process.communicate()


def _phase(project: Project) -> str:
    """The last phase in which a candidate other than the baseline ended an episode."""
    latest = max((int(str(seed)) for (seed,) in rows(project, "select seed from episodes")), default=0)
    return "holdout" if latest >= HOLDOUT else "confirmation" if latest >= CONFIRMATION else "search"


def measure() -> list[Row]:
    """Measure, and return a row for each limit."""
    found = list[Row]()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        for kind in LIMITS:
            studies = range(TIMES)
            endings = list(pool.map(lambda number, kind=kind: an_ending(kind, number, Path(folder)), studies))
            found.append(_row(kind, endings))
            print(table(found[-1:]), file=sys.stderr)
    return found


def _row(kind: str, endings: list[Ending]) -> Row:
    whole = sum(one.pairs == 6 for one in endings)
    fewer = sorted(one.pairs for one in endings if 0 < one.pairs < 6)
    none = sum(one.pairs == 0 for one in endings)
    phases = Counter(one.phase for one in endings)
    reached = ", ".join(f"{phases[phase]} in the {phase}" for phase in ("search", "confirmation", "holdout"))
    figure = (
        f"{whole} verdicts on all 6 pairs, {len(fewer)} on fewer ({', '.join(map(str, fewer)) or 'none'}),"
        f" {none} not validated and frozen on demand; last episode {reached};"
        f" {sum(not one.sound for one in endings)} without a result"
    )
    return Row(
        f"{len(endings)} endings by budget.{kind}", figure, "a verdict, or the reason and the best so far"
    )


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    print(table(measure()))
