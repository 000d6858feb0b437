"""An endpoint that fails three calls in ten, in every way that is told apart, and the winner without that.

`python -m benchmarks.failing` takes about two minutes. The answers follow from the requests, so that the
winner without failures is known.
"""

# ruff: noqa: T201 - the figures are for people
import random
import sqlite3
import tempfile
import threading
from contextlib import closing
from pathlib import Path

from benchmarks.figures import Row, table
from benchmarks.kills import COMMAND, LONGER, answer, winner
from tests.fake_endpoint import Body, Reply, fake_endpoint
from tests.project import Project
from tests.test_tune import FAULTS

SHARE = 0.3


def study(folder: Path, share: float) -> tuple[str, int, int]:
    """A study where so large a share of the attempts fails: its winner, failures sent, failures recorded."""
    project, chance, lock, sent = Project.make(folder), random.Random(5), threading.Lock(), [0]
    project.write("experiments/known.toml", LONGER.replace("calls = 2000", "calls = 800"))

    def script(body: Body) -> Reply:
        with lock:
            fails, fault = chance.random() < share, chance.choice(FAULTS)
            sent[0] += fails
        return fault if fails else answer(body)

    with fake_endpoint(script) as endpoint:
        done = project.run(*COMMAND, API_BASE_URL=endpoint.url, MODEL_NAME="fake")
    assert done.returncode == 0, done.stderr
    with closing(sqlite3.connect(project.folder / ".lab/calls.db")) as record:
        ((recorded,),) = record.execute("select count(*) from failures")
    return winner(project), sent[0], int(recorded)


def measure() -> list[Row]:
    """The rows of the table."""
    with tempfile.TemporaryDirectory() as folder:
        whole, _, _ = study(Path(folder) / "whole", 0.0)
        failing, sent, recorded = study(Path(folder) / "failing", SHARE)
    same = "the same winner" if failing == whole else f"ANOTHER WINNER: {failing} for {whole}"
    what = f"{SHARE:.0%} of the calls fail, in {len(FAULTS)} ways"
    return [
        Row(what, f"{same}; {sent:,} failures sent, {recorded:,} on record", "same winner, all on record")
    ]


if __name__ == "__main__":
    print(table(measure()))
