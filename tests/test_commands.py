"""The commands as a user runs them: help, completions, output, error messages."""

import csv
import json
import os
import random
import re
import shlex
import subprocess
import sys
import tomllib
from collections import Counter
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from lab.__main__ import COMMANDS, app
from lab.agent.evaluation import Evaluation
from lab.cli.command import manners
from lab.cli.head_to_head import claim, least_pairs
from tests.echo_server import ROOT, free_port
from tests.fake_endpoint import Body, Reply, fake_endpoint
from tests.project import Project
from tests.test_verdict import compared, evaluation

HEAVY = {"mlflow", "optuna", "dspy", "gepa", "openenv", "openai", "scipy", "numpy", "sqlalchemy"}

KEY = "canary-key"


def told_truth(body: Body) -> Reply:
    """The essayist, the project's frozen template, writes twice as much; all others are equal."""
    length = 200 if "academic essays" in body["messages"][0]["content"] else 100
    return Reply("\x1b[31m".ljust(length, "x"))


def lines_of(text: str) -> list[str]:
    """The commands in a help text or a page."""
    return [line.strip() for line in text.splitlines() if re.match(r"\s*python (-m lab\.|inference)", line)]


DOCUMENTED = lines_of((ROOT / "docs/commands.md").read_text())


@dataclass(frozen=True)
class Documented:
    """A project in which every line of `docs/commands.md` was run, in order, with each result."""

    project: Project
    runs: dict[str, "subprocess.CompletedProcess[str]"]

    def out(self, start: str) -> str:
        return next(
            done.stdout for line, done in self.runs.items() if line.startswith(f"python -m lab.{start}")
        )


@pytest.fixture(scope="module")
def documented(tmp_path_factory: pytest.TempPathFactory) -> Documented:
    project = Project.make(tmp_path_factory.mktemp("documented") / "project")
    with fake_endpoint(told_truth) as endpoint:
        settings = {"API_BASE_URL": endpoint.url, "MODEL_NAME": "big", "HF_TOKEN": KEY}
        runs = {line: project.run_line(line, **settings) for line in DOCUMENTED}
    return Documented(project, runs)


def test_every_documented_command_runs(documented: Documented) -> None:
    assert len(documented.runs) >= 10
    for line, done in documented.runs.items():
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        assert KEY not in done.stdout + done.stderr
        assert "\x1b" not in done.stdout, "an escape of the model's reached the terminal"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_exists_and_its_examples_parse(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"lab.{name}", "--help"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    examples = lines_of(done.stdout)
    assert examples
    for line in (*examples, *DOCUMENTED):
        command = line.split("|")[-1].strip()
        if command.startswith(f"python -m lab.{name}"):
            parse(name, shlex.split(command)[3:])


def parse(name: str, arguments: list[str]) -> None:
    group = typer.main.get_command(app)
    with group.make_context("lab", [name, *arguments]) as context:
        command = group.get_command(context, name)  # type: ignore[attr-defined]
        command.make_context(name, arguments).close()


def test_every_command_is_documented() -> None:
    assert {name for name in COMMANDS if any(f"lab.{name}" in line for line in DOCUMENTED)} == set(COMMANDS)


def test_no_help_imports_heavy_packages() -> None:
    code = f"""
import sys
import tomllib
from typer.testing import CliRunner
from lab.__main__ import COMMANDS, app
for name in ([], *([name] for name in COMMANDS)):
    result = CliRunner().invoke(app, [*name, "--help"])
    assert result.exit_code == 0, result.output
print(sorted({HEAVY!r} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("lab co", {"compare"}),
        ("lab play f", {"frozen"}),
        (
            "lab tune experiments/",
            {f"experiments/{path.name}" for path in (ROOT / "experiments").glob("*.toml")},
        ),
        ("lab show --j", {"--json"}),
    ],
)
def test_the_shell_completes(words: str, offered: set[str]) -> None:
    place = str(len(words.split()) - 1)
    environ = {**os.environ, "_LAB_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": place}
    done = subprocess.run(
        [sys.executable, "-m", "lab"], cwd=ROOT, env=environ, capture_output=True, text=True, check=False
    )
    assert set(done.stdout.split()) == offered


def test_a_misspelt_command_suggests_the_one_that_was_meant() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lab", "sow"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "did you mean show?" in done.stderr


def test_show_has_the_evidence_and_first_only_the_differences(documented: Documented) -> None:
    page = documented.out("show")
    evidence, difference, rest = re.split(r"\n(?:Against the baseline|System text)\n", page)
    assert "Frozen: trial-024 returns more than the baseline on unseen episodes: 726.2 (+294.2" in evidence
    assert re.search(r"\+68 %; 95 % interval \[\+253\.\d, \+335\.\d\]\), n = 16 .*, p = 3\.1e-05", evidence)
    assert re.search(r"^  temperature +0\.7 -> 0\.24$", difference, re.MULTILINE)
    assert "max_tokens" not in difference
    assert "-Write the next message." in difference
    assert "max_tokens = 150" in rest
    assert " free, " in rest  # the embedded model


def test_show_prints_json_for_programs(documented: Documented) -> None:
    (line,) = (line for line in DOCUMENTED if line.endswith("--json"))
    table = json.loads(documented.runs[line].stdout)
    assert table["evidence"]["outcome"] == "baseline"
    assert table["baseline"] == table["candidate"]
    assert table["differs"] == {}
    assert table["provenance"]["dollars"] is None


def test_show_says_that_the_baseline_is_gone(tmp_path: Path) -> None:
    project = Project.make(tmp_path / "project")
    (project.folder / "experiments/echo.toml").unlink()
    done = project.run("-m", "lab.show")
    assert done.returncode == 0
    assert "The baseline is unknown: The experiment file does not exist." in done.stdout


def test_export_prints_the_trials_and_the_episodes_as_csv(documented: Documented) -> None:
    texts = [done.stdout for line, done in documented.runs.items() if line.startswith("python -m lab.export")]
    trials, episodes = ([*csv.DictReader(text.splitlines())] for text in texts)
    assert {row["trial"] for row in trials} >= {"baseline", "trial-001"}
    assert [int(row["place"]) for row in trials] == [*range(1, len(trials) + 1)]
    assert all(row["template"] and float(row["temperature"]) >= 0 for row in trials)
    assert {row["phase"] for row in episodes} == {"search", "confirmation", "holdout"}
    searched = Counter(row["trial"] for row in episodes if row["phase"] == "search")
    assert searched == {row["trial"]: int(row["episodes"]) for row in trials if row["episodes"] != "0"}


@pytest.mark.parametrize("command", ["lab", *(f"lab.{name}" for name in COMMANDS)])
def test_every_command_has_a_version_and_a_short_help(command: str) -> None:
    applied = app if command == "lab" else import_module(command).app
    told = CliRunner().invoke(applied, ["--version"])
    assert (told.exit_code, told.output) == (0, f"prompt-lab {version('prompt-lab')}\n")
    helped = CliRunner().invoke(applied, ["-h"])
    assert (helped.exit_code, "Usage: " in helped.output) == (0, True), helped.output


def test_play_shows_each_step_with_its_messages(documented: Documented) -> None:
    told = documented.out("play baseline")
    steps = told.split("== Step ")[1:]
    assert [step[0] for step in steps] == list("12345678")
    assert "[system]\nThis is a plain echo environment" in steps[0]
    assert "[user]\nStep: 2\nLast echoed message: \\x1b[31mxx" in steps[1]
    assert "-- reward 10.00, so far 20.00; 10 tokens in, 5 out; " in steps[1]
    assert "Return 80.00 in 8 steps, score 0.667; 80 tokens in, 40 out" in told


def test_play_plays_a_trial_of_the_last_study(documented: Documented) -> None:
    assert "Playing 1 on big" in documented.out("play 1")
    where = re.search(r" at (http://\S+),", documented.out("play 1"))
    assert where
    settings = {"API_BASE_URL": where[1], "MODEL_NAME": "big"}
    done = documented.project.run("-m", "lab.play", "trial-999", "experiments/smoke.toml", **settings)
    assert done.returncode == 2
    assert "The study has no trial 'trial-999'" in done.stderr


def test_play_plays_a_trial_at_the_endpoint_that_a_variable_names(documented: Documented) -> None:
    done = documented.project.run(
        *("-m", "lab.play", "1", "experiments/smoke.toml"),
        API_BASE_URL="http://127.0.0.1:9/v1",
        MODEL_NAME="big",
    )
    assert done.returncode == 3
    assert "no server is listening" in done.stderr


def test_compare_finds_a_real_difference(documented: Documented) -> None:
    told = documented.out("compare frozen")
    assert re.search(
        r"^return +160\.0 \[160\.0, 160\.0\], n = 16 +80\.0 \[80\.0, 80\.0\], n = 16$", told, re.MULTILINE
    )
    assert (
        "frozen returns more than baseline: 160.0 (+80.0 vs. baseline, +100 %; 95 % interval [+80.0, +80.0]),"
        " n = 16 episodes each, p = 3.1e-05." in told
    )
    assert re.search(r"^temperature +0\.24 +0\.7$", told, re.MULTILINE)
    assert "max_tokens" not in told
    assert re.search(r"^dollars per episode +price unknown +price unknown$", told, re.MULTILINE)


def test_compare_claims_nothing_of_equals(documented: Documented) -> None:
    told = documented.out("compare 1")
    assert (
        "No difference between 1 and baseline is shown: 50.0 (0 vs. baseline; 95 % interval [0, 0])" in told
    )
    assert "), n = 6 episodes each, p = 1." in told


def test_noise_is_claimed_as_a_difference_in_at_most_5_of_100_comparisons() -> None:
    rng, rounds = random.Random(5), 300
    claims = [
        claim("a", "b", compared(noise(rng, 400), noise(rng, 400))[0], 0.95).startswith("a returns")
        for _ in range(rounds)
    ]
    assert sum(claims) / rounds <= 0.05 + 3 * (0.05 * 0.95 / rounds) ** 0.5


def test_a_worse_candidate_is_called_worse_and_too_few_pairs_inconclusive() -> None:
    rng = random.Random(1)
    (worse,) = compared(noise(rng, 500), noise(rng, 400))
    assert claim("a", "b", worse, 0.95).startswith("a returns less than b: ")
    (few,) = compared(evaluation("b", {1: 5, 2: 5}), evaluation("a", {1: 1, 2: 1}))
    assert claim("a", "b", few, 0.95).endswith("use --episodes 6 or more.")
    assert (least_pairs(0.95), least_pairs(0.99)) == (6, 8)


def noise(rng: random.Random, mean: float) -> Evaluation:
    return evaluation("one", {seed: rng.gauss(mean, 50) for seed in range(12)})


MISTAKES = {
    "a candidate": (("play", "basline"), "did you mean baseline?"),
    "a trial": (("play", "trail-3"), "did you mean trial-3?"),
    "no study": (("play", "3"), "try: python -m lab.tune experiments/echo.toml"),
    "an experiment": (("play", "baseline", "experiments/ecko.toml"), "did you mean experiments/echo.toml?"),
    "a key": (
        ("tune", "experiments/key.toml"),
        "key.toml:35, space.temprature\n  try: did you mean temperature?",
    ),
    "a template": (("tune", "experiments/template.toml"), "did you mean lecturer?"),
    "syntax": (
        ("compare", "baseline", "frozen", "experiments/syntax.toml"),
        "experiments/syntax.toml:2",
    ),
    "a frozen key": (("show", "frozen.toml"), "frozen.toml:19, candidate.sampling.temprature"),
    "frozen syntax": (("show", "syntax.toml"), "where: syntax.toml:1"),
    "too many tokens": (("compare", "baseline", "frozen", "experiments/smoke.toml"), "the task allows 30"),
}


@pytest.fixture(scope="module")
def mistaken(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project.make(tmp_path_factory.mktemp("mistaken") / "project")
    echo = (project.folder / "experiments/echo.toml").read_text()
    project.write("experiments/key.toml", echo.replace("temperature = {", "temprature = {"))
    project.write("experiments/template.toml", echo.replace('"lecturer"', '"lecturr"'))
    project.write("experiments/syntax.toml", 'about = "x"\nseed = = 0\n')
    best = (project.folder / "prompts/best.toml").read_text()
    project.write("frozen.toml", best.replace("temperature =", "temprature ="))
    project.write("syntax.toml", "format 2\n")
    return project


@pytest.mark.parametrize(("command", "told"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_reported_with_a_suggestion(
    mistaken: Project, command: tuple[str, ...], told: str
) -> None:
    name, *arguments = command
    done = mistaken.run("-m", f"lab.{name}", *arguments)
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 4
    assert done.stdout == ""
    assert not (mistaken.folder / ".lab/calls.db").exists(), "nothing is made where nothing is read"


def doctor(project: Project, **settings: str) -> tuple[int, dict[str, str]]:
    """The exit code, and the mark of each line by its subject."""
    done = project.run("-m", "lab.doctor", **settings)
    assert "Traceback" not in done.stderr, done.stderr
    assert KEY not in done.stdout + done.stderr
    found = re.findall(r"^(ok|FAIL|-) +(MLflow store|\w+) ", done.stdout, re.MULTILINE)
    return done.returncode, {about: mark for mark, about in found}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project.make(tmp_path / "project")


def test_the_doctor_finds_a_wrong_key(project: Project) -> None:
    with fake_endpoint(lambda _: Reply(status=401, message=f"no such key: {KEY}")) as endpoint:
        code, marks = doctor(project, API_BASE_URL=endpoint.url, MODEL_NAME="big", HF_TOKEN=KEY)
    assert code == 3
    assert [about for about, mark in marks.items() if mark == "FAIL"] == ["key"]
    assert marks["model"] == "-"


def test_the_doctor_finds_no_endpoint_and_a_broken_store(project: Project) -> None:
    project.write("mlflow.db", "this is no database, and long enough to be taken for one")
    nowhere = f"http://127.0.0.1:{free_port()}/v1"
    code, marks = doctor(project, API_BASE_URL=nowhere, MODEL_NAME="big", HF_TOKEN=KEY)
    assert code == 3
    assert [about for about, mark in marks.items() if mark == "FAIL"] == ["endpoint", "MLflow store"]
    assert marks["key"] == "-"


def test_the_doctor_finds_a_model_without_a_name_and_has_a_line_for_all(project: Project) -> None:
    code, marks = doctor(project, API_BASE_URL="https://host.invalid/v1")
    assert code == 2
    assert [about for about, mark in marks.items() if mark == "FAIL"] == ["model"]
    assert (marks["endpoint"], marks["key"]) == ("-", "-")


def test_the_doctor_finds_an_unknown_model(project: Project) -> None:
    with fake_endpoint(lambda _: Reply(status=404)) as endpoint:
        code, marks = doctor(project, API_BASE_URL=endpoint.url, MODEL_NAME="huge", HF_TOKEN=KEY)
    assert code == 3
    assert [about for about, mark in marks.items() if mark == "FAIL"] == ["model"]


def test_the_doctor_finds_no_environment(project: Project) -> None:
    with fake_endpoint() as endpoint:
        where = f"http://127.0.0.1:{free_port()}"
        code, marks = doctor(project, API_BASE_URL=endpoint.url, MODEL_NAME="big", ENV_BASE_URL=where)
    assert code == 4
    assert [about for about, mark in marks.items() if mark == "FAIL"] == ["environment"]


def test_the_doctor_continues_without_an_experiment(project: Project) -> None:
    (project.folder / "experiments/echo.toml").unlink()
    code, marks = doctor(project)
    assert code == 2
    assert marks["experiment"] == "FAIL"
    assert marks["environment"] == "-"
    assert marks["disk"] == "ok"


def test_a_bug_in_the_lab_shows_no_traceback_without_debug(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, manners(debug=False):
        raise KeyError("x")
    assert ended.value.code == 1
    err = capsys.readouterr().err
    assert "KeyError: 'x'" in err
    assert "--debug" in err
    with pytest.raises(KeyError), manners(debug=True):
        raise KeyError("x")


def test_the_installed_command_is_the_entry_point() -> None:
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())
    module, name = table["project"]["scripts"]["lab"].split(":")
    assert callable(getattr(import_module(module), name))


@pytest.mark.parametrize("command", [("play", "frozen"), ("compare", "frozen", "baseline")])
def test_an_endpoint_that_is_down_is_an_error(mistaken: Project, command: tuple[str, ...]) -> None:
    name, *arguments = command
    nowhere = {"API_BASE_URL": "http://127.0.0.1:9/v1", "MODEL_NAME": "m"}
    done = mistaken.run("-m", f"lab.{name}", *arguments, **nowhere)
    assert done.returncode == 3
    assert "no server is listening" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 5
