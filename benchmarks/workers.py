"""Workers on one PostgreSQL: twenty of them killed, and the speedup of four over one.

`python -m benchmarks.workers` takes about ten minutes. Everything runs on this machine: the endpoint, which
waits 200 ms and accepts any load, the database, and the workers.
"""

# ruff: noqa: T201 - the figures are for people
import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.figures import Row, table
from benchmarks.kills import LONGER, answer, winner
from benchmarks.load import endpoint as patient_endpoint
from tests.fake_endpoint import FakeEndpoint, fake_endpoint
from tests.postgres import Postgres, postgres, rows
from tests.project import Project

WORKERS, KILLS, BUDGET = 4, 20, 2_000
WINDOW_S = 30.0
ENDLESS = LONGER.replace(f"calls = {BUDGET}", "calls = 1000000").replace("max_steps = 4", "max_steps = 8")
COMMAND = ("-m", "lab.tune", "experiments/known.toml", "--worker")

Worker = subprocess.Popen[str]


VERDICTS = "select count(*) from public.study_user_attributes where key = 'judged'"


def start(project: Project, address: str, url: str) -> Worker:
    """Start one more worker."""
    return project.start(*COMMAND, API_BASE_URL=url, MODEL_NAME="m", LAB_STORAGE=address)


def count(address: str, table: str, where: str = "true") -> int:
    """Number of rows of a table; 0 if it does not exist yet."""
    try:
        return int(str(rows(address, f"select count(*) from lab.{table} where {where}")[0][0]))
    except Exception:  # the first worker has not created the tables yet
        return 0


def ended(address: str, since_s: float = 0.0) -> int:
    """Number of episodes that ended since then."""
    return count(address, "episodes", f"kind = 'ended' and at >= {since_s}")


def kept(address: str) -> set[tuple[object, ...]]:
    """All recorded calls and episodes, none of which may be lost."""
    if not count(address, "studies"):
        return set()
    calls = rows(address, "select scope, key, occurrence::text from lab.calls")
    return set(calls) | set(rows(address, "select id::text, digest, seed::text, worker from lab.episodes"))


def kill(server: Postgres, folder: Path, kills: int) -> dict[str, object]:
    """Run a study by four workers, some of which are killed at random moments and replaced."""
    project, address, chance = Project.make(folder), server.database(), random.Random(7)
    project.write("experiments/known.toml", LONGER)
    with fake_endpoint(answer) as endpoint:
        team = [start(project, address, endpoint.url) for _ in range(WORKERS)]
        killed, lost, before = 0, 0, set[tuple[object, ...]]()
        while killed < kills and all(one.poll() is None for one in team):
            _wait_for(endpoint, chance.randint(10, 60), team)
            place = chance.randrange(WORKERS)
            if team[place].poll() is not None:
                break
            team[place].kill()
            team[place].communicate()
            killed += 1
            team[place] = start(project, address, endpoint.url)
            now = kept(address)
            lost, before = lost + len(before - now), now
            print(f"{killed} kills, {len(endpoint.requests)} calls", file=sys.stderr)
        codes = [_ended(one) for one in team]
        calls = count(address, "calls")
        return {
            "kills": killed,
            "lost": lost + len(before - kept(address)),
            "calls kept": f"{calls} of {BUDGET}",
            "answered while it was killed": len(endpoint.requests) - calls,
            "episodes that ended twice": ended(address) - _distinct(address),
            "verdicts": int(str(rows(address, VERDICTS)[0][0])),
            "exit codes": sorted(codes),
            "winner": winner(project),
        }


def speed(server: Postgres, folder: Path, workers: int, url: str) -> float:
    """Episodes per second of this many workers, once all of them play."""
    project, address = Project.make(folder), server.database()
    project.write("experiments/known.toml", ENDLESS)
    with _team(project, address, url, workers):
        while len(_players(address)) < workers:
            time.sleep(0.5)
        time.sleep(5)
        began_s = time.time()
        time.sleep(WINDOW_S)
        return ended(address, began_s) / (time.time() - began_s)


@contextmanager
def _team(project: Project, address: str, url: str, workers: int) -> Iterator[None]:
    team = [start(project, address, url) for _ in range(workers)]
    try:
        yield
    finally:
        for one in team:
            one.terminate()
        for one in team:
            one.communicate()


def _players(address: str) -> set[object]:
    if not count(address, "studies"):
        return set()
    return {row[0] for row in rows(address, "select distinct worker from lab.calls")}


def _distinct(address: str) -> int:
    return len(rows(address, "select distinct digest, seed from lab.episodes where kind = 'ended'"))


def _wait_for(endpoint: FakeEndpoint, calls: int, team: list[Worker]) -> None:
    goal, until_s = len(endpoint.requests) + calls, time.monotonic() + 60
    while len(endpoint.requests) < goal and time.monotonic() < until_s:
        if any(one.poll() is not None for one in team):
            return
        time.sleep(0.01)


def _ended(worker: Worker) -> int:
    _, errors = worker.communicate()
    if worker.returncode:
        print(errors, file=sys.stderr)
    return worker.returncode


AIM = "0 lost, budget kept, one verdict, for storyteller as without kills"


def measure() -> list[Row]:
    """Measure, and return the rows of the table."""
    with tempfile.TemporaryDirectory() as folder, postgres() as server:
        killed = kill(server, Path(folder) / "kills", KILLS)
        with patient_endpoint() as url:
            rates = {
                number: speed(server, Path(folder) / str(number), number, url) for number in (1, WORKERS)
            }
    figure = (
        f"{killed['lost']} lost, {killed['episodes that ended twice']} episodes ended twice;"
        f" {killed['calls kept']} calls recorded, {killed['answered while it was killed']} answered to a"
        f" worker during its kill; {killed['verdicts']} verdict, for {killed['winner']};"
        f" exit codes {killed['exit codes']}"
    )
    ratio = rates[WORKERS] / rates[1]
    return [
        Row(
            f"{WORKERS} workers on PostgreSQL, {KILLS} kills",
            figure,
            AIM,
        ),
        Row(
            f"episodes/s of {WORKERS} workers relative to one, at 200 ms per call, {WINDOW_S:g} s each",
            f"{ratio:.2f} times: {rates[WORKERS]:.1f}, one {rates[1]:.1f}",
            "at least 3.5",
        ),
    ]


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    print(table(measure()))
