"""The echo environment's folder as a Hugging Face Space: complete, pinned, and accepted."""

import os
import re
import subprocess
import sys
from pathlib import Path

import yaml

from tests.echo_server import ROOT, echo_server, without_gradio
from tests.project import TIMEOUT_S

ECHO = ROOT / "lab" / "environments" / "echo"


def openenv(tmp_path: Path, *command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(Path(sys.executable).parent / "openenv"), *command],
        env=os.environ | {"PYTHONPATH": without_gradio(tmp_path)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def pins(path: Path) -> dict[str, str]:
    """Name and version of each pinned package of a requirements file."""
    found = re.findall(r"^([\w.-]+)==([^\s;]+)", path.read_text(), re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found}


def test_openenv_accepts_the_package_up_to_the_last_level_where_no_image_is_built(tmp_path: Path) -> None:
    done = openenv(tmp_path, "validate", "--level", "semantic", "--skip-build", str(ECHO))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PASS  static.manifest" in done.stdout
    assert "FAIL" not in done.stdout
    assert "ERROR" not in done.stdout


def test_openenv_accepts_the_running_server(tmp_path: Path) -> None:
    with echo_server() as url:
        done = openenv(tmp_path, "validate", "--url", url)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Verdict: PASS" in done.stdout
    assert "FAIL" not in done.stdout


def test_openenv_finds_what_it_pushes() -> None:
    from openenv.cli._cli_utils import validate_env_structure

    assert validate_env_structure(ECHO) == ["Recommended directory missing: outputs/"]


def test_the_front_matter_makes_it_a_docker_space() -> None:
    text = (ECHO / "README.md").read_text(encoding="utf-8")
    matter = yaml.safe_load(text.split("---\n")[1])
    wanted = {"sdk": "docker", "app_port": 8000, "base_path": "/web", "tags": ["openenv"]}
    assert text.startswith("---\n")
    assert {key: matter[key] for key in wanted} == wanted
    assert yaml.safe_load((ECHO / "openenv.yaml").read_text())["spec_version"] == 1


def test_the_space_builds_what_the_projects_dockerfile_builds() -> None:
    first = "FROM python:3.11-slim AS build\n"
    ours = (ROOT / "Dockerfile").read_text().split(first)[1]
    ours = ours.replace("COPY lab/environments/echo/ ", "COPY . ").replace("lab/environments/echo/", "")
    assert (ECHO / "server" / "Dockerfile").read_text().split(first)[1] == ours


def test_the_image_installs_the_projects_versions() -> None:
    ours, theirs = pins(ROOT / "constraints.txt"), pins(ECHO / "server" / "requirements.txt")
    assert theirs
    assert theirs == {name: ours.get(name) for name in theirs}
