"""Forty random studies, interrupted at random moments: what they lose, exceed or leave.

`python -m benchmarks.interruptions` takes about ten minutes. Studies differ in their limit, the length of
their episodes, concurrency, sampler, pruner, phases and proposals. Each is killed or terminated up to three
times, and resumed; half of those with a limit of calls or tokens get twice as many once they have finished.
"""

# ruff: noqa: T201 - the figures are for people
import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.figures import Row, table
from benchmarks.kills import COMMAND, answer, rows
from tests.fake_endpoint import Body, FakeEndpoint, Reply, fake_endpoint
from tests.project import TIMEOUT_S, Project
from tests.test_endings import SHORT
from tests.test_resume import EXPERIMENT, UNUSED
from tests.test_tune import champion, is_proposal

STUDIES, MOST = 40, 3
"""Number of studies, and maximum interruptions of one."""

PROPOSALS = """
[proposals]
proposer = "{proposer}"
rounds = 2
texts = 2
"""


@dataclass(frozen=True)
class Case:
    """A random study.

    Attributes:
        calls: Its limit, also if it is given in other units.
        spare: Calls of the limit that may be left: those reserved for the verdict, and an episode's.
    """

    text: str
    kind: str
    calls: int
    spare: int

    def raised(self) -> "Case":
        """The study with twice its limit."""
        limit = {"calls": self.calls, "tokens": 20 * self.calls}[self.kind]
        text = self.text.replace(f"{self.kind} = {limit}", f"{self.kind} = {2 * limit}")
        return replace(self, text=text, calls=2 * self.calls)


@dataclass(frozen=True)
class End:
    """How a study ended.

    Attributes:
        interruptions: Number of processes that were interrupted.
        unfinished: Number of paid calls of episodes that were not finished.
        faults: What went wrong, in a word each.
        raised: Whether its limit was raised once it had finished.
    """

    interruptions: int
    unfinished: int
    faults: tuple[str, ...]
    raised: bool = False


def case_of(chance: random.Random) -> Case:
    """A study with a limit that leaves room for a search."""
    is_short, verdict = chance.random() < 0.5, chance.choice((2, 6, 12))
    steps = chance.choice((6, 20) if is_short else (1, 4, 12))
    contenders, confirmed = chance.choice(((1, 2), (2, 3), (3, 4)))
    first, sampler = chance.choice((3, 5, 8)), chance.choice(("race", "race", "race", "tpe", "random"))
    in_flight = chance.choice((1, 3, 8, 24))
    pruner = "race" if sampler == "race" else chance.choice(("race", "median", "none"))
    reserved = (contenders * confirmed + 2 * verdict) * steps
    calls = reserved + (first + chance.randrange(4, 40)) * steps
    kind = chance.choice(("calls", "calls", "tokens", "minutes"))
    limit = {"calls": calls, "tokens": 20 * calls, "minutes": 0.15}[kind]
    changes = {
        "calls = 240": f"{kind} = {limit}",
        "max_steps = 4": f"max_steps = {steps}",
        "max_return = 120.0": f"max_return = {30.0 * steps}",
        "high = 1.0": "high = 2.0",  # with fewer candidates, a study might play all of them
        "history = 1": f"history = {min(steps - 1, 1)}",
        "in_flight = 6": f'in_flight = {in_flight}\nsampler = "{sampler}"\npruner = "{pruner}"',
        "headroom = 5": f"headroom = {first}",
        "candidates = 2\nepisodes = 3": f"candidates = {contenders}\nepisodes = {confirmed}",
        "[verdict]\nepisodes = 6": f"[verdict]\nepisodes = {verdict}",
    }
    if is_short:
        changes["lab.environments.echo.server.echo_environment:EchoEnvironment"] = "short:Short"
    text = EXPERIMENT
    for before, now in changes.items():
        text = text.replace(before, now)
    if chance.random() < 0.3:
        text += PROPOSALS.format(proposer=chance.choice(("dspy", "gepa")))
    return Case(text, kind, calls, reserved + steps)


def reply(body: Body) -> Reply:
    """A proposer's text, or an answer that depends only on the request."""
    return champion(body) if is_proposal(body) else answer(body)


def a_study(number: int, folder: Path) -> End:
    """Run one study, with its interruptions, to its end."""
    chance = random.Random(f"interruptions {number}")
    case, project = case_of(chance), Project.make(folder / str(number)).untracked
    project.write("short.py", SHORT)
    with fake_endpoint(reply) as endpoint:
        ends = [_to_the_end(case, chance, project, endpoint)]
        if case.kind != "minutes" and chance.random() < 0.5:
            ends.append(_to_the_end(case.raised(), chance, project, endpoint))
            ends[-1] = replace(ends[-1], raised=True)
    if len(rows(project, "select name from studies")) > 1:
        ends[-1] = replace(ends[-1], faults=(*ends[-1].faults, "no verdict"))
    faults = tuple(fault for end in ends for fault in end.faults)
    return replace(ends[-1], interruptions=sum(end.interruptions for end in ends), faults=faults)


def _to_the_end(case: Case, chance: random.Random, project: Project, endpoint: FakeEndpoint) -> End:
    interruptions, faults = 0, list[str]()
    project.write("experiments/known.toml", case.text)
    environ = {"API_BASE_URL": endpoint.url, "MODEL_NAME": "fake"}
    for _ in range(chance.randint(0, MOST)):
        process = project.start(*COMMAND, **environ)
        enough = len(endpoint.requests) + chance.randint(1, case.calls)
        while len(endpoint.requests) < enough and process.poll() is None:
            time.sleep(0.005)
        interruptions += process.poll() is None
        process.send_signal(chance.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM)))
        faults += ["stuck"] * (_printed(process) is None)
    last = project.start(*COMMAND, **environ)
    printed = _printed(last)
    if last.returncode:
        faults.append("stuck" if printed is None else "no verdict")
    calls = len(rows(project, "select scope, key, occurrence from calls"))
    unfinished = rows(project, f"select * from calls where {UNUSED} and scope <> 'proposals'")
    if case.kind == "calls":
        faults += ["over the limit"] * (calls > case.calls)
        faults += ["unspent"] * (calls < case.calls - case.spare)
    if faults:
        print(project.folder.name, case, calls, faults, printed, file=sys.stderr)
    return End(interruptions, len(unfinished), tuple(faults))


def _printed(process: "subprocess.Popen[str]") -> str | None:
    """What a process printed until its end; None if it was stuck, and killed."""
    try:
        return "".join(process.communicate(timeout=TIMEOUT_S))
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return None


def measure() -> list[Row]:
    """Measure, and return the row of the table."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        ends = list(pool.map(lambda number: a_study(number, Path(folder)), range(STUDIES)))
    faults = [fault for end in ends for fault in end.faults]
    kinds = ("stuck", "no verdict", "over the limit", "unspent")
    figure = (
        f"{', '.join(f'{faults.count(kind)} {kind}' for kind in kinds)};"
        f" {sum(end.unfinished for end in ends)} paid calls of unfinished episodes"
    )
    raised, interruptions = sum(end.raised for end in ends), sum(end.interruptions for end in ends)
    what = f"{STUDIES} random studies, {interruptions} interruptions, {raised} continued after their verdict"
    return [Row(what, figure, "all 0; unspent: more than the verdict's share and an episode")]


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    print(table(measure()))
