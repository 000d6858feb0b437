"""An endpoint that fails three of ten calls in ways that a retry solves, compared with a reliable one.

`python -m benchmarks.failing` takes about two minutes. The answers depend only on the requests, so that the
winner without failures is known.
"""

# ruff: noqa: T201 - the figures are for people
import argparse
import random
import sqlite3
import tempfile
import threading
from collections import Counter
from contextlib import closing
from pathlib import Path

from benchmarks.figures import Row, table
from benchmarks.kills import COMMAND, LONGER, answer, winner
from tests.fake_endpoint import Body, Reply, fake_endpoint
from tests.project import Project
from tests.test_tune import FAULTS, HASTY

SHARE = 0.3


def study(folder: Path, share: float) -> tuple[str, Counter[str], Counter[str]]:
    """Run a study in which a share of the attempts fails: its winner; failures sent and recorded."""
    project, chance, lock, sent = Project.make(folder), random.Random(5), threading.Lock(), Counter[str]()
    experiment = LONGER.replace("calls = 2000", "calls = 800").replace(*HASTY)
    project.write("experiments/known.toml", experiment)

    def script(body: Body) -> Reply:
        with lock:
            fails, (reply, what) = chance.random() < share, chance.choice(FAULTS)
            sent[what] += fails
        return reply if fails else answer(body)

    with fake_endpoint(script) as endpoint:
        done = project.run(*COMMAND, API_BASE_URL=endpoint.url, MODEL_NAME="fake")
    assert done.returncode == 0, done.stderr
    with closing(sqlite3.connect(project.folder / ".lab/calls.db")) as record:
        recorded = Counter(dict(record.execute("select what, count(*) from failures group by what")))
    return winner(project), sent, recorded


def measure() -> list[Row]:
    """Measure, and return the rows of the table."""
    with tempfile.TemporaryDirectory() as folder:
        whole, _, _ = study(Path(folder) / "whole", 0.0)
        failing, sent, recorded = study(Path(folder) / "failing", SHARE)
    same = "the same winner" if failing == whole else f"ANOTHER WINNER: {failing} instead of {whole}"
    missing = (sent - recorded).total() + (recorded - sent).total()
    what = f"{SHARE:.0%} of the calls fail, in {len(FAULTS)} ways"
    counts = f"{sent.total():,} failures sent, {recorded.total():,} on record"
    figure = f"{same}; {counts}, {missing} of them as another kind"
    return [Row(what, figure, "same winner, all failures recorded with their kind")]


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    print(table(measure()))
