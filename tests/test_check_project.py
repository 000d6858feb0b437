"""`python -m lab.check --project`: what evaluators look for besides stdout, in this project and in others."""

import re
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

from lab.llm.client import EndpointConfig
from lab.local_model.weights import MODEL_ID
from lab.submission.checker import check
from lab.submission.freeze import freeze
from lab.submission.frozen import FrozenModel, read_frozen
from lab.submission.project import played, run
from tests.fake_endpoint import FakeEndpoint, Reply, fake_endpoint
from tests.project import Project
from tests.test_frozen import TASK
from tests.test_several_tasks import SETUPS, frozen_project

MANIFEST = "spec_version: 1\nname: levels\ntype: space\nruntime: fastapi\napp: server.app:app\nport: 8000\n"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project that passes: three tasks with different scores, and the files beside them."""
    task = replace(TASK, max_return=20.0, tasks=SETUPS, score_bounds="open")
    project = frozen_project(tmp_path / "project", task)
    project.write("openenv.yaml", MANIFEST)
    project.write("server/Dockerfile", "FROM python:3.11-slim\n")
    return project


def looked(project: Project, endpoint: FakeEndpoint, *more: str) -> tuple[dict[str, str], int]:
    """Each line by what it is about, and the exit code."""
    settings = {"API_BASE_URL": endpoint.url, "MODEL_NAME": "m", "HF_TOKEN": "the-users-own"}
    done = project.run("-m", "lab.check", "--project", *more, **settings)
    found = re.findall(r"^(ok|warn|FAIL) +(\w+) +(.*)$", done.stdout, re.MULTILINE)
    return {about: f"{mark} {said}" for mark, about, said in found}, done.returncode


def test_a_project_that_evaluators_accept(project: Project) -> None:
    with fake_endpoint() as endpoint:
        lines, code = looked(project, endpoint, "--rules", "phase2")
    assert [line.partition(" ")[0] for line in lines.values()] == ["ok"] * 8
    assert list(lines) == ["script", "manifest", "image", "run", "tasks", "scores", "model", "output"]
    assert lines["tasks"] == "ok level-0 0.001, level-1 0.500, level-2 0.999"
    assert lines["model"].startswith("ok 6 calls at API_BASE_URL")
    assert lines["output"] == "ok Accepted by phase2"
    assert code == 0
    assert {head["authorization"] for head in endpoint.heads} == {"Bearer the-users-own"}


def test_the_projects_own_echo_has_one_task(tmp_path: Path) -> None:
    project = Project.make(tmp_path / "project")
    with fake_endpoint() as endpoint:
        lines, code = looked(project, endpoint)
    assert lines["tasks"].startswith("FAIL echo ")
    assert lines["manifest"] == "FAIL no openenv.yaml"
    assert lines["image"].startswith("FAIL no Dockerfile")
    assert lines["output"] == "ok Accepted by sample; NOT accepted by phase1, phase2"
    assert code == 1


SAME = """
    for task in ("a", "b", "c"):
        print(f"[START] task={task} env=b model=m")
        EACH
        print("[STEP] step=1 action=x reward=0.50 done=true error=null")
        print("[END] success=true steps=1 score=0.500 rewards=0.50")
"""
CALL = """
    import json, os, urllib.request
    from dotenv import load_dotenv
    load_dotenv()
    key = os.getenv("HF_TOKEN") or os.getenv("API_KEY")
    body = json.dumps({"model": os.environ["MODEL_NAME"], "messages": []}).encode()
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    url = os.environ["API_BASE_URL"] + "/chat/completions"
    urllib.request.urlopen(urllib.request.Request(url, body, headers)).read()
"""
CLIENT = """
    import os
    from openai import OpenAI
    client = OpenAI(base_url=os.environ["API_BASE_URL"], api_key=os.environ["API_KEY"])
    asked = [{"role": "user", "content": "?"}]
    client.chat.completions.create(model=os.environ["MODEL_NAME"], messages=asked)
"""


def script(*parts: str) -> str:
    return "\n".join(map(textwrap.dedent, parts))


def same(each: str) -> str:
    """Three tasks with one score, and a statement before each step."""
    return SAME.replace("EACH", each)


@pytest.mark.parametrize(
    ("text", "about", "told"),
    [
        (script(same("pass")), "model", "FAIL no call at API_BASE_URL"),
        (script(CLIENT, same("pass")), "scores", "FAIL all are the same"),
        (script(CLIENT, same("pass")), "model", "ok 1 call at"),
        (script(CALL, same("pass")), "model", "FAIL calls by 'Python-urllib"),
        (script(same("pass")), "script", "warn inference.py does not name API_BASE_URL"),
        (script(CLIENT, same("raise SystemExit(3)")), "run", "FAIL"),
        (script(CLIENT, "print('done')"), "tasks", "FAIL none: at least 3"),
        (script(CLIENT, "print('done')"), "output", "FAIL NOT accepted by sample, phase1, phase2"),
    ],
)
def test_what_other_scripts_lack_is_told(project: Project, text: str, about: str, told: str) -> None:
    project.write("inference.py", text)
    with fake_endpoint() as endpoint:
        lines, code = looked(project, endpoint)
    assert lines[about].startswith(told), lines
    assert code == 1


def test_a_script_that_prefers_the_users_token_is_told_and_the_token_goes_nowhere(project: Project) -> None:
    project.write(".env", "HF_TOKEN=hf_of_the_user\n")
    project.write("inference.py", script(CALL, same("pass")))
    with fake_endpoint() as endpoint:
        lines, _ = looked(project, endpoint)
    assert lines["model"] == "FAIL 1 of 1 calls did not send API_KEY as their key"
    assert [head["authorization"] for head in endpoint.heads] == ["Bearer the-users-own"]


def test_a_run_that_is_too_long_is_ended(tmp_path: Path) -> None:
    (tmp_path / "inference.py").write_text("import time\nprint('[START]', flush=True)\ntime.sleep(100)\n")
    done = run(tmp_path, EndpointConfig("http://127.0.0.1:9/v1", "m", "k"), limit_s=1.0)
    first = next(played(done, check(done.stdout), limit_s=1.0))
    assert (done.stdout, first.passed) == (b"[START]\n", False)
    assert first.said.startswith("it had to be ended")


def test_an_endpoint_that_fails_is_passed_on_as_it_fails(project: Project) -> None:
    with fake_endpoint(lambda _: Reply(status=401)) as endpoint:
        lines, code = looked(project, endpoint)
    assert lines["model"].startswith("FAIL 3 calls")
    assert lines["model"].endswith("0 answered")
    assert lines["run"].endswith("exit code 1")
    assert code == 1


def test_a_folder_without_a_script_is_not_run(tmp_path: Path) -> None:
    project = Project.make(tmp_path / "project")
    (project.folder / "empty").mkdir()
    done = project.run("-m", "lab.check", "--project", "empty")
    assert done.stdout.splitlines()[0].startswith("FAIL  script    inference.py is not at the root")
    assert done.returncode == 1


def test_it_is_played_on_the_embedded_model(project: Project) -> None:
    path = project.folder / "prompts/best.toml"
    frozen = read_frozen(path)
    sampling = replace(frozen.candidate.sampling, max_tokens=4)
    candidate = replace(frozen.candidate, sampling=sampling)
    freeze(replace(frozen, candidate=candidate, model=FrozenModel("embedded", MODEL_ID)), path)
    done = project.run("-m", "lab.check", "--project", "--rules", "phase2")
    assert "ok    model     6 calls at API_BASE_URL" in done.stdout, done.stdout + done.stderr
    assert "6 answered" in done.stdout
    assert done.returncode == 0
