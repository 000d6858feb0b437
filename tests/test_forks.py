"""A command in a fork of `tests.commands` starts and ends as in a separate interpreter."""

import signal
import subprocess
from pathlib import Path

import pytest

from tests.commands import Forked
from tests.project import TIMEOUT_S, Project

PROBE = """
import atexit, os, random, signal, sys, threading

named = sorted(name for name in sys.modules if name.partition(".")[0] in ("tests", "inference"))
print(sys.argv[1:], sys.orig_argv[1:], sys.path[0], os.getcwd(), __name__, sys.stdin.read(), named)
print(sys.stdout.encoding, sys.stdout.line_buffering, sys.stderr.encoding, sorted(os.environ.items()))
print(signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGCHLD), len(os.listdir("/proc/self/fd")))
atexit.register(print, "the end")
thread = threading.Timer(0.1, print, ["a thread"])
thread.start()
print("random", random.random(), file=sys.stderr)
how = sys.argv[1]
if how == "raise":
    raise KeyError("unknown")
if how.startswith("kill"):
    os.kill(os.getpid(), int(how.split()[1]))
if how == "wait":
    thread.join()
    print("waiting", flush=True)
    signal.pause()
sys.exit({"zero": None, "three": 3, "words": "in words"}.get(how))
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project(tmp_path)
    project.write("probe.py", PROBE)
    return project


def random_of(done: "subprocess.CompletedProcess[str]") -> str:
    return done.stderr.splitlines()[0]


@pytest.mark.parametrize("how", ["zero", "three", "words", "raise", "kill 2", "kill 9", "kill 15"])
def test_it_starts_and_ends_as_in_a_separate_interpreter(project: Project, how: str) -> None:
    command = ("-m", "probe", how, "--flag")
    forked, fresh = project.run(*command, MODEL_NAME="m"), project.afresh.run(*command, MODEL_NAME="m")
    assert forked.returncode == fresh.returncode
    assert forked.stdout == fresh.stdout
    assert forked.stderr.splitlines()[1:][-1:] == fresh.stderr.splitlines()[1:][-1:]
    assert random_of(forked) != random_of(project.run(*command))


def test_it_is_signalled_and_waited_for_as_any_process(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")  # as the lab does in this process: it makes no difference
    process = project.start("-m", "probe", "wait")
    assert isinstance(process, Forked)
    assert process.stdout is not None
    while process.stdout.readline() != "waiting\n":
        assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.communicate(timeout=0.1)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, out) == (-signal.SIGTERM, "")
    assert err.startswith("random")
    process.kill()  # it is gone, and nobody else is hit


@pytest.mark.parametrize(
    ("command", "settings"),
    [
        (("-c", "pass"), {}),
        (("probe.py", "zero"), {}),
        (("-m", "probe", "zero"), {"PYTHONIOENCODING": "ascii"}),
    ],
)
def test_commands_that_depend_on_their_start_get_a_new_interpreter(
    project: Project, command: tuple[str, ...], settings: dict[str, str]
) -> None:
    process = project.start(*command, **settings)
    process.communicate(timeout=TIMEOUT_S)
    assert not isinstance(process, Forked)
    assert process.returncode == 0
