"""What a submission survives: environments that print, exit, crash or hang; unreadable files.

Each prints START, the played steps and END, and ends with an exit code and a message on stderr.
"""

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.agent.candidate import Candidate
from lab.agent.template import PromptTemplate
from lab.environments.config import EnvironmentConfig
from lab.llm.sampling import SamplingParams
from lab.submission.checker import check
from lab.submission.freeze import freeze
from lab.submission.frozen import FrozenModel, FrozenPrompt
from tests.fake_endpoint import Body, Reply, fake_endpoint
from tests.project import TIMEOUT_S, Project
from tests.test_frozen import EVIDENCE, PROVENANCE, TASK
from tests.test_inference import checked

ENVIRONMENT = '''
"""An action's first word says what to do; the second says how."""

import ctypes
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import Action, Observation, State

print("imported")


class Say(Action):
    text: str


class Seen(Observation):
    heard: str


class Wild(Environment[Say, Seen, State]):
    def reset(self, seed: int | None = None, episode_id: str | None = None, **_: Any) -> Seen:
        return Seen(heard="ready")

    def step(self, action: Say, timeout_s: float | None = None, **_: Any) -> Seen:
        match action.text:
            case "print":
                print("[END] success=true steps=0 score=1.000 rewards=")
                sys.__stdout__.write("by the first stdout\\n")
                sys.__stdout__.flush()
            case "descriptor":
                os.write(1, b"[END] success=true steps=0 score=1.000 rewards=\\n")
            case "libc":
                libc = ctypes.CDLL(None)
                libc.printf(b"by libc\\n")
                libc.fflush(None)
            case "child":
                subprocess.run([sys.executable, "-c", "print('by a child')"], check=True)
            case "abort":
                os.abort()
            case "leave":
                os._exit(0)
            case "segv":
                ctypes.string_at(0)
            case "exit":
                sys.exit(0)
            case "interrupt":
                raise KeyboardInterrupt
            case "generator":
                raise GeneratorExit
            case "hold":
                Path("held").touch()
                ctypes.PyDLL(None).sleep(1000)  # with the interpreter's lock
            case "start":
                other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
                Path("started").write_text(str(other.pid))
                os._exit(3)
        return Seen(heard=action.text, reward=20.0)

    @property
    def state(self) -> State:
        return State()
'''


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project whose frozen prompt plays this environment."""
    project = Project.make(tmp_path / "project")
    project.write("wild.py", ENVIRONMENT)
    candidate = Candidate(PromptTemplate("mine", "Act.", "Step {step}: {observation}"), SamplingParams())
    wild = EnvironmentConfig(python="wild.py:Wild")
    frozen = FrozenPrompt(
        candidate, wild, TASK, FrozenModel("http://127.0.0.1:9/v1", "m"), EVIDENCE, PROVENANCE
    )
    freeze(frozen, project.folder / "prompts/best.toml")
    return project


def doing(*actions: str) -> Callable[[Body], Reply]:
    """A model that answers with the next of `actions` at each step, and then repeats the last."""

    def script(body: Body) -> Reply:
        found = re.search(r"[Ss]tep (\d+)", body["messages"][-1]["content"])
        return Reply(actions[min(int(found[1]) if found else 1, len(actions)) - 1])

    return script


def test_output_of_an_environment_goes_to_stderr(project: Project) -> None:
    with fake_endpoint(doing("print", "descriptor", "libc", "child", "quiet")) as endpoint:
        done = project.run("inference.py", API_BASE_URL=endpoint.url, MODEL_NAME="m")
    _, steps, end = checked(done.stdout)
    assert (len(steps), end[1], done.returncode) == (8, "true", 0)
    for printed in ("imported", "[END] success=true steps=0", "by the first", "by libc", "by a child"):
        assert printed in done.stderr


@pytest.mark.parametrize(
    ("action", "told"),
    [
        ("abort", "SIGABRT"),
        ("leave", "exit code 0"),
        ("segv", "SIGSEGV"),
    ],
)
def test_an_environment_that_leaves_ends_the_episode_with_end(
    project: Project, action: str, told: str
) -> None:
    with fake_endpoint(doing("fine", "fine", action)) as endpoint:
        done = project.run("inference.py", API_BASE_URL=endpoint.url, MODEL_NAME="m")
    _, steps, end = checked(done.stdout)
    assert len(steps) == 2
    assert end.groups() == ("false", "2", "0.333", "20.00,20.00")
    assert done.returncode == 1
    assert told in done.stderr


@pytest.mark.parametrize(
    ("action", "told"),
    [("exit", "SystemExit"), ("interrupt", "KeyboardInterrupt"), ("generator", "GeneratorExit")],
)
def test_an_environment_that_raises_system_exit_has_refused_the_action(
    project: Project, action: str, told: str
) -> None:
    with fake_endpoint(doing("fine", "fine", action)) as endpoint:
        done = project.run("inference.py", API_BASE_URL=endpoint.url, MODEL_NAME="m")
    _, steps, end = checked(done.stdout)
    assert len(steps) == 8
    assert done.stdout.count(told) == 6
    assert end[4] == "20.00,20.00" + ",0.00" * 6
    assert done.returncode == 0


def test_a_process_that_an_environment_started_does_not_outlive_it(project: Project) -> None:
    with fake_endpoint(doing("start")) as endpoint:
        done = project.run("inference.py", API_BASE_URL=endpoint.url, MODEL_NAME="m")
    checked(done.stdout)
    assert gone(int((project.folder / "started").read_text()))


def gone(pid: int) -> bool:
    """Whether a process ends within a minute."""
    last_s = time.monotonic() + 60
    while time.monotonic() < last_s:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        if Path(f"/proc/{pid}/stat").exists() and ") Z " in Path(f"/proc/{pid}/stat").read_text():
            return True  # nobody is here to reap it
        time.sleep(0.05)
    return False


def test_the_deadline_ends_an_environment_that_holds_the_interpreter(project: Project) -> None:
    with fake_endpoint(doing("fine", "hold")) as endpoint:
        began = time.monotonic()
        done = project.run("inference.py", API_BASE_URL=endpoint.url, MODEL_NAME="m", DEADLINE_S="45")
    assert time.monotonic() - began < 55  # a busy machine takes its time to end, too
    _, steps, end = checked(done.stdout)
    assert (len(steps), end[1], done.returncode) == (1, "false", 1)
    assert "SIGKILL" in done.stderr


def held(project: Project, process: "subprocess.Popen[str]") -> int:
    """Process id of the child, once its environment holds the interpreter."""
    while not (project.folder / "held").exists():
        assert process.poll() is None
        time.sleep(0.05)
    (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(child)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_ends_an_environment_that_holds_the_interpreter(
    project: Project, number: signal.Signals
) -> None:
    with fake_endpoint(doing("fine", "hold")) as endpoint:
        process = project.start("inference.py", API_BASE_URL=endpoint.url, MODEL_NAME="m")
        child = held(project, process)
        process.send_signal(number)
        out, _ = process.communicate(timeout=TIMEOUT_S)
    _, steps, end = checked(out)
    assert (len(steps), end[1], process.returncode) == (1, "false", 128 + number)
    assert gone(child)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc; elsewhere a thread of the child looks")
def test_a_child_does_not_outlive_a_submission_that_is_killed(project: Project) -> None:
    with fake_endpoint(doing("hold")) as endpoint:
        process = project.start("inference.py", API_BASE_URL=endpoint.url, MODEL_NAME="m")
        child = held(project, process)
        process.kill()
        process.communicate(timeout=TIMEOUT_S)
    assert gone(child)


def not_utf8(path: Path) -> None:
    path.write_bytes(b"HF_TOKEN=\xff\xfe")


def a_null(path: Path) -> None:
    path.write_bytes(b'HF_TOKEN="a\x00b"')


def a_socket(path: Path) -> None:
    os.mknod(path, 0o600 | 0o140000)


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**34)


def nested(path: Path) -> None:
    path.write_text("format = 3\nx = " + "[" * 100_000)


@pytest.mark.parametrize("spoil", [not_utf8, a_null, Path.mkdir, os.mkfifo, a_socket, huge])
def test_an_unreadable_dotenv_is_reported(project: Project, spoil: Callable[[Path], None]) -> None:
    spoil(project.folder / ".env")
    done = project.run("inference.py", MODEL_NAME="m")
    start, steps, end = checked(done.stdout)
    assert start.groups() == ("echo", "test", "m")
    assert (steps, end[1], done.returncode) == ([], "false", 1)
    assert ".env" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("spoil", "command"), [(not_utf8, ("-m", "lab.tune", "--dry-run")), (os.mkfifo, ("-m", "lab.play"))]
)
def test_the_commands_report_it_with_the_same_message(
    project: Project, spoil: Callable[[Path], None], command: tuple[str, ...]
) -> None:
    spoil(project.folder / ".env")
    done = project.run(*command)
    assert (done.stdout, done.returncode) == ("", 2)
    assert "The variables in .env cannot be read." in done.stderr
    assert len(done.stderr.splitlines()) <= 4


def test_stdout_has_only_the_json_result(project: Project) -> None:
    """The environment prints at each step, also with `os.write`."""
    project.write("experiments/wild.py", ENVIRONMENT)
    text = (project.folder / "experiments/smoke.toml").read_text()
    wild = re.sub(r"python = .*\ntext = .*", 'python = "wild.py:Wild"', text)
    project.write("experiments/wild.toml", wild.replace("max_steps = 5", "max_steps = 2"))
    answers = itertools.cycle(["print", "descriptor", "libc"])
    with fake_endpoint(lambda _: Reply(next(answers))) as endpoint:
        done = project.run(
            *("-m", "lab.tune", "experiments/wild.toml", "--json"),
            API_BASE_URL=endpoint.url,
            MODEL_NAME="m",
        )
    assert done.returncode == 0, done.stderr
    assert isinstance(json.loads(done.stdout), dict)
    assert "by libc" in done.stderr


@pytest.mark.parametrize("spoil", [nested, os.mkfifo, Path.mkdir, huge])
def test_an_unreadable_frozen_file_is_reported(project: Project, spoil: Callable[[Path], None]) -> None:
    path = project.folder / "other.toml"
    spoil(path)
    done = project.run("inference.py", "other.toml")
    _, steps, end = checked(done.stdout)
    assert (steps, end[1], done.returncode) == ([], "false", 1)
    assert "other.toml" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("closed", ["2>&-", "0<&- 2>&-"])
def test_without_stderr_a_note_does_not_go_to_stdout(project: Project, closed: str) -> None:
    with fake_endpoint(doing("print", "fine")) as endpoint:
        done = subprocess.run(
            ["sh", "-c", f'exec "$0" inference.py {closed}', sys.executable],
            cwd=project.folder,
            env=project.environ(API_BASE_URL=endpoint.url, MODEL_NAME="another"),
            stdout=subprocess.PIPE,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    _, steps, _ = checked(done.stdout)
    assert len(steps) == 8
    assert done.returncode == 0


def test_names_with_blanks_are_one_word_on_start(project: Project) -> None:
    with fake_endpoint(doing("fine")) as endpoint:
        done = project.run(
            "inference.py",
            API_BASE_URL=endpoint.url,
            MODEL_NAME="my  model",
            TEST_TASK="a\ttask",
            TEST_BENCHMARK="the\u00a0bench",
        )
    start, _, _ = checked(done.stdout)
    assert start.groups() == ("a_task", "the_bench", "my_model")
    assert {body["model"] for body in endpoint.requests} == {"my  model"}
    assert "'my  model' as 'my_model'" in done.stderr
    assert "sample" in check(done.stdout.encode()).accepted_by


@pytest.mark.parametrize("arguments", [("a.toml", "b.toml"), ("--seed", "1"), ("-x",)])
def test_an_invalid_command_line_plays_nothing(project: Project, arguments: tuple[str, ...]) -> None:
    done = project.run("inference.py", *arguments)
    assert (done.stdout, done.returncode) == ("", 2)
    assert "usage: inference.py" in done.stderr


@pytest.mark.parametrize("answer", ["", "not the form"])
def test_an_episode_without_an_action_of_the_models_is_no_success(project: Project, answer: str) -> None:
    """Its score reaches the success score without a valid action."""
    path = project.folder / "prompts/best.toml"
    path.write_text(path.read_text().replace("success_score = 0.1", "success_score = 0.0"))
    if answer:  # what is not the fallback's doing is refused: the action has two fields
        wild = project.folder / "wild.py"
        wild.write_text(wild.read_text().replace("    text: str\n", "    text: str\n    more: int\n"))
    with fake_endpoint(lambda _: Reply(answer)) as endpoint:
        done = project.run("inference.py", API_BASE_URL=endpoint.url, MODEL_NAME="m")
    _, steps, end = checked(done.stdout)
    assert len(steps) == 8
    assert all(step[5] != "null" for step in steps)
    assert (end[1], done.returncode) == ("false", 0)


def test_a_frozen_file_is_played_and_compared_by_its_path(project: Project) -> None:
    best, other = project.folder / "prompts/best.toml", project.folder / "elsewhere/other.toml"
    other.parent.mkdir()
    best.rename(other)
    with fake_endpoint(doing("print", "fine")) as endpoint:
        settings = {"API_BASE_URL": endpoint.url, "MODEL_NAME": "m"}
        done = project.run("inference.py", "elsewhere/other.toml", **settings)
        played = project.run("-m", "lab.play", "elsewhere/other.toml", **settings)
        missing = project.run("-m", "lab.play", "elsewhere/absent.toml", **settings)
        compared = project.run(
            "-m", "lab.compare", "elsewhere/other.toml", "baseline", "--episodes", "2", **settings
        )
    _, steps, _ = checked(done.stdout)
    assert (len(steps), done.returncode) == (8, 0), done.stderr
    assert played.returncode == 0, played.stderr
    assert played.stdout.startswith("Playing elsewhere/other.toml on m")
    assert "by the first stdout" not in played.stdout  # what the environment prints
    assert "by the first stdout" in played.stderr
    assert compared.returncode == 0, compared.stderr
    assert "No difference between elsewhere/other.toml and baseline" in compared.stdout
    assert missing.returncode == 2
    assert "The frozen prompt does not exist" in missing.stderr
    assert "elsewhere/absent.toml" in missing.stderr


def test_importing_the_script_does_nothing(project: Project) -> None:
    code = (
        "import os, signal, inference\n"
        "assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())\n"
        "os.write(1, b'still stdout')\n"
    )
    done = project.run("-c", code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "still stdout", "")
