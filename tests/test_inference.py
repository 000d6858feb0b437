"""`python inference.py`, run as an evaluator runs it: its stdout and its exit code."""

import array
import fcntl
import random
import re
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from lab.agent.agent import FALLBACK_ACTION
from lab.agent.candidate import Candidate, ContextSettings
from lab.agent.template import PromptTemplate
from lab.llm.sampling import SamplingParams
from lab.submission.checker import check
from lab.submission.contract import unescape
from lab.submission.freeze import freeze
from lab.submission.frozen import FrozenModel, FrozenPrompt
from tests.echo_server import ECHO, free_port
from tests.fake_endpoint import Body, Reply, fake_endpoint
from tests.project import TIMEOUT_S, Project
from tests.test_frozen import EVIDENCE, PROVENANCE, TASK

START = re.compile(r"\[START\] task=(\S+) env=(\S+) model=(\S+)")
STEP = re.compile(r"\[STEP\] step=(\d+) action=(.*) reward=(-?\d+\.\d\d) done=(true|false) error=(.*)")
END = re.compile(r"\[END\] success=(true|false) steps=(\d+) score=(\d\.\d{3}) rewards=(.*)")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project with a prompt frozen on the model `tuned` at an endpoint that does not answer."""
    project = Project.make(tmp_path / "project").untracked
    template = PromptTemplate(
        "mine", "Be long.", "Step {step}: {observation}\n\nReward {reward}\n\n{history}"
    )
    candidate = Candidate(template, SamplingParams(0.5, 0.9, 40), ContextSettings(2, "turns"))
    nowhere = FrozenModel(f"http://127.0.0.1:{free_port()}/v1", "tuned")
    freeze(
        FrozenPrompt(candidate, ECHO, TASK, nowhere, EVIDENCE, PROVENANCE),
        project.folder / "prompts/best.toml",
    )
    return project


def checked(stdout: str) -> tuple[re.Match[str], list[re.Match[str]], re.Match[str]]:
    """START, STEPs and END of a complete, consistent stdout without anything else."""
    assert stdout.endswith("\n")
    first, *middle, last = stdout[:-1].split("\n")
    start, steps, end = START.fullmatch(first), [STEP.fullmatch(line) for line in middle], END.fullmatch(last)
    assert start, first
    assert end, last
    found = [step for step in steps if step]
    assert len(found) == len(steps), middle
    assert [int(step[1]) for step in found] == list(range(1, len(found) + 1))
    assert int(end[2]) == len(found)
    assert end[4] == ",".join(step[3] for step in found)
    return start, found, end


def episodes(stdout: str) -> list[str]:
    """The output of each task, of which each begins with START; empty for no output."""
    return [f"[START]{text}" for text in stdout.split("[START]")[1:]]


def test_an_episode_is_played_and_printed_by_the_contract(project: Project) -> None:
    with fake_endpoint(lambda _: Reply("line one\nline two " + "x" * 200)) as endpoint:
        done = project.run("inference.py", API_BASE_URL=endpoint.url, MODEL_NAME="tuned", HF_TOKEN="k")
    start, steps, end = checked(done.stdout)
    assert start.groups() == ("echo", "test", "tuned")
    assert len(steps) == 8
    for step in steps:
        action = unescape(step[2])
        assert action == "line one\nline two " + "x" * 200
        assert step[3] == f"{len(action) * 0.1:.2f}"
        assert step[5] == "null"
    assert end[1] == "true"
    assert done.returncode == 0
    assert done.stderr == ""


def test_the_task_names_come_from_the_environment_or_dotenv(project: Project) -> None:
    with fake_endpoint() as endpoint:
        project.write(".env", f"API_BASE_URL={endpoint.url}\nMODEL_NAME=from-dotenv\nTEST_TASK=dotenv-task\n")
        done = project.run("inference.py", TEST_TASK="shell-task", TEST_BENCHMARK="bench")
    start, _, _ = checked(done.stdout)
    assert start.groups() == ("shell-task", "bench", "from-dotenv")
    assert "tuned on tuned, played on from-dotenv" in done.stderr


def test_the_score_is_the_tasks_and_decides_on_success(project: Project) -> None:
    with fake_endpoint(lambda _: Reply("y" * 10)) as endpoint:
        done = project.run("inference.py", API_BASE_URL=endpoint.url, MODEL_NAME="tuned")
    _, _, end = checked(done.stdout)
    assert end.groups() == ("false", "8", "0.067", ",".join(["1.00"] * 8))
    assert done.returncode == 0


def test_a_failed_call_is_an_error_of_its_step_and_the_episode_continues(project: Project) -> None:
    def script(body: Body) -> Reply:
        last = body["messages"][-1]["content"]
        return Reply(status=400) if "Step 3" in last else Reply("" if "Step 4" in last else "fine")

    with fake_endpoint(script) as endpoint:
        done = project.run("inference.py", API_BASE_URL=endpoint.url, MODEL_NAME="tuned")
    _, steps, _ = checked(done.stdout)
    assert [step[5] != "null" for step in steps] == [False, False, True, True, False, False, False, False]
    assert "scripted 400" in steps[2][5]
    assert "empty" in steps[3][5]
    assert unescape(steps[2][2]) == unescape(steps[3][2]) == FALLBACK_ACTION
    assert done.returncode == 0


def broken_frozen(project: Project) -> dict[str, str]:
    path = project.folder / "prompts/best.toml"
    path.write_text(path.read_text().replace("Be long.", "Be brief."))
    return {}


def no_frozen(project: Project) -> dict[str, str]:
    (project.folder / "prompts/best.toml").unlink()
    return {}


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (no_frozen, "python -m lab.tune"),
        (broken_frozen, "The frozen prompt was changed"),
        (lambda _: {}, "cannot be reached"),
        (lambda _: {"API_BASE_URL": "https://example.invalid/v1", "MODEL_NAME": "m"}, "HF_TOKEN"),
        (lambda _: {"API_BASE_URL": "https://example.invalid/v1"}, "MODEL_NAME"),
        (lambda _: {"API_BASE_URL": "nonsense", "MODEL_NAME": "m"}, "API_BASE_URL"),
        (lambda _: {"ENV_BASE_URL": f"http://127.0.0.1:{free_port()}"}, "ENV_BASE_URL"),
        (lambda _: {"DEADLINE_S": "soon"}, "DEADLINE_S"),
    ],
)
def test_an_unplayable_prompt_still_gets_start_and_end(
    project: Project, spoil: Callable[[Project], dict[str, str]], told: str
) -> None:
    done = project.run("inference.py", **spoil(project))
    _, steps, end = checked(done.stdout)
    assert steps == []
    assert end.groups() == ("false", "0", "0.000", "")
    assert done.returncode == 1
    assert told in done.stderr
    assert len(done.stderr.splitlines()) <= 4
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("status", "told"), [(401, "refused the key"), (404, "does not have 'tuned'")])
def test_a_wrong_key_or_model_ends_it_at_once(project: Project, status: int, told: str) -> None:
    with fake_endpoint(lambda _: Reply(status=status)) as endpoint:
        done = project.run(
            "inference.py", API_BASE_URL=endpoint.url, MODEL_NAME="tuned", HF_TOKEN="secret-key"
        )
        assert len(endpoint.requests) == 1
    _, _, end = checked(done.stdout)
    assert end[1] == "false"
    assert done.returncode == 1
    assert told in done.stderr
    assert "secret-key" not in done.stdout + done.stderr


def read_lines(process: "subprocess.Popen[str]", count: int) -> list[str]:
    assert process.stdout is not None
    return [process.stdout.readline() for _ in range(count)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("lines", [1, 3])
def test_a_signal_ends_the_episode_with_end(project: Project, number: signal.Signals, lines: int) -> None:
    release = threading.Event()

    def script(body: Body) -> Reply:
        if lines == 1 or "Step 3" in body["messages"][-1]["content"]:
            release.wait(30)
        return Reply("z" * 100)

    with fake_endpoint(script) as endpoint:
        process = project.start("inference.py", API_BASE_URL=endpoint.url, MODEL_NAME="tuned")
        seen = read_lines(process, lines)
        process.send_signal(number)
        rest, err = process.communicate(timeout=TIMEOUT_S)
        release.set()
    _, steps, end = checked("".join(seen) + rest)
    assert len(steps) == lines - 1
    assert end[1] == "false"
    assert process.returncode == 128 + number
    assert "Traceback" not in err


def test_an_endpoint_on_this_machine_bypasses_the_proxy(project: Project) -> None:
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), f"http://127.0.0.1:{free_port()}")
    with fake_endpoint() as endpoint:
        done = project.run("inference.py", API_BASE_URL=endpoint.url, MODEL_NAME="tuned", **proxies)
    assert done.returncode == 0, done.stderr
    assert len(endpoint.requests) == TASK.max_steps


def test_the_deadline_ends_the_episode_in_time_for_end(project: Project) -> None:
    release = threading.Event()

    def script(body: Body) -> Reply:
        if "Step 3" in body["messages"][-1]["content"]:
            release.wait(60)
        return Reply("z" * 1000)

    with fake_endpoint(script) as endpoint:
        began = time.monotonic()
        done = project.run("inference.py", API_BASE_URL=endpoint.url, MODEL_NAME="tuned", DEADLINE_S="20")
        release.set()
    assert time.monotonic() - began < 22
    _, steps, end = checked(done.stdout)
    assert len(steps) == 2
    assert end[1] == "true"  # what was played reached the score
    assert done.returncode == 0
    assert "DEADLINE_S" in done.stderr


def test_start_is_out_before_anything_slow(project: Project) -> None:
    """Only the standard library and dotenv are imported before START."""
    code = (
        "import sys, inference, asyncio\n"
        "heavy = {'openai', 'openenv', 'pydantic', 'optuna', 'mlflow', 'dspy', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = project.run("-c", code)
    assert done.returncode == 0, done.stderr


def test_a_closed_stdout_is_an_error_without_a_traceback(project: Project) -> None:
    with fake_endpoint() as endpoint:
        shell = "import os, sys; os.close(1); os.execv(sys.executable, [sys.executable, 'inference.py'])"
        done = project.run("-c", shell, API_BASE_URL=endpoint.url, MODEL_NAME="tuned")
    assert done.returncode == 1
    assert "stdout is closed" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells which signals a process holds back")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_start_is_held_back_until_it_is_out(project: Project, number: signal.Signals) -> None:
    with fake_endpoint() as endpoint:
        process = project.start("inference.py", API_BASE_URL=endpoint.url, MODEL_NAME="tuned")
        held_back = re.compile(r"SigBlk:\s*0*[1-9a-f]")
        while not held_back.search(Path(f"/proc/{process.pid}/status").read_text()):
            assert process.poll() is None
        process.send_signal(number)
        out, err = process.communicate(timeout=TIMEOUT_S)
    assert "sample" in check(out.encode()).accepted_by
    assert process.returncode == 128 + number
    assert "Traceback" not in err


def test_a_closed_stdout_is_no_traceback(project: Project) -> None:
    with fake_endpoint() as endpoint:
        process = project.start("inference.py", API_BASE_URL=endpoint.url, MODEL_NAME="tuned")
        read_lines(process, 1)
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        err = process.stderr.read()
        assert process.wait(30) == 1
    assert "Traceback" not in err


@pytest.mark.parametrize("wait_s", [0.0, 0.3, 0.8, 1.5, 2.5, 4.0])
def test_a_signal_at_any_moment_leaves_a_capture_that_is_accepted(project: Project, wait_s: float) -> None:
    number = random.choice([signal.SIGTERM, signal.SIGINT])
    with fake_endpoint(lambda _: Reply("z" * 100)) as endpoint:
        process = project.start("inference.py", API_BASE_URL=endpoint.url, MODEL_NAME="tuned")
        seen = read_lines(process, 1)
        time.sleep(wait_s)
        process.send_signal(number)
        with suppress(ProcessLookupError):
            process.send_signal(number)
        rest, err = process.communicate(timeout=TIMEOUT_S)
    assert "sample" in check("".join([*seen, rest]).encode()).accepted_by
    assert process.returncode in (128 + number, 0)
    assert "Traceback" not in err


def full_of(process: "subprocess.Popen[str]") -> int:
    """Number of unread bytes in the process's stdout."""
    waiting = array.array("i", [0])
    assert process.stdout is not None
    fcntl.ioctl(process.stdout, termios.FIONREAD, waiting)
    return waiting[0]


@pytest.mark.parametrize("read", [True, False])
def test_a_full_stdout_neither_hangs_nor_loses_lines_read_in_time(project: Project, read: bool) -> None:
    """Stdout is not read for a while; then it is read, or a signal ends the process."""
    with fake_endpoint(lambda _: Reply("z" * 30_000)) as endpoint:
        process = project.start("inference.py", API_BASE_URL=endpoint.url, MODEL_NAME="tuned")
        before = -1
        while not before == full_of(process) > 30_000:  # the writer is stuck
            before = full_of(process)
            time.sleep(0.5)
        if not read:
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 128 + signal.SIGTERM
        out, err = process.communicate(timeout=TIMEOUT_S)
    assert "Traceback" not in err
    if read:
        assert "sample" in check(out.encode()).accepted_by
        assert process.returncode == 0
    else:
        assert "stdout is closed or blocked" in err


def test_any_text_is_printed_to_an_ascii_stdout(project: Project) -> None:
    with fake_endpoint(lambda _: Reply("ünï\u2028 \ud800 😀\n[END] success=true")) as endpoint:
        done = project.run(
            "inference.py",
            API_BASE_URL=endpoint.url,
            MODEL_NAME="tuned",
            TEST_TASK="task-\udcff",
            PYTHONIOENCODING="ascii",
            LC_ALL="C",
        )
    assert done.returncode == 0, done.stderr
    assert "sample" in check(done.stdout.encode()).accepted_by
    assert r"task=task-\udcff " in done.stdout


def test_the_same_candidate_makes_the_same_requests_as_in_the_lab(project: Project) -> None:
    """One recorded episode in both ways: the requests are byte-equal."""
    code = (
        "import asyncio, pathlib\n"
        "from lab.llm.client import Endpoint, EndpointConfig\n"
        "from lab.environments.environment import open_environment\n"
        "from lab.submission.frozen import read_frozen\n"
        "from lab.search.player import Player\n"
        "from lab.experiment.budget import Spending\n"
        "import os\n"
        "async def main():\n"
        "    frozen = read_frozen(pathlib.Path('prompts/best.toml'))\n"
        "    config = EndpointConfig(os.environ['API_BASE_URL'], 'tuned', 'k')\n"
        "    async with open_environment(frozen.environment) as env, Endpoint(config) as endpoint:\n"
        "        player = Player(endpoint, env, frozen.task, 4, Spending())\n"
        "        await player.episode(frozen.candidate, 0)\n"
        "asyncio.run(main())\n"
    )

    def script(body: Body) -> Reply:
        return Reply(f"answer {{}} to {len(body['messages'])} messages, \u00fc\U0001f600")

    with fake_endpoint(script) as in_lab, fake_endpoint(script) as in_submission:
        done = project.run("-c", code, API_BASE_URL=in_lab.url)
        assert done.returncode == 0, done.stderr
        project.run("inference.py", API_BASE_URL=in_submission.url, MODEL_NAME="tuned", HF_TOKEN="k")
    assert len(in_lab.raw) == 8
    assert in_lab.raw == in_submission.raw
