"""A temporary project folder for a test: experiments, prompts, `inference.py`, and commands run in it."""

import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.commands import server
from tests.echo_server import ROOT

TIMEOUT_S = 600.0

SETTINGS = (
    *("API_BASE_URL", "MODEL_NAME", "HF_TOKEN", "API_KEY", "LOCAL_IMAGE_NAME", "IMAGE_NAME", "ENV_BASE_URL"),
    *("TEST_TASK", "TEST_BENCHMARK", "DEADLINE_S", "MLFLOW_TRACKING_URI", "LAB_STORAGE"),
    *("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"),
    *("PROPOSER_MODEL_NAME", "PROPOSER_BASE_URL", "PROPOSER_API_KEY"),
)

MACHINE = {
    **{name: value for name, value in os.environ.items() if name not in SETTINGS},
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PYTHONPATH": str(ROOT),
}
"""The environment variables of a command; those of the tests change. Commands contact no stranger."""


@dataclass(frozen=True)
class Project:
    """A folder like the project's root; it uses the lab under test.

    Attributes:
        forks: Whether commands may be forks of a process that has imported the lab.
        tracks: Whether MLflow has a store that it can open; each study writes to it for a second or more.
    """

    folder: Path
    forks: bool = True
    tracks: bool = True

    @classmethod
    def make(cls, folder: Path, *, tracked: bool = False) -> "Project":
        """Copy the files of a user's checkout.

        Args:
            tracked: Whether to include MLflow's database, which takes seconds to create.
        """
        shutil.copytree(ROOT / "experiments", folder / "experiments")
        shutil.copytree(ROOT / "prompts", folder / "prompts")
        shutil.copy(ROOT / "inference.py", folder)
        if tracked:
            (folder / "mlflow.db").write_bytes(_mlflow_database())
        return cls(folder)

    @property
    def afresh(self) -> "Project":
        """The same folder, in which every command starts a new interpreter with all its imports."""
        return replace(self, forks=False)

    @property
    def untracked(self) -> "Project":
        """The same folder, in which a study reports that MLflow took nothing."""
        return replace(self, tracks=False)

    def environ(self, **settings: str) -> dict[str, str]:
        """The environment variables of a command: the test's settings and none of this machine's."""
        nowhere = {} if self.tracks else {"MLFLOW_TRACKING_URI": "sqlite:////dev/null/none.db"}
        return {**MACHINE, **nowhere, **settings}

    def start(self, *command: str, **settings: str) -> "subprocess.Popen[str]":
        """Start `python *command` here with pipes; a module runs in a fork, see `tests.commands`."""
        environ = self.environ(**settings)
        if self.forks and (forks := server(MACHINE)) and forks.serves(command, environ, SETTINGS):
            return forks.start(command, self.folder, environ)
        return subprocess.Popen(
            [sys.executable, *command],
            cwd=self.folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )

    def run(self, *command: str, **settings: str) -> "subprocess.CompletedProcess[str]":
        """Run `python *command` here to its end."""
        process = self.start(*command, **settings)
        try:
            out, err = process.communicate(timeout=TIMEOUT_S)
        except BaseException:
            process.kill()
            process.wait()
            raise
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def run_line(self, line: str, **settings: str) -> "subprocess.CompletedProcess[str]":
        """Run a line of a shell here; `python ARGUMENTS` alone is run as by `run`."""
        if line.startswith("python ") and not set(line) & set("|&;<>$`"):
            return self.run(*shlex.split(line)[1:], **settings)
        environ = self.environ(**settings)
        environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environ["PATH"]])
        return subprocess.run(
            ["bash", "-o", "pipefail", "-c", line],
            cwd=self.folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )

    def write(self, name: str, text: str) -> Path:
        """Write a file below the folder."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path


@cache
def _mlflow_database() -> bytes:
    """An empty store, created by MLflow's own command."""
    with TemporaryDirectory() as folder:
        done = Project(Path(folder)).run("-m", "mlflow", "experiments", "search")
        assert done.returncode == 0, done.stderr
        return (Path(folder) / "mlflow.db").read_bytes()
