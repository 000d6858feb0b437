"""The images, run for real if a container engine answers and IMAGE and LAB_IMAGE name them.

`.ci/run` builds both and runs these tests; manually, with Docker:

    docker build -t test:latest . && docker build -t prompt-lab --target lab .
    IMAGE=test:latest LAB_IMAGE=prompt-lab make test
"""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.echo_server import ROOT, is_healthy
from tests.fake_endpoint import Reply, fake_endpoint
from tests.project import Project

ECHO = ROOT / "lab" / "environments" / "echo"
LOCKED = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
START_S = 60.0
STOP_S = 5.0


def docker(*command: str, timeout_s: float = 120.0) -> str:
    """Run `docker *command` to its end, and return its output."""
    done = subprocess.run(
        ["docker", *command], capture_output=True, text=True, timeout=timeout_s, check=False
    )
    assert done.returncode == 0, f"docker {' '.join(command)}: {done.stdout}{done.stderr}"
    return done.stdout


def no_engine() -> str:
    """Why no container can run here; empty if one can."""
    if not shutil.which("docker"):
        return "there is no `docker` on PATH"
    info = subprocess.run(["docker", "info"], capture_output=True, text=True, timeout=60, check=False)
    return "" if info.returncode == 0 else "no container engine answers `docker info`"


def named(variable: str) -> str:
    """The image in `variable`; without an image or an engine the test is skipped with a reason."""
    image = os.environ.get(variable)
    if not image:
        pytest.skip(f"NO CONTAINER IS TESTED: {variable} names no image")
    if why := no_engine():
        pytest.skip(f"NO CONTAINER IS TESTED: {why}")
    return image


@pytest.fixture(scope="module")
def image() -> str:
    return named("IMAGE")


@pytest.fixture(scope="module")
def lab_image() -> str:
    return named("LAB_IMAGE")


@contextmanager
def running(image: str, *options: str) -> Iterator[tuple[str, str]]:
    """A healthy container of `image`: its id and its base URL; it is removed at the end."""
    container = docker("run", "--detach", "--publish", "127.0.0.1::8000", *options, image).strip()
    try:
        url = f"http://{docker('port', container, '8000/tcp').split()[0]}"
        deadline = time.monotonic() + START_S
        while not is_healthy(url):
            assert time.monotonic() < deadline, docker("logs", container)
            time.sleep(0.1)
        yield container, url
    finally:
        docker("rm", "--force", container)


# The environment's image


def test_it_serves_read_only_without_root_and_without_capabilities(image: str) -> None:
    with running(image, *LOCKED) as (container, url):
        with urllib.request.urlopen(f"{url}/health", timeout=10) as answer:
            assert json.load(answer) == {"status": "healthy"}
        assert docker("exec", container, "id", "-u").strip() == "1000"
        write = "import pathlib; pathlib.Path('/app/x').touch()"
        refused = subprocess.run(["docker", "exec", container, "python", "-c", write], check=False)
        assert refused.returncode != 0


def test_it_stops_on_sigterm(image: str) -> None:
    with running(image) as (container, _):
        began = time.monotonic()
        docker("stop", "--time", "20", container)
        assert time.monotonic() - began < STOP_S
        assert docker("inspect", "--format", "{{.State.ExitCode}}", container).strip() in ("0", "143")


def test_openenv_accepts_the_running_server(image: str) -> None:
    with running(image, *LOCKED) as (_, url):
        command = [str(Path(sys.executable).parent / "openenv"), "validate", "--url", url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAIL" not in done.stdout


def test_openenv_accepts_the_package_at_every_level(image: str) -> None:
    """With the existing image: by itself, `openenv validate` would build it again."""
    code = f"""
import pathlib, sys
from openenv.cli.commands.validate import _render_report
from openenv.validation import run_validation
from openenv.validation.providers.docker import DockerValidationProvider
class Built(DockerValidationProvider):
    def build(self, root, execution):
        return "sha256:" + sys.argv[1].removeprefix("sha256:")
print(_render_report(run_validation(pathlib.Path({str(ECHO)!r}), provider=Built())))
"""
    number = docker("image", "inspect", "--format", "{{.Id}}", image).strip()
    done = subprocess.run(
        [sys.executable, "-c", code, number], capture_output=True, text=True, timeout=180, check=False
    )
    assert "levels run: static, runtime" in done.stdout, done.stdout + done.stderr
    for check in ("startup", "reward_well_formed", "observation_schema", "state_contract"):
        assert f"PASS  runtime.{check}" in done.stdout, done.stdout
    assert "Verdict: WARN" in done.stdout


def test_a_submission_plays_an_episode_in_a_separate_container(image: str, tmp_path: Path) -> None:
    before = docker("ps", "--all", "--quiet")
    with fake_endpoint(lambda _: Reply("y" * 10)) as endpoint:
        done = Project.make(tmp_path).run(
            "inference.py", API_BASE_URL=endpoint.url, MODEL_NAME="scripted", LOCAL_IMAGE_NAME=image
        )
    lines = done.stdout.splitlines()
    assert lines[0].startswith("[START] task=echo env=test model=scripted"), done.stderr
    assert lines[-1] == f"[END] success=false steps=8 score=0.067 rewards={','.join(['1.00'] * 8)}"
    assert docker("ps", "--all", "--quiet") == before


# The lab's image: no network, nothing to write to but /tmp


def run_in_lab(image: str, *command: str) -> str:
    container = docker("run", "--detach", "--network", "none", *LOCKED, image, *command).strip()
    try:  # not attached: podman's service would spend a core on that
        docker("wait", container, timeout_s=300.0)
        return docker("logs", container)
    finally:
        docker("rm", "--force", container)


def test_the_lab_runs_without_root(lab_image: str) -> None:
    assert run_in_lab(lab_image, "id", "-u").strip() == "1000"


def test_the_lab_shows_its_options(lab_image: str) -> None:
    assert "--worker" in run_in_lab(lab_image, "python", "-m", "lab.tune", "--help")


def test_the_lab_plays_the_frozen_prompt_on_its_embedded_model_offline(lab_image: str) -> None:
    lines = run_in_lab(lab_image, "python", "inference.py").splitlines()
    assert lines[0].startswith("[START] task=echo env=test")
    assert [line.split()[0] for line in lines[1:]] == ["[STEP]"] * 8 + ["[END]"]
    assert all(line.endswith("error=null") for line in lines[1:-1])
    assert lines[-1].startswith("[END] success=true steps=8")
