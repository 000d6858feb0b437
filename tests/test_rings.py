"""The play ring at run time, and the top of `lab/`; import-linter checks the order of the rooms."""

import ast
import subprocess
import sys

from tests.echo_server import ROOT
from tests.project import TIMEOUT_S

FOR_TUNING = {"optuna", "mlflow", "dspy", "gepa", "pandas", "plotly", "scipy", "typer", "rich", "tomli_w"}


def test_the_play_ring_plays_without_the_tune_ring() -> None:
    """A complete in-process episode imports no tuning dependencies."""
    code = f"""
import asyncio, sys
from pathlib import Path
import inference
from lab.agent.agent import Agent
from lab.llm.client import Endpoint, EndpointConfig
from lab.environments.environment import open_environment
from lab.agent.rollout import play
from lab.submission.frozen import read_frozen
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
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
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
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=TIMEOUT_S, check=True
    )
    return set(ast.literal_eval(done.stdout.strip()))


PLAY_RING = {"addresses", "agent", "environments", "errors", "files", "llm", "submission"}
"""Modules of `lab/` that `inference.py` may import; import-linter checks their imports."""


def test_inference_imports_only_from_the_play_ring() -> None:
    tree = ast.parse((ROOT / "inference.py").read_text(encoding="utf-8"))
    modules = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    rooms = {name.split(".")[1] for name in modules if name.startswith("lab.")}
    assert rooms
    assert rooms <= PLAY_RING


def test_the_top_of_lab_holds_the_commands_and_little_else() -> None:
    assert len(list((ROOT / "lab").glob("*.py"))) <= 16


def test_each_room_says_what_it_is() -> None:
    for path in (ROOT / "lab").glob("*/__init__.py"):
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        assert len(docstring.splitlines()) >= 3, f"{path}: what it is, what it owns, what it leaves to others"
