"""The two rings, and the one direction in which modules import each other."""

import ast
import subprocess
import sys
from pathlib import Path

from tests.echo_server import ROOT

ORDER = (
    *("errors", "foreign", "troubles"),
    *("files", "prompt", "candidate", "task", "failure", "answer", "patience", "endpoint"),
    *("declaration", "action", "observation", "recovery"),
    *("episode", "chat", "agent", "contract", "output", "frozen"),
    *("environments", "hooks", "own_thread", "factory", "in_process"),
    *("places", "remote", "environment", "keys", "settings"),
    *("local_model", "opening", "child", "submission"),  # so far the play ring
    *(
        "space",
        "space_table",
        "environment_table",
        "spending",
        "evaluation",
        "objective",
        "experiment_file",
        "experiment",
        "trial",
    ),
    *("journal", "store", "work", "record", "recorded", "study_document", "resume", "workers"),
    *("intervals", "words", "first_answers", "blame", "running", "player"),
    *("sampling", "surrogate", "moderated", "scores", "race", "headroom"),
    *("briefing", "proposal", "proposers", "renewal", "search", "plan", "parts"),
    *("verdict", "cautions", "unseen", "outcome", "summary", "unvalidated", "result", "freeze"),
    "optuna_store",
    *("figures", "description", "traces", "registry"),
    *("missed", "mlflow_database", "mlflow_experiment", "mlflow_store", "tracking"),
    *("screen", "live", "progress"),
    *("study", "around", "history", "difference", "stage", "rehearsal", "reporting"),
    *("command", "report", "tune", "check", "show", "play", "compare", "doctor", "__main__"),
)
"""The way of the data: a module imports from those before it."""

FOR_TUNING = {"optuna", "mlflow", "dspy", "gepa", "pandas", "plotly", "scipy", "typer", "rich", "tomli_w"}


def imported(path: Path) -> set[str]:
    """The lab's modules that a file imports anywhere, but for what only its types need."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    return {name.split(".")[1] for name in names if name.startswith("lab.")}


def test_modules_import_only_from_those_before_them() -> None:
    files = {path.stem: path for path in (ROOT / "lab").glob("*.py") if path.stem != "__init__"}
    assert set(files) <= set(ORDER), "a new module needs its place in the order"
    for name, path in files.items():
        later = {other for other in imported(path) if ORDER.index(other) >= ORDER.index(name)}
        assert not later, f"lab/{name}.py imports {later}"


def test_the_play_ring_plays_without_the_tune_ring() -> None:
    """A whole episode in process: nothing of what only tuning needs is imported on the way."""
    code = f"""
import asyncio, sys
from pathlib import Path
import inference
from lab.agent import Agent
from lab.endpoint import Endpoint, EndpointConfig
from lab.environment import open_environment
from lab.episode import play
from lab.frozen import read_frozen
from tests.fake_endpoint import fake_endpoint

async def main():
    frozen = read_frozen(Path({str(ROOT / "prompts/best.toml")!r}))
    with fake_endpoint() as fake:
        async with open_environment(frozen.environment) as environment:
            endpoint = Endpoint(EndpointConfig(fake.url, "m", "k"))
            async with endpoint, environment.session() as session:
                episode = await play(Agent(frozen.candidate, endpoint, frozen.task), session, 0)
    assert len(episode.steps) == 8
    print(sorted({FOR_TUNING!r} & set(sys.modules)))

asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    # OpenEnv's own package imports what it likes; what the lab adds on top of it is nothing.
    allowed = openenv_brings()
    assert set(ast.literal_eval(done.stdout.strip())) <= allowed


def openenv_brings() -> set[str]:
    code = f"""
import sys
sys.modules["gradio"] = None
import openenv.core.env_client, openenv.core.env_server.interfaces
print(sorted({FOR_TUNING!r} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    return set(ast.literal_eval(done.stdout.strip()))
