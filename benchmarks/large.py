"""A large study at an endpoint that answers at once: calls per second of its search, and memory.

`python -m benchmarks.large` takes about four minutes: 200 templates, 50 tasks of one step,
any temperature, with MLflow. A template's worth is the length of its answers.
"""

# ruff: noqa: T201 - the figures are for people
import asyncio
import random
import re
import resource
import sqlite3
import sys
import tempfile
from contextlib import closing
from pathlib import Path

from benchmarks.figures import Row, table
from benchmarks.load import completion, endpoint, serve
from tests.project import Project

TEMPLATES, TASKS = 200, 50
SIZES = (3_000, 6_000)
"""Calls of the two studies, of which memory is compared."""

ENVIRONMENT = """
import random
from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import Action, Observation, State

class Say(Action):
    text: str

class Heard(Observation):
    text: str = ""

class Hall(Environment):
    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self):
        super().__init__()
        self._state, self._noise = State(), 0.0

    def reset(self, seed=None, episode_id=None, task=0, **_):
        self._noise = random.Random(1000 * (seed or 0) + task).gauss(0, 1)
        return Heard(text=f"Task {task}: say something.", reward=0.0)

    def step(self, action: Say, timeout_s=None, **_):
        return Heard(text="Thank you.", reward=len(action.text) / 10 + self._noise, done=True)

    @property
    def state(self):
        return self._state
"""

EXPERIMENT = """
about = "A large study."

[environment]
python = "hall.py:Hall"

[task]
name = "hall"
benchmark = "large"
max_steps = 1
max_tokens = 20
max_return = 10.0
success_score = 0.5

{tasks}

[baseline]
template = "t000"
temperature = 0.7
max_tokens = 20
history = 0

[model]
endpoint = "{url}"
name = "m"

[space]
template = [{templates}]
temperature = {{ low = 0.0, high = 1.0 }}

[budget]
calls = {calls}

[search]
episodes = {several}
in_flight = 32

[confirmation]
candidates = 2
episodes = {several}

[verdict]
episodes = {several}
"""

TEMPLATE = '''
about = "Helper {number}."
system = """
You are helper {number}, {manner} and {mood}."""
turn = """
{{observation.text}}"""
'''
MANNERS = ("brief", "polite", "loud", "slow", "learned")
MOODS = ("glad", "calm", "stern", "sleepy", "eager", "proud", "shy")


def answer(request: bytes) -> bytes:
    """A completion whose length depends on the template, and on chance."""
    found = re.search(rb"helper (\d+)", request)
    number = int(found[1]) if found else 0
    return completion("x" * max(1, round(random.gauss(20 + number * 37 % 101 / 5, 10))))


def study(url: str, calls: int) -> tuple[float, float, float]:
    """Calls per second of the search, its seconds, and the maximum memory in MB of all studies so far."""
    names = [f"t{number:03}" for number in range(TEMPLATES)]
    with tempfile.TemporaryDirectory() as folder:
        project = Project.make(Path(folder), tracked=True)
        for number, name in enumerate(names):
            manner, mood = MANNERS[number % len(MANNERS)], MOODS[number % len(MOODS)]
            text = TEMPLATE.format(number=number, manner=manner, mood=mood)
            project.write(f"prompts/templates/{name}.toml", text)
        project.write("experiments/hall.py", ENVIRONMENT)
        tasks = "\n".join(f'[[tasks]]\nname = "k{one}"\nreset = {{ task = {one} }}' for one in range(TASKS))
        templates = ", ".join(f'"{name}"' for name in names)
        text = EXPERIMENT.format(tasks=tasks, templates=templates, calls=calls, several=TASKS, url=url)
        project.write("experiments/large.toml", text)
        command = ("-m", "lab.tune", "experiments/large.toml")
        done = project.afresh.run(*command, API_KEY="none")
        assert done.returncode == 0, done.stderr[-2000:]
        with closing(sqlite3.connect(project.folder / ".lab/calls.db")) as store:
            search = "select count(*), max(at) - min(at) from episodes where seed < 100000"
            episodes, seconds = store.execute(search).fetchone()
    peak_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return episodes / seconds, seconds, peak_mb


def measure() -> list[Row]:
    """Play both studies, and return the rows."""
    rows, peaks = [], []
    with endpoint("benchmarks.large") as url:
        for calls in SIZES:
            rate, seconds, peak_mb = study(url, calls)
            peaks.append(peak_mb)
            what = (
                f"search of {calls:,} calls, {TEMPLATES} templates, {TASKS} tasks, 32 in flight, with MLflow"
            )
            rows.append(Row(what, f"{rate:.0f} calls/s in {seconds:.0f} s", "at least 250"))
    each_kb = (peaks[1] - peaks[0]) * 1024 / (SIZES[1] - SIZES[0])
    after = f"{peaks[1]:.0f} MB; after {SIZES[0]:,}, {peaks[0]:.0f} MB: {each_kb:.2f} KB per call"
    return [*rows, Row(f"maximum memory in {SIZES[1]:,} calls", after, "flat")]


def main() -> None:
    """Serve, or measure."""
    match sys.argv[1:]:
        case ["serve"]:
            asyncio.run(serve(0.0, answer))
        case []:
            print(table(measure()))
        case _:
            print(__doc__)


if __name__ == "__main__":
    main()
