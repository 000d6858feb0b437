"""A submission's project, as evaluators look at it: its files, and one run of `inference.py` as they run it.

It owns what is looked for. The output is judged by `lab.submission.checker`.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabError
from lab.files import read_bounded
from lab.llm.client import EndpointConfig
from lab.llm.launch import opening_model
from lab.llm.settings import KEYS, ModelChoice, choose_model
from lab.submission.checker import LEAST_TASKS, Checked
from lab.submission.frozen import BEST, read_frozen
from lab.submission.relay import Relay, relaying

SCRIPT, MANIFEST, DOCKERFILE = "inference.py", "openenv.yaml", "Dockerfile"

LIMIT_S = 1200.0
"""Maximum seconds of a run, from the public checklist."""

GRACE_S = 15.0
"""Seconds between SIGTERM and SIGKILL for a run that is too long."""

NAMED = ("API_BASE_URL", "MODEL_NAME", "HF_TOKEN", "openai")
"""What some evaluators look for in the text of `inference.py`."""


@dataclass(frozen=True)
class Look:
    """The result of one check, printed as one line.

    Attributes:
        passed: None for a warning.
    """

    about: str
    said: str
    passed: bool | None = True


@dataclass(frozen=True)
class Run:
    """One run of `inference.py`.

    Attributes:
        exit_code: Negative if a signal ended it, as one does after the time limit.
        calls: How the model was called.
    """

    exit_code: int
    duration_s: float
    stdout: bytes
    calls: Relay


def files(folder: Path) -> Iterator[Look]:
    """Look at the project's files."""
    try:
        text = read_bounded(folder / SCRIPT).decode("utf-8", "replace")
    except OSError as error:
        yield Look("script", f"{SCRIPT} is not at the root: {error.strerror or error}", passed=False)
    else:
        absent = [name for name in NAMED if name not in text]
        told = f"{SCRIPT} does not name {', '.join(absent)}: some evaluators look for that"
        yield Look("script", told, passed=None) if absent else Look("script", f"{SCRIPT} at the root")
    manifest = _find(folder, MANIFEST)
    yield _manifest(folder, manifest)
    beside = manifest.parent if manifest else folder
    places = [place / DOCKERFILE for place in (folder, folder / "server", beside, beside / "server")]
    found = next((path for path in places if path.is_file()), None)
    if found is None:
        yield Look("image", f"no {DOCKERFILE} at the root, in server/ or beside {MANIFEST}", passed=False)
    else:
        yield Look("image", str(found.relative_to(folder)))


def _find(folder: Path, name: str) -> Path | None:
    """The file of that name nearest to the root, outside hidden folders and virtual environments."""
    found = list[Path]()
    for place, folders, names in os.walk(folder):
        folders[:] = [one for one in folders if one[0] != "." and not Path(place, one, "pyvenv.cfg").exists()]
        found += [Path(place, name)] if name in names else []
    return min(found, key=lambda path: (len(path.parts), path), default=None)


def _manifest(folder: Path, path: Path | None) -> Look:
    import yaml

    if path is None:
        return Look("manifest", f"no {MANIFEST}", passed=False)
    shown = path.relative_to(folder)
    try:
        read = yaml.safe_load(read_bounded(path))
    except (OSError, ValueError, yaml.YAMLError) as error:
        return Look("manifest", f"{shown} cannot be read: {' '.join(str(error).split())}", passed=False)
    if not isinstance(read, dict) or not read.get("name"):
        return Look("manifest", f"{shown} has no name", passed=False)
    if path.parent != folder:
        return Look("manifest", f"{shown}, not at the root: what is pushed must hold it there", passed=None)
    return Look("manifest", f"{shown}, {read['name']}")


@contextmanager
def opened_endpoint(folder: Path, default: ModelChoice) -> Iterator[EndpointConfig]:
    """The model that the variables name, else the one that the frozen prompt was tuned on, else `default`.

    Raises:
        ConfigError: The variables are invalid.
        EndpointError: There is no key for it, or the embedded model does not start.
    """
    try:
        tuned = read_frozen(folder / BEST).model
        default = ModelChoice(tuned.endpoint, tuned.name)
    except LabError:  # another script's project
        pass
    with opening_model(choose_model(default)) as opening:
        yield opening()


def run(folder: Path, endpoint: EndpointConfig, limit_s: float = LIMIT_S) -> Run:
    """Run `inference.py` with an injected `API_BASE_URL` and `API_KEY`; its stderr is this process's."""
    with relaying(endpoint) as calls:
        injected = {"API_BASE_URL": calls.url, "API_KEY": calls.key, "MODEL_NAME": endpoint.model}
        kept = {name: value for name, value in os.environ.items() if name not in (*KEYS, "TEST_TASK")}
        began = time.monotonic()
        with subprocess.Popen(
            [sys.executable, SCRIPT],
            cwd=folder,
            env={**kept, **injected},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        ) as process:
            try:
                stdout, _ = process.communicate(timeout=limit_s)
            except BaseException as error:
                process.terminate()
                stdout = _rest(process)
                if not isinstance(error, subprocess.TimeoutExpired):
                    raise
        return Run(process.returncode, time.monotonic() - began, stdout, calls)


def _rest(process: "subprocess.Popen[bytes]") -> bytes:
    try:
        return process.communicate(timeout=GRACE_S)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()[0]


def played(run: Run, checked: Checked, limit_s: float = LIMIT_S) -> Iterator[Look]:
    """Look at a run: its end, its tasks and its model calls."""
    told = f"{run.duration_s:.0f} s of at most {limit_s:.0f}"
    if run.duration_s >= limit_s:
        yield Look("run", f"it had to be ended after {told}", passed=False)
    else:
        yield Look("run", f"{told}, exit code {run.exit_code}", passed=run.exit_code == 0)
    scores = [f"{name} {score or '(no score)'}" for name, score in checked.tasks.items()]
    enough = len(scores) >= LEAST_TASKS
    least = "" if enough else f": at least {LEAST_TASKS} are wanted"
    yield Look("tasks", f"{', '.join(scores) or 'none'}{least}", passed=enough)
    if len(scores) > 1:
        vary = len(set(checked.tasks.values())) > 1
        told = "they vary" if vary else "all are the same: a grader that always says the same is refused"
        yield Look("scores", told, passed=vary)
    yield _calls(run.calls)


def _calls(calls: Relay) -> Look:
    if not calls.calls:
        return Look("model", "no call at API_BASE_URL: runs that make none are failed", passed=False)
    if calls.other_keys:
        told = f"{calls.other_keys} of {calls.calls} calls did not send API_KEY as their key"
        return Look("model", told, passed=False)
    if calls.other_clients:
        agents = ", ".join(sorted(calls.other_clients))
        return Look("model", f"calls by {agents[:80]!r}: use the OpenAI client", passed=False)
    count = "1 call" if calls.calls == 1 else f"{calls.calls} calls"
    told = f"{count} at API_BASE_URL with API_KEY by the OpenAI client, {calls.answered} answered"
    return Look("model", told, passed=calls.answered > 0)
