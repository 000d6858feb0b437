"""Fifty kills: a study is killed at random moments, and resumes each time.

`python -m benchmarks.kills` takes about ten minutes, mostly fifty starts of Python. The endpoint gives the
same answer to the same request, so that the winner without kills is known.
"""

# ruff: noqa: T201 - the figures are for people
import argparse
import hashlib
import json
import random
import sqlite3
import sys
import tempfile
import time
import tomllib
from collections import Counter
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
    """An answer whose length depends only on the request; the storyteller is best."""
    time.sleep(0.02)
    length = 200 if "storyteller" in body["messages"][0]["content"] else 100
    return Reply("x" * (length + hashlib.sha256(repr(sorted(body.items())).encode()).digest()[0] % 40))


def rows(project: Project, query: str) -> set[tuple[object, ...]]:
    """A query's rows; empty if the record does not exist yet."""
    path = project.folder / ".lab/calls.db"
    if not path.exists():
        return set()
    with closing(sqlite3.connect(path)) as connection:
        try:
            return set(connection.execute(query))
        except sqlite3.OperationalError:  # killed before the tables were created
            return set()


def kill_one(project: Project, endpoint: FakeEndpoint, chance: random.Random) -> bool:
    """Start the study, and kill it during its start or after some calls; False if it finished before."""
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
    """Name of the frozen template."""
    table = tomllib.loads((project.folder / "prompts/best.toml").read_text())
    return str(table["candidate"]["template"]["name"])


def kept(project: Project) -> Counter[str]:
    """Number of recorded answers by request: some are repeated for several answers."""
    requests = rows(project, "select occurrence, scope, request from calls")
    tables = (json.loads(str(request)) for _, _, request in requests)
    return Counter(_digest(table["messages"], table["sampling"]["temperature"]) for table in tables)


def _digest(messages: object, temperature: float) -> str:
    return hashlib.sha256(json.dumps([messages, temperature], sort_keys=True).encode()).hexdigest()


def study(folder: Path, kills: int) -> dict[str, object]:
    """Run one study with this many kills: losses, repeated calls, and the winner."""
    project, chance = Project.make(folder), random.Random(kills)
    project.write("experiments/known.toml", LONGER)
    lost, again, killed = 0, list[int](), 0
    calls = episodes = set[tuple[object, ...]]()
    with fake_endpoint(answer) as endpoint:
        going = True
        while going:
            before, first = kept(project), len(endpoint.requests)
            if killed < kills:
                going = kill_one(project, endpoint, chance)
                killed += going
            else:
                done = project.run(*COMMAND, API_BASE_URL=endpoint.url, MODEL_NAME="fake")
                assert done.returncode == 0, done.stderr
                going = False
            requests = endpoint.requests[first:]
            asked = Counter(_digest(body["messages"], body["temperature"]) for body in requests)
            again.append((asked - (kept(project) - before)).total())
            calls_now = rows(project, "select scope, key, occurrence, text from calls")
            episodes_now = rows(project, "select id, digest, seed, episode from episodes")
            lost += len(calls - calls_now) + len(episodes - episodes_now)
            calls, episodes = calls_now, episodes_now
            print(f"{killed} kills, {len(calls)} calls recorded", file=sys.stderr)
    return {
        "kills": killed,
        "calls kept": len(calls),
        "lost": lost,
        "twice": sum(max(0, one - IN_FLIGHT) for one in again[:-1]) + again[-1],
        "in flight": sum(again),
        "winner": winner(project),
    }


def measure() -> list[Row]:
    """Measure a study with kills and one without, and return the rows of the table."""
    with tempfile.TemporaryDirectory() as folder:
        whole, killed = (study(Path(folder) / str(kills), kills) for kills in (0, KILLS))
    same = "the same winner" if killed["winner"] == whole["winner"] else "ANOTHER WINNER"
    figure = (
        f"{killed['lost']} calls or episodes lost, {killed['twice']} recorded calls repeated, {same};"
        f" {killed['calls kept']:,} calls recorded, {killed['in flight']} in flight at a kill and repeated"
    )
    aim = f"0 lost, 0 repeated, same winner; at most {IN_FLIGHT} in flight per kill"
    return [Row(f"{killed['kills']} kills of a study of {CALLS:,} calls", figure, aim)]


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    print(table(measure()))
