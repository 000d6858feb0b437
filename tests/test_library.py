"""The public API, used as a Python program or a notebook uses it, on a scripted endpoint."""

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import lab
from lab.environments.given import give
from lab.submission.frozen import read_frozen
from tests.echo_server import ROOT
from tests.fake_endpoint import FakeEndpoint, fake_endpoint
from tests.project import TIMEOUT_S, Project
from tests.reference import PAGE, page
from tests.test_commands import HEAVY
from tests.test_endings import dearer_after
from tests.test_resume import a_project, by_the_request, holding_after, settings

PROGRAM = """
import asyncio
import json

import lab


async def notebook():
    study = await lab.run_study_async("experiments/known.toml", quiet=True)
    same = lab.run_study(lab.Experiment.load("experiments/known.toml"), quiet=True)
    assert same == study
    return study


study = asyncio.run(notebook())
assert lab.run_study("experiments/known.toml", quiet=True) == lab.load_study(study.name) == study
assert lab.load_study("experiments/known.toml") == study
frozen, frame, best = study.freeze("mine.toml"), study.to_pandas(), study.best
episodes = study.episodes(best)
assert lab.load_frozen("mine.toml") == frozen
assert frozen.candidate == best.candidate
assert study.episodes(best.name) == study.episodes(best.number) == episodes
try:
    study.episodes("trial-999")
except lab.LabError as error:
    mistake = str(error)
print(json.dumps({
    "claim": study.claim,
    "text": str(study),
    "repr": repr(study),
    "html": study._repr_html_(),
    "winner": study.verdict.winner.trial.name,
    "best": best.name,
    "trials": [trial.name for trial in study.trials],
    "frame": json.loads(frame.to_json(orient="records")),
    "seeds": [episode.seed for episode in episodes],
    "texts": [step.action for step in episodes[0].steps],
    "mistake": mistake,
}))
"""


@dataclass(frozen=True)
class Ran:
    """A program that ran a study: what it printed, and its project and endpoint."""

    project: Project
    endpoint: FakeEndpoint
    told: dict[str, Any]
    err: str


def run(project: Project, endpoint: FakeEndpoint, program: str) -> "subprocess.CompletedProcess[str]":
    project.write("program.py", program)
    return project.run("-m", "program", **settings(endpoint))


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    project = a_project(tmp_path_factory.mktemp("ran") / "project")
    with fake_endpoint(by_the_request) as endpoint:
        done = run(project, endpoint, PROGRAM)
        assert done.returncode == 0, done.stderr
        yield Ran(project, endpoint, json.loads(done.stdout), done.stderr)


def test_importing_the_lab_imports_nothing_heavy() -> None:
    code = f"""
import sys
import lab
dir(lab)
print(sorted({HEAVY!r} & set(sys.modules)), [name for name in sys.modules if name.startswith("lab.")])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[] []", done.stdout + done.stderr


def test_every_public_name_exists_and_says_what_it_is() -> None:
    for name in lab.__all__:
        assert getattr(lab, name).__doc__, name
    assert set(lab.__all__) <= set(dir(lab))
    assert (ROOT / "lab/py.typed").exists()
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = lab.nothing


def test_a_study_runs_inside_and_outside_an_event_loop_and_is_played_once(ran: Ran) -> None:
    assert ran.err == "", "a quiet study shows no progress"
    assert len(ran.endpoint.requests) <= 240
    assert ran.told["claim"].startswith(f"Frozen: {ran.told['winner']} returns more")
    assert ran.told["text"].startswith(ran.told["claim"])
    assert ran.told["claim"] in ran.told["repr"]


def test_the_trials_are_a_list_a_frame_and_a_table(ran: Ran) -> None:
    trials, frame = ran.told["trials"], ran.told["frame"]
    assert "baseline" in trials
    assert [row["trial"] for row in frame] == trials
    assert [row["place"] for row in frame] == sorted(row["place"] for row in frame)
    assert all(row["return"] > 40 for row in frame if row["episodes"])
    assert {row["template"] for row in frame} == {"reference", "storyteller", "lecturer"}
    held_out = {row["trial"]: row["holdout"] for row in frame if row["holdout"] is not None}
    assert set(held_out) >= {"baseline", ran.told["winner"]}
    evidence = read_frozen(ran.project.folder / "mine.toml").evidence
    assert held_out[ran.told["winner"]] == pytest.approx(evidence.frozen_return)
    confirmed = {row["trial"] for row in frame if row["confirmation"] is not None}
    assert ran.told["winner"] in confirmed
    assert "baseline" not in confirmed
    assert f"<b>{ran.told['repr'].split()[1].rstrip(':')}</b>" in ran.told["html"]
    assert f"<td>{ran.told['best']}</td>" in ran.told["html"]


def test_the_best_is_the_winner_with_its_episodes_and_texts(ran: Ran) -> None:
    assert ran.told["best"] == ran.told["winner"]
    assert ran.told["seeds"] == sorted(set(ran.told["seeds"]))
    assert sum(seed >= 1_000_000 for seed in ran.told["seeds"]) == 6, "the holdout's are among them"
    assert [set(text) for text in ran.told["texts"]] == [{"x"}] * 4
    assert "The study has no trial 'trial-999'." in ran.told["mistake"]


def test_an_agent_of_a_frozen_prompt_plays_in_ones_own_program(ran: Ran) -> None:
    program = """
import asyncio
import lab


async def main():
    agent = lab.Agent.from_frozen("mine.toml")
    try:
        await agent.act("x")
    except lab.LabError as error:
        assert "not open" in str(error)
    async with agent:
        actions = [await agent.act("ready"), await agent.act("so it was", reward=3.0)]
        episode = await agent.play(seed=7)
        agent.reset()
        assert await agent.act("ready") == actions[0]
    frozen = lab.load_frozen("mine.toml")
    assert frozen.messages("ready")[-1]["role"] == "user"
    said = lab.Step(1, actions[0], "so it was", 3.0, done=False)
    print(frozen.messages("ready", [said])[-1]["content"] == frozen.messages("ready")[-1]["content"])
    print(len(episode.steps), episode.seed)


asyncio.run(main())
"""
    before = len(ran.endpoint.requests)
    done = run(ran.project, ran.endpoint, program)
    assert (done.returncode, done.stdout) == (0, "False\n4 7\n"), done.stderr
    asked = [body["messages"] for body in ran.endpoint.requests[before:]]
    frozen = read_frozen(ran.project.folder / "mine.toml")
    assert asked[0] == frozen.messages("ready")
    assert ran.endpoint.requests[before] == {
        "model": frozen.model.name,
        "messages": frozen.messages("ready"),
        **frozen.parameters,
    }
    second = lab.Step(1, by_the_request(ran.endpoint.requests[before]).text or "", "so it was", 3.0, False)
    assert asked[1] == frozen.messages("ready", [second])
    assert "Last reward: 3.00" in asked[1][-1]["content"] or "reward 3.00" in asked[1][-1]["content"]


def test_a_gain_on_the_holdout_overrules_a_warm_up_test_that_saw_none(ran: Ran) -> None:
    """The study has a winner; its result with such a warm-up test gives no advice to widen the space."""
    program = """
from dataclasses import replace
from pathlib import Path

import numpy as np

from lab.search.headroom import headroom
from lab.study.past_study import Which, reading
from lab.verdict.summary import summary

with reading(Which(Path("experiments/known.toml"))) as past:
    blind = replace(past.outcome, headroom=headroom(np.array([[1.0, 2.0], [2.0, 1.0]]), np.eye(2)))
    kept = replace(blind, verdict=replace(blind.verdict, winner=None))
    print(*("Warm-up test" in summary(one, None, None) for one in (blind, kept)))
"""
    done = run(ran.project, ran.endpoint, program)
    assert done.stdout == "False True\n", done.stderr


def test_an_experiment_is_made_of_plain_objects(tmp_path: Path) -> None:
    loaded = lab.Experiment.load(ROOT / "experiments/echo.toml")
    mine = lab.PromptTemplate("mine", "Talk.", "{observation}")
    table = {**loaded.table, "budget": {"calls": 900}, "space": {"template": ["reference", "mine"]}}
    made = lab.Experiment.from_table(table, "small", templates=[mine], root=ROOT)
    assert (made.name, made.budget.calls) == ("small", 900)
    assert made.space.templates["mine"] == mine
    assert made.task == loaded.task
    with pytest.raises(lab.LabError, match="Unknown key 'bugdet'"):
        lab.Experiment.from_table({**loaded.table, "bugdet": {}}, "small", root=ROOT)
    with pytest.raises(lab.LabError, match="cannot be written as TOML"):
        lab.Experiment.from_table({**loaded.table, "seed": None}, "small", root=ROOT)
    with pytest.raises(lab.LabError, match="not an experiment's name"):
        lab.Experiment.from_table(loaded.table, "../small", root=tmp_path)


GIVEN = """
import asyncio
import lab
from lab.environments.echo.server.echo_environment import EchoEnvironment


def experiment(pay):
    class Mine(EchoEnvironment):
        pass

    def reward(action, observation):
        assert observation.echoed_message == action.message
        return pay * len(action.message)

    known = lab.Experiment.load("experiments/known.toml")
    return lab.Experiment.from_table(known.table, "given", environment=Mine, reward=reward)


async def play():
    async with lab.Agent.from_frozen("given.toml") as agent:
        return await agent.play()


study = lab.run_study(experiment(0.01), quiet=True)
assert lab.run_study(experiment(0.01), quiet=True) == study
assert all(4 <= one <= 10 for one in study.to_pandas()["return"].dropna()), study.to_pandas()
frozen = study.freeze("given.toml")
print(frozen.environment.python)
print(asyncio.run(play()).episode_return)
"""


def test_an_environment_and_a_reward_are_given_as_python_objects(tmp_path: Path) -> None:
    project = a_project(tmp_path / "project")
    with fake_endpoint(by_the_request) as endpoint:
        done = run(project, endpoint, GIVEN)
        assert done.returncode == 0, done.stderr
        name, returned = done.stdout.splitlines()
        assert re.fullmatch(r"lab\.environments\.given:Mine_[0-9a-f]{8}", name)
        assert 4 <= float(returned) <= 10
        other = project.run("-m", "lab.play", "given.toml", **settings(endpoint))
    assert other.returncode == 2
    assert "only the program that passed this environment as a Python object can play it" in other.stderr


def test_another_source_is_another_environment_and_a_reward_needs_a_class() -> None:
    class Mine:
        async def step(self, action: int) -> lab.Step:
            return lab.Step(action, "", "", 0.0, done=False)

    first, again, other = give(Mine), give(Mine), give(Mine, lambda _, seen: seen.reward)
    assert first == again != other
    table = lab.Experiment.load(ROOT / "experiments/echo.toml").table
    with pytest.raises(lab.LabError, match="A reward needs the environment's class"):
        lab.Experiment.from_table(table, "given", reward=lambda *_: 1.0)


INTERRUPTED = """
import asyncio
import lab


async def cell():
    return lab.run_study("experiments/known.toml", quiet=True)


print(asyncio.new_event_loop().run_until_complete(cell()).claim)
"""


def test_ctrl_c_in_a_notebook_stops_the_study_and_the_same_cell_resumes(tmp_path: Path) -> None:
    project = a_project(tmp_path / "project")
    with fake_endpoint(by_the_request) as endpoint:
        project.write("program.py", INTERRUPTED)
        with holding_after(endpoint, 40) as reached:
            process = project.start("-m", "program", **settings(endpoint))
            assert reached.wait(TIMEOUT_S)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=TIMEOUT_S)
        assert (process.returncode != 0, out) == (True, "")
        assert err.rstrip().endswith("KeyboardInterrupt")
        done = run(project, endpoint, INTERRUPTED)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Frozen: ")


NOTEBOOK = """
import ast
import asyncio
import inspect
import json
import os
from pathlib import Path

os.chdir("docs")
cells = json.loads(Path("notebook.ipynb").read_text())["cells"]
names = {"__name__": "__main__"}


async def run(tree, mode):
    code = compile(tree, "cell", mode, ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    value = eval(code, names)
    return await value if inspect.iscoroutine(value) else value


async def notebook():
    for text in ("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"):
        *lines, last = ast.parse(text).body
        is_shown = isinstance(last, ast.Expr)
        await run(ast.Module(lines if is_shown else [*lines, last], []), "exec")
        if is_shown:
            value = await run(ast.Expression(last.value), "eval")
            print(value._repr_html_() if hasattr(value, "_repr_html_") else value)


asyncio.run(notebook())
"""
"""Runs the notebook's cells in order, in one namespace and a running event loop, as a kernel does."""


def test_the_notebook_runs(tmp_path: Path) -> None:
    project = a_project(tmp_path / "project")
    shutil.copy(ROOT / "docs/notebook.ipynb", project.write("docs/notebook.ipynb", ""))
    with fake_endpoint(by_the_request) as endpoint:
        done = run(project, endpoint, NOTEBOOK)
    assert done.returncode == 0, done.stderr
    assert re.search(r"<p><b>notebook-\d+-\d+</b>: ", done.stdout)
    assert done.stdout.endswith("True\n")
    assert (project.folder / ".lab/notebook.toml").exists()


def test_the_reference_is_what_the_docstrings_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "python -m tests.reference writes it"


UNFINISHED = """
from dataclasses import replace

import lab

experiment = lab.Experiment.load("experiments/known.toml")
try:
    lab.run_study(replace(experiment, seed=5))
except lab.LabError as error:
    assert "was changed after it was read" in str(error), error
table = {**experiment.table, "budget": {"tokens": 3600}}
study = lab.run_study(lab.Experiment.from_table(table, "short"))
assert study.verdict is None
assert study.claim == f"The study {study.name} has no verdict yet."
assert study.best == study.trials[0]
assert study.experiment.table == table
try:
    study.freeze("none.toml")
except lab.LabError as error:
    print(error)
"""


def test_a_study_without_a_verdict_has_trials_and_freezes_nothing(tmp_path: Path) -> None:
    project = a_project(tmp_path / "project")
    with fake_endpoint(dearer_after(60, 2_000)) as endpoint:
        done = run(project, endpoint, UNFINISHED)
    assert done.returncode == 0, done.stderr
    assert "The study is unfinished: no verdict yet." in done.stdout
    assert "Study short-" in done.stderr, "progress is shown"
    assert not (project.folder / "none.toml").exists()
