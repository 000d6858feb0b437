"""Every command and snippet in README and docs runs or loads, or is listed here with its test."""

import re
import shlex
import tomllib
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest
import tomli_w
import yaml
from pydantic import BaseModel
from typer.main import get_command

from lab import tune
from lab.__main__ import COMMANDS
from lab.agent.template import load_template
from lab.environments.echo.server.app import MAX_SESSIONS
from lab.experiment.experiment import load_experiment
from lab.experiment.schema import ExperimentFile
from tests.echo_server import ROOT
from tests.fake_endpoint import Body, Reply, fake_endpoint
from tests.project import Project
from tests.test_commands import DOCUMENTED

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

ELSEWHERE = {
    "make": "CI is `make setup` and `make test`; what the others run is test_main_job's",
    "pip install": "the Makefile's own",
    "mlflow ui": "test_browser",
    "mlflow server": "compose.yaml, with Docker",
    "docker": "needs an engine: test_container",
    "kubectl": "needs a cluster",
    "hf": "needs an account at Hugging Face",
    "openenv push": "needs an account at Hugging Face",
    "openenv validate": "test_space",
    "ENV_BASE_URL=https": "needs the network",
    "git clone": "needs the network",
    "source": "the shell's own",
    "cd": "the shell's own",
    "apt-get": "the machine's own",
    "python -m lab.tune --worker": "test_workers, on a real PostgreSQL",
    "python -m lab.local_model": "test_local_model",
    "python -m benchmarks": "they take minutes to hours; their results are committed",
    "python benchmarks/": "they take minutes to hours; their results are committed",
}
"""Prefixes of commands that are not run here, with the reason."""

UNSEEN = re.compile(r"(?ms)(^\[(?:confirmation|verdict)\][^\[]*?^episodes = )\d+")
FENCE = re.compile(r"(?:`([\w/.]+)`:\n\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced text.

    Attributes:
        file: The path that introduces it, as in "`experiments/nim.py`:"; empty without one.
    """

    file: str
    language: str
    text: str

    @property
    def runs(self) -> list[str]:
        """Its commands, one per line, without comments; in a transcript, those after a prompt; a snippet."""
        if self.language == "python" and not self.file:
            return [self.text]
        lines = self.text.splitlines() if self.language in ("sh", "console") else []
        if self.language == "console":
            lines = [line[2:] for line in lines if line[:2] == "$ "]
        found = (line.partition("  #")[0].strip() for line in lines)
        return [line for line in found if line and not line.startswith("#")]


def blocks(page: Path) -> list[Block]:
    return [Block(*found) for found in FENCE.findall(page.read_text(encoding="utf-8"))]


def talks(body: Body) -> Reply:
    return Reply("A word and another. " * (3 + len(str(body["messages"])) % 7))


def in_small(project: Project) -> None:
    """The same experiments with the minimum number of unseen episodes and of calls."""
    for path in (project.folder / "experiments").glob("*.toml"):
        tasks = len(load_experiment(path).task.tasks)
        path.write_text(UNSEEN.sub(rf"\g<1>{max(tasks, 2)}", path.read_text()))
        experiment = load_experiment(path)
        least = experiment.verdict_calls + experiment.search.headroom * experiment.task.max_steps
        path.write_text(re.sub(r"(?m)^calls = [\d_]+", f"calls = {least}", path.read_text()))


def runs_elsewhere(command: str) -> bool:
    return any(command.startswith(beginning) for beginning in ELSEWHERE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_its_commands_and_snippets_run(page: Path, tmp_path: Path) -> None:
    """In the page's order, in one project; a text that is introduced by a path is that file."""
    elsewhere = DOCUMENTED if page.name == "commands.md" else []  # test_commands runs them, in order
    here = [one for block in blocks(page) for one in block.runs]
    project = Project.make(tmp_path / "project", tracked=True)
    for block in blocks(page):
        if block.file:
            project.write(block.file, block.text)
    in_small(project)
    with fake_endpoint(talks) as endpoint:
        settings = {"API_BASE_URL": endpoint.url, "MODEL_NAME": "fake", "HF_TOKEN": "k"}
        for one in here:
            if runs_elsewhere(one) or one in elsewhere:
                continue
            if one.startswith("export "):
                assert shlex.split(one)[1].partition("=")[2]
                continue
            snippet = "\n" in one
            done = project.run("-c", one, **settings) if snippet else project.run_line(one, **settings)
            assert done.returncode == 0, f"{one}\n{done.stdout}{done.stderr}"
            if "lab.init" in one:
                in_small(project)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_its_toml_is_a_template_an_experiment_or_a_part_of_one(page: Path, tmp_path: Path) -> None:
    project = Project.make(tmp_path / "project")
    echo = tomllib.loads((project.folder / "experiments/echo.toml").read_text())
    parts = [tomllib.loads(block.text) for block in blocks(page) if block.language == "toml"]
    for part in parts:
        if "turn" in part:
            for name in re.findall(r"prompts/templates/(\w+)\.toml|\"(letter)\"", page.read_text()):
                path = project.write(f"prompts/templates/{''.join(name)}.toml", tomli_w.dumps(part))
                load_template(path)
    for part in parts:
        if "turn" not in part and "python" not in part.get("environment", {}):
            known = {**echo.get("model", {}), **part.get("model", {})}
            whole = {**echo, **part, "model": {"dollars_in": 1.0, "dollars_out": 1.0, **known}}
            if "model" in whole["baseline"]:
                del whole["model"]
            load_experiment(project.write("experiments/part.toml", tomli_w.dumps(whole)))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_its_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_every_key_of_an_experiment_is_in_its_reference() -> None:
    told = (ROOT / "docs/experiment.md").read_text()
    told += (ROOT / "docs/environments.md").read_text()
    for name, table in ExperimentFile.model_fields.items():
        assert name in told
        for key in (key for kind in _models(table.annotation) for key in kind.model_fields):
            assert re.search(rf"`({name}\.)?{key}`", told), f"{name}.{key}"


def _models(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in getattr(annotation, "__args__", ()) for model in _models(part)]


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_option_of_a_command_is_in_its_reference(name: str) -> None:
    page = (ROOT / "docs/commands.md").read_text()
    command = get_command(import_module(f"lab.{name}").app)
    options = {option for parameter in command.params for option in parameter.opts if option[:2] == "--"}
    told = set(re.findall(r"--[a-z-]+", page))
    assert options - {"--help", "--install-completion", "--show-completion"} <= told


def test_the_files_that_start_many_workers_use_valid_settings() -> None:
    """Without Docker and Kubernetes: the commands exist, and there are sessions for all episodes."""
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    job = yaml.safe_load((ROOT / "docs/job.yaml").read_text())["spec"]
    (container,) = job["template"]["spec"]["containers"]
    for started in (services["worker"]["command"], container["args"]):
        assert started[:3] == ["python", "-m", "lab.tune"]
        assert get_command(tune.app).make_context("lab.tune", started[3:]).params["worker"] is True
    assert container["image"].startswith(services["worker"]["image"])
    named = {*services["worker"]["environment"], *(one["name"] for one in container["env"])}
    code = "".join(path.read_text() for path in (ROOT / "lab").rglob("*.py"))
    assert all(name in code for name in named - {"MLFLOW_TRACKING_URI"})
    in_flight = load_experiment(ROOT / "experiments/echo.toml").search.in_flight
    assert (job["parallelism"] + 1) * in_flight <= MAX_SESSIONS
