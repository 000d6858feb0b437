"""Fifty kills: a study that is killed at random moments, and goes on each time.

`python -m benchmarks.kills` takes about ten minutes: most of it is Python's start, fifty times. The endpoint
gives the same answer to the same request, so that the winner without kills is known.
"""

# ruff: noqa: T201 - the figures are for people
import hashlib
import random
import sqlite3
import sys
import tempfile
import time
import tomllib
from contextlib import closing
from pathlib import Path

from benchmarks.figures import Row, table
from tests.fake_endpoint import Body, FakeEndpoint, Reply, fake_endpoint
from tests.project import Project
from tests.test_resume import EXPERIMENT

KILLS, CALLS, IN_FLIGHT = 50, 2_000, 6
LONGER = EXPERIMENT.replace("calls = 240", f"calls = {CALLS}")
COMMAND = ("-m", "lab.tune", "experiments/known.toml")


def answer(body: Body) -> Reply:
    """The storyteller is best, and the length follows from the request."""
    time.sleep(0.02)
    length = 200 if "storyteller" in body["messages"][0]["content"] else 100
    return Reply("x" * (length + hashlib.sha256(repr(sorted(body.items())).encode()).digest()[0] % 40))


def rows(project: Project, query: str) -> set[tuple[object, ...]]:
    """A query's rows, none where the record was not begun."""
    path = project.folder / ".lab/calls.db"
    if not path.exists():
        return set()
    with closing(sqlite3.connect(path)) as connection:
        try:
            return set(connection.execute(query))
        except sqlite3.OperationalError:  # killed before the tables were there
            return set()


def kill_one(project: Project, endpoint: FakeEndpoint, chance: random.Random) -> bool:
    """Start the study, and kill it: while it starts, or after some calls; False where it was done before."""
    process = project.start(*COMMAND, API_BASE_URL=endpoint.url, MODEL_NAME="fake")
    before, calls = len(endpoint.requests), chance.randint(0, 60)
    until_s = time.monotonic() + (chance.uniform(0, 5) if chance.random() < 0.2 else 120)
    while len(endpoint.requests) < before + calls and time.monotonic() < until_s and process.poll() is None:
        time.sleep(0.005)
    done = process.poll() is not None
    process.kill()
    process.communicate()
    return not done


def winner(project: Project) -> str:
    """The frozen template's name."""
    table = tomllib.loads((project.folder / "prompts/best.toml").read_text())
    return str(table["candidate"]["template"]["name"])


def twice(project: Project) -> int:
    """Episodes that ended more than once."""
    what = "json_extract(body, '$.digest') || json_extract(body, '$.played.seed')"
    query = f'select count({what}) - count(distinct {what}) from events where body like \'%"kind":"ended"%\''
    ((more,),) = rows(project, query)
    return int(str(more))


def study(folder: Path, kills: int) -> dict[str, object]:
    """One study with so many kills: what was lost, what was made twice, who won."""
    project, chance = Project.make(folder), random.Random(kills)
    project.write("experiments/known.toml", LONGER)
    lost, killed = 0, 0
    kept_calls = kept_episodes = set[tuple[object, ...]]()
    with fake_endpoint(answer) as endpoint:
        while killed < kills and kill_one(project, endpoint, chance):
            killed += 1
            calls = rows(project, "select scope, key, occurrence, text from calls")
            episodes = rows(project, "select number, body from events")
            lost += len(kept_calls - calls) + len(kept_episodes - episodes)
            kept_calls, kept_episodes = calls, episodes
            print(f"{killed} kills, {len(calls)} calls are kept", file=sys.stderr)
        done = project.run(*COMMAND, API_BASE_URL=endpoint.url, MODEL_NAME="fake")
        assert done.returncode == 0, done.stderr
        lost += len(kept_calls - rows(project, "select scope, key, occurrence, text from calls"))
        calls_made = len(rows(project, "select scope, key, occurrence from calls"))
        return {
            "kills": killed,
            "calls kept": calls_made,
            "lost": lost,
            "twice": twice(project),
            "answered while it was killed": len(endpoint.requests) - calls_made,
            "winner": winner(project),
        }


def measure() -> list[Row]:
    """The rows of the table: a study with kills beside one without."""
    with tempfile.TemporaryDirectory() as folder:
        whole, killed = (study(Path(folder) / str(kills), kills) for kills in (0, KILLS))
    same = "the same winner" if killed["winner"] == whole["winner"] else "ANOTHER WINNER"
    figure = (
        f"{killed['lost']} lost, {killed['twice']} made twice, {same}; {killed['calls kept']} calls kept,"
        f" {killed['answered while it was killed']} answered to nobody"
    )
    aim = f"0 lost, 0 twice, same winner; at most {IN_FLIGHT} in flight a kill"
    return [Row(f"{killed['kills']} kills of a study of {CALLS:,} calls", figure, aim)]


if __name__ == "__main__":
    print(table(measure()))
