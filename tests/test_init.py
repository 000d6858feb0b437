"""`lab.init`: from an environment's location to an experiment that can be tuned, without Python code."""

import json
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import jsonschema
import pytest

from lab.experiment.draft import SCHEMA_FILE
from lab.experiment.experiment import load_experiment
from lab.experiment.json_schema import experiment_schema
from lab.experiment.schema import ExperimentFile
from tests.echo_server import ECHO, ROOT, server
from tests.fake_endpoint import Body, Reply, fake_endpoint
from tests.project import Project
from tests.terminal import Terminal
from tests.test_any_environment import TOOLS

EXPERIMENTS = sorted((ROOT / "experiments").glob("*.toml"))

TALK = """
from typing import Any

from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import Action, Observation, State
from pydantic import Field


class Talk(Action):
    message: str = Field(description="What is said, such as {this}.")


class Heard(Observation):
    heard: str = ""


class Hall(Environment[Talk, Heard, State]):
    SUPPORTS_CONCURRENT_SESSIONS = True

    def reset(self, seed: int | None = None, episode_id: str | None = None, **_: Any) -> Heard:
        return Heard(metadata={"hint": "be kind {always}"})

    def step(self, action: Talk, timeout_s: float | None = None, **_: Any) -> Heard:
        return Heard(heard=action.message, reward=0.5, done=True)

    @property
    def state(self) -> State:
        return State()
"""


QUIZ = """
from typing import Any

from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import Action, Observation, State


class Say(Action):
    message: str


class Asked(Observation):
    {question}: str = ""
    {heard}: str = ""


class Quiz(Environment[Say, Asked, State]):
    SUPPORTS_CONCURRENT_SESSIONS = True

    def reset(self, seed: int | None = None, episode_id: str | None = None, **_: Any) -> Asked:
        return Asked({question}="Which planet of the solar system has the most moons?", metadata={{"at": 0}})

    def step(self, action: Say, timeout_s: float | None = None, **_: Any) -> Asked:
        right = action.message == "Saturn"
        final = {{"grading": {{"score": 0.5}}}} if right else {{}}
        return Asked({heard}="Try again.", reward=float(right), metadata=final)

    @property
    def state(self) -> State:
        return State()
"""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with server("-m", "tests.applications", cwd=ROOT) as url:
        yield url


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project.make(tmp_path / "project")
    project.write("experiments/hall.py", TALK)
    project.write("experiments/sums.py", TOOLS)
    return project


CALL = '{"tool_name": "add", "arguments": {"a": 1, "b": 2}}'

KINDS = {
    "text": ("experiments/hall.py:Hall", "Hello.", "Your reply is sent as it is"),
    "words": ("URL/words", "one", "exactly one of these words, and nothing else: one, two, three"),
    "json": ("URL/union", '{"kind": "say", "number": 1}', "one JSON object of this schema"),
    "tool": (
        "experiments/sums.py:Tools",
        '{"tool_name": "add", "arguments": {"a": 1, "b": 2}}',
        "calls one tool",
    ),
    "hook": ("URL/unnamed", '{"number": 1}', "one JSON object, and nothing else"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_experiment_is_written_for_any_kind_of_action_and_can_be_played(
    project: Project, url: str, kind: str
) -> None:
    where, answer, asked = KINDS[kind]
    about = "Do what {is} asked."
    flags = ("--name", "mine", "--about", about, "--max-steps", "2", "--max-return", "3")
    made = project.run("-m", "lab.init", where.replace("URL", url), *flags)
    assert made.returncode == 0, made.stderr
    assert ("experiments/mine_hooks.py" in made.stdout) is (kind == "hook")
    if kind != "hook":
        assert re.search(r"A step with the example .*: reward [\d.]+", made.stdout), made.stdout
    for command in re.findall(r"python -m (lab\.\w+ \S+)", made.stdout):
        assert command.split()[1] == "experiments/mine.toml"
    text = (project.folder / "experiments/mine.toml").read_text()
    assert {f"[{name}]" for name in ExperimentFile.model_fields if name not in ("about", "seed")} <= set(
        re.findall(r"\[[a-z]+\]", text.replace("[models.small]", "[models]"))
    )
    with fake_endpoint(lambda _: Reply(answer)) as endpoint:
        settings = {"API_BASE_URL": endpoint.url, "MODEL_NAME": "fake"}
        played = project.run("-m", "lab.play", "baseline", "experiments/mine.toml", **settings)
        assert played.returncode == 0, played.stderr
        assert about in played.stdout
        assert asked in played.stdout
        assert "-- The answer" not in played.stdout
        dry = project.run("-m", "lab.tune", "experiments/mine.toml", "--dry-run", **settings)
        assert dry.returncode == 0, dry.stderr
    if kind == "text":
        assert "hint: be kind {always}" in played.stdout
        assert "What is said, such as {this}." in played.stdout


def test_an_episode_of_one_step_has_no_settings_for_earlier_steps(project: Project) -> None:
    made = project.run("-m", "lab.init", "experiments/hall.py:Hall", "--name", "mine", "--max-steps", "1")
    assert made.returncode == 0, made.stderr
    experiment = load_experiment(project.folder / "experiments/mine.toml")
    assert set(experiment.space.free) == {"template", "temperature"}
    texts = (project.folder / "prompts/templates/mine_goal.toml").read_text()
    assert not {"{history}", "{reward}", "{max_steps}"} & set(re.findall(r"{\w+}", texts))


@pytest.mark.parametrize(
    ("where", "full", "told"),
    [
        ("experiments/hall.py:Hall", "0.25", "The example alone earns more, 0.5: set task.max_return"),
        ("experiments/hall.py:Hall", "0.5", ""),
        (ECHO.python, "17", "The example alone earns more, 18: set task.max_return"),
    ],
)
def test_a_full_score_below_what_the_example_earns_is_named(
    project: Project, where: str, full: str, told: str
) -> None:
    made = project.run("-m", "lab.init", where, "--name", "mine", "--max-return", full)
    assert made.returncode == 0, made.stderr
    assert (told in made.stdout) if told else ("The example alone" not in made.stdout)


OFFERED = {
    "listed": [
        {"name": name, "reset": {"task_id": name}} for name in ("from_zero", "from_ten", "from_twenty")
    ],
    "chosen": [{"name": name, "reset": {"difficulty": name}} for name in ("easy", "hard")],
    "open": [{"name": name, "reset": {"task_id": name}} for name in ("1", "2")],
    "required": [{"name": name, "reset": {"task_id": name}} for name in ("from_zero", "from_ten")],
    "stepwise": [{"name": name, "reset": {"task": name}} for name in ("from_zero", "from_ten")],
    "below": [
        {"name": name, "reset": {"task_name": name}} for name in ("from_zero", "from_ten", "from_twenty")
    ],
    "deaf": None,
    "graded": None,
    "named": [{"name": name, "reset": {"difficulty": name}} for name in ("Easy", "Hard")],
}


@pytest.mark.parametrize("name", OFFERED)
def test_the_tasks_are_those_that_the_server_offers_and_plays(project: Project, url: str, name: str) -> None:
    made = project.run("-m", "lab.init", f"{url}/{name}", "--name", "offered", "--max-return", "3")
    assert made.returncode == 0, made.stderr
    assert re.search(r"A step with the example .*: reward [\d.]+", made.stdout), made.stdout
    table = tomllib.loads((project.folder / "experiments/offered.toml").read_text())
    assert table.get("tasks") == OFFERED[name], made.stdout
    assert "score" not in table["task"], "--max-return is a sum of rewards"
    if OFFERED[name] is None:
        assert "Tasks: none of 2 listed can be chosen; name them with --tasks" in made.stdout, made.stdout
    assert table["task"]["max_steps"] == {"listed": 4, "required": 6}.get(name, 10), "of the longest task"


def test_tasks_that_a_server_does_not_list_are_named(project: Project, url: str) -> None:
    where = (f"{url}/unlisted", "--name", "named", "--max-return", "3")
    unnamed = project.run("-m", "lab.init", *where)
    assert (unnamed.returncode, "--tasks NAME,NAME" in unnamed.stderr) == (4, True), unnamed.stderr
    wrong = project.run("-m", "lab.init", *where, "--tasks", "from_ten,from_eleven")
    assert (wrong.returncode, "there is no task from_eleven" in wrong.stderr) == (4, True), wrong.stderr
    made = project.run("-m", "lab.init", *where, "--tasks", "from_ten, from_zero")
    assert re.search(r'A step with the example {"number":1}: reward [\d.]+', made.stdout), made.stderr
    table = tomllib.loads((project.folder / "experiments/named.toml").read_text())
    named = [{"name": name, "reset": {"task": name}} for name in ("from_ten", "from_zero")]
    assert table["tasks"] == named
    assert "begin alike" not in made.stdout + made.stderr
    alike = project.run("-m", "lab.init", f"{url}/silent", "--name", "alike", "--tasks", "one,two")
    told = "All 2 tasks begin alike: see whether reset's 'task_id' chooses them."
    assert told in alike.stdout + alike.stderr, alike.stdout + alike.stderr
    nowhere = project.run("-m", "lab.init", f"{url}/flat", "--name", "none", "--tasks", "one")
    assert (nowhere.returncode, "its reset takes start" in nowhere.stderr) == (2, True), nowhere.stderr


def test_episodes_are_played_one_at_a_time_where_sessions_share_an_environment(
    project: Project, url: str
) -> None:
    for name, in_flight in (("mixed", 1), ("gym", 16)):
        made = project.run("-m", "lab.init", f"{url}/{name}", "--name", name)
        assert ("sessions share one environment" in made.stdout) is (in_flight == 1), made.stderr
        table = tomllib.loads((project.folder / f"experiments/{name}.toml").read_text())
        assert table["search"]["in_flight"] == in_flight


def test_the_score_of_a_grader_is_found_or_shown(project: Project, url: str) -> None:
    # Two answer at once; one publishes what it will answer in the end.
    scores = {"spelled": "grader.score", "headed": "metadata.reward.score", "below": "grader.score"}
    for name, score in scores.items():
        made = project.run("-m", "lab.init", f"{url}/{name}", "--name", name)
        assert f"Score: {score}" in made.stdout, made.stdout + made.stderr
    made = project.run("-m", "lab.init", f"{url}/paid", "--name", "paid")  # each step's, not the episode's
    assert "Score: metadata" not in made.stdout, made.stdout + made.stderr
    made = project.run("-m", "lab.init", f"{url}/unlisted", "--name", "unlisted", "--tasks", "from_zero")
    assert 'It has a grader: "grader.FIELD" as task.score' in made.stdout, made.stdout + made.stderr


@pytest.mark.parametrize(("question", "heard"), [("question", "heard"), ("said", "said")])
def test_a_task_that_only_reset_shows_is_in_every_prompt(project: Project, question: str, heard: str) -> None:
    project.write("experiments/quiz.py", QUIZ.format(question=question, heard=heard))
    made = project.run("-m", "lab.init", "experiments/quiz.py:Quiz", "--name", "quiz", "--max-steps", "3")
    assert made.returncode == 0, made.stderr
    shown = list[bool]()

    def script(body: Body) -> Reply:
        shown.append("Which planet" in json.dumps(body["messages"]))
        return Reply("Saturn")

    with fake_endpoint(script) as endpoint:
        settings = {"API_BASE_URL": endpoint.url, "MODEL_NAME": "fake"}
        played = project.run("-m", "lab.play", "baseline", "experiments/quiz.toml", **settings)
    assert (played.returncode, shown) == (0, 3 * [True]), played.stdout + played.stderr


def test_what_init_writes_is_tuned_and_accepted_by_the_second_phase(tmp_path: Path, url: str) -> None:
    project = Project.make(tmp_path / "project", tracked=True).untracked
    made = project.run("-m", "lab.init", f"{url}/listed", "--name", "listed")
    assert "Tasks: from_zero, from_ten, from_twenty, of 4 listed." in made.stdout, made.stderr
    path = project.folder / "experiments/listed.toml"
    table = tomllib.loads(path.read_text())
    assert (table["task"]["score"], table["task"]["max_steps"]) == ("state.score", 4)
    smaller = {r"^episodes = (\d+)": "episodes = 3", r"^candidates = 4": "candidates = 1"}
    text = path.read_text().replace("calls = 800", "calls = 100")
    for pattern, less in smaller.items():
        text = re.sub(pattern, less, text, flags=re.MULTILINE)
    path.write_text(text)

    def script(body: Body) -> Reply:
        last = int(re.findall(r"last: (\d+)", body["messages"][-1]["content"])[-1])
        return Reply(f'{{"number": {last + 1}}}')

    with fake_endpoint(script) as endpoint:
        settings = {"API_BASE_URL": endpoint.url, "MODEL_NAME": "fake"}
        tuned = project.run("-m", "lab.tune", "experiments/listed.toml", "--quiet", **settings)
        assert tuned.returncode == 0, tuned.stderr
        played = project.run("inference.py", **settings)
    assert played.stdout.count("score=0.750") == 3, played.stdout + played.stderr
    (project.folder / "played.txt").write_text(played.stdout)
    checked = project.run("-m", "lab.check", "played.txt", "--rules", "phase2")
    assert checked.returncode == 0, checked.stdout


def test_existing_files_are_not_overwritten(project: Project) -> None:
    before = (project.folder / "experiments/echo.toml").read_text()
    done = project.run("-m", "lab.init", "experiments/hall.py:Hall", "--name", "echo")
    assert (done.returncode, "already exists" in done.stderr) == (2, True)
    assert (project.folder / "experiments/echo.toml").read_text() == before


@pytest.mark.parametrize(
    ("where", "code", "told"),
    [
        ("", 2, "No environment location given"),
        ("experiments/none.py:Hall", 2, "does not exist"),
        ("http://127.0.0.1:1", 4, "cannot be reached"),
        ("http://user:word@127.0.0.1:1", 2, "must not contain a user and password"),
    ],
)
def test_an_unusable_location_leaves_no_file(project: Project, where: str, code: int, told: str) -> None:
    before = set(project.folder.rglob("*.toml"))
    done = project.run("-m", "lab.init", *([where] if where else []), "--name", "none")
    assert (done.returncode, told in done.stderr) == (code, True), done.stderr
    assert set(project.folder.rglob("*.toml")) == before


def has(question: str) -> Callable[[str], bool]:
    """Whether a terminal shows a question."""
    return lambda text: question in text


def test_at_a_terminal_it_asks_for_what_no_flag_sets(project: Project) -> None:
    command = ("-m", "lab.init", "experiments/hall.py:Hall", "--name", "asked")
    terminal = Terminal.start(project, *command, columns=100, lines=30)
    for question, answer in (("one sentence", "Be kind."), ("maximum number", "7"), ("full score", "3.5")):
        terminal.read(has(question))
        terminal.type(f"{answer}\n")
    terminal.read()
    table = tomllib.loads((project.folder / "experiments/asked.toml").read_text())
    assert table["about"] == "Be kind."
    assert (table["task"]["max_steps"], table["task"]["max_return"]) == (7, 3.5)


def test_the_experiments_that_ship_are_listed(project: Project) -> None:
    told = project.run("-m", "lab.init", "--example").stdout
    assert [line.split()[0] for line in told.splitlines()] == [path.stem for path in EXPERIMENTS]


def test_the_schema_that_ships_is_current() -> None:
    shipped = (ROOT / "experiments" / SCHEMA_FILE).read_text()
    assert shipped == experiment_schema(), "python -m lab.experiment.json_schema > experiments/" + SCHEMA_FILE


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_experiment_names_the_schema_and_validates_against_it(path: Path) -> None:
    text = path.read_text()
    assert text.startswith(f"#:schema ./{SCHEMA_FILE}\n")
    schema, table = json.loads(experiment_schema()), tomllib.loads(text)
    jsonschema.validate(table, schema)
    table["task"]["max_stesp"] = 3
    with pytest.raises(jsonschema.ValidationError, match="max_stesp"):
        jsonschema.validate(table, schema)
