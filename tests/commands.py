"""Commands of a test in processes that have already imported the lab: 5 s less CPU each.

A server, one for each pytest process, imports the lab's rooms and dependencies and forks for every command. A
fork ends like any interpreter, because it continues as the server's main program; but its memory is not torn
down.
"""

import atexit
import gc
import importlib
import json
import os
import pkgutil
import runpy
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

_PRELOADED = (
    *("openai.resources.chat.completions", "openai.lib.streaming.chat", "aiohttp", "httpx", "httpcore2"),
    *("trio", "anyio.streams.tls", "truststore", "dotenv", "json_repair", "jsonschema", "referencing"),
    *("pydantic", "typer", "rich.live", "rich.table", "jinja2", "tomli_w", "gepa"),
    *("numpy", "scipy.linalg", "scipy.special", "sqlalchemy.dialects.sqlite", "sqlalchemy.orm"),
    *("openenv.core.generic_client", "openenv.core.env_server.http_server"),
    *("optuna", "optuna.importance", "optuna.storages._rdb.models", "sklearn.ensemble"),
    *("alembic.command", "alembic.config", "mlflow", "mlflow.tracing.client"),
    *("mlflow.entities.model_registry", "mlflow.store.artifact.local_artifact_repo"),
    *("mlflow.store.tracking.sqlalchemy_workspace_store", "mlflow.store.tracking.file_store"),
    "mlflow.store.model_registry.sqlalchemy_workspace_store",
)
"""Modules that a study has imported at its end, except dspy, which opens a database on import."""

_MOST = 1 << 17
"""Maximum bytes of a request: a command and its environment."""


class Forked(subprocess.Popen[str]):
    """A command in a fork of the server, with the interface of a `Popen` with pipes."""

    def __init__(
        self, server: socket.socket, command: tuple[str, ...], cwd: Path, environ: Mapping[str, str]
    ) -> None:
        self.args, self.returncode, self.stdin = [sys.executable, *command], None, None
        self._told, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        (out, out_end), (err, err_end) = os.pipe(), os.pipe()
        nothing = os.open(os.devnull, os.O_RDONLY)
        wanted = json.dumps({"command": command, "cwd": str(cwd), "environ": dict(environ)}).encode()
        socket.send_fds(server, [wanted], [nothing, out_end, err_end, theirs.fileno()])
        theirs.close()
        for end in (nothing, out_end, err_end):
            os.close(end)
        self.stdout, self.stderr = os.fdopen(out, encoding="utf-8"), os.fdopen(err, encoding="utf-8")
        self.pid = int(self._told.recv(64))
        self._read, self._readers = dict[IO[str], str](), dict[IO[str], threading.Thread]()

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, as `Popen` has it.

        Raises:
            TimeoutExpired: The command is still running after `timeout` seconds.
        """
        if self.returncode is None:
            self._told.settimeout(timeout)
            try:
                self.returncode = int(self._told.recv(64))
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired(self.args, timeout or 0) from None
            self._told.close()
        return self.returncode

    def poll(self) -> int | None:
        """Wait for the exit code."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def send_signal(self, sig: int) -> None:
        """Send a signal if the command is running."""
        if self.poll() is None:
            os.kill(self.pid, sig)

    def communicate(self, input: str | None = None, timeout: float | None = None) -> tuple[str, str]:
        """Read to the command's end; after `TimeoutExpired` the next call also returns the earlier output."""
        assert input is None, "it reads nothing"
        streams = [stream for stream in (self.stdout, self.stderr) if stream]
        for stream in streams:
            if not stream.closed and stream not in self._readers:
                self._readers[stream] = threading.Thread(target=self._drain, args=[stream], daemon=True)
                self._readers[stream].start()
        for reader in self._readers.values():
            reader.join(timeout)
            if reader.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
        self.wait(timeout)
        out, err = (self._read[stream] if stream in self._readers else "" for stream in streams)
        return out, err

    def _drain(self, stream: IO[str]) -> None:
        with stream:
            self._read[stream] = stream.read()


@dataclass(frozen=True)
class Server:
    """A running server.

    Attributes:
        environ: Environment variables of the server.
    """

    requests: socket.socket
    environ: Mapping[str, str]

    def serves(self, command: tuple[str, ...], environ: Mapping[str, str], read_late: Iterable[str]) -> bool:
        """Whether a command is the same in a fork: a module, in the server's environment but for `read_late`.

        Other variables may be read on import, or when the interpreter starts.
        """
        other = {name for name, _ in environ.items() ^ self.environ.items()}
        return command[0] == "-m" and other <= set(read_late)

    def start(self, command: tuple[str, ...], folder: Path, environ: Mapping[str, str]) -> Forked:
        """Start `python *command` in a folder."""
        return Forked(self.requests, command, folder, environ)


_servers = list[Server]()


def server(environ: Mapping[str, str]) -> Server | None:
    """The server of this process, started at the first call; None if forks are not safe."""
    if not _servers and sys.platform == "linux":
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                env=environ,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        _servers.append(Server(ours, environ))
        atexit.register(process.wait)
        atexit.register(ours.close)
    return _servers[0] if _servers else None


def _preload() -> None:
    """Import OpenEnv without gradio, as `lab.environments.environment` does."""
    sys.path[0] = str(Path(__file__).parent.parent)
    sys.modules["gradio"] = None  # type: ignore[assignment]
    for name in (*_PRELOADED, *_rooms()):
        importlib.import_module(name)
    del sys.modules["gradio"]
    assert threading.active_count() == 1, "a thread would be lost in a fork"
    gc.freeze()  # or each fork copies what a collection touches


def _rooms() -> Iterable[str]:
    """The modules in the lab's rooms, but for the embedded model's, which has a process of its own."""
    lab = importlib.import_module("lab")
    for room in pkgutil.iter_modules(lab.__path__, "lab."):
        if room.ispkg and room.name != "lab.local_model":
            path = importlib.import_module(room.name).__path__
            yield from (module.name for module in pkgutil.walk_packages(path, f"{room.name}."))


def _serve(requests: socket.socket) -> list[str]:
    """Fork for every request; returns the command, in its own process, or ends with the tests."""
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)  # one at the terminal is for the tests
    while True:
        wanted, fds, _, _ = socket.recv_fds(requests, _MOST, 4)
        _count_time()
        if not wanted:
            sys.exit()
        if os.fork():
            for fd in fds:
                os.close(fd)
            continue
        requests.close()
        _watch(fds)
        signal.signal(signal.SIGINT, interrupt)
        return _become(json.loads(wanted), fds)


def _count_time() -> None:
    """Wait for ended commands, so that their time counts as the tests'."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _watch(fds: list[int]) -> None:
    """Fork once more, and report how the fork ends; returns in the fork."""
    told = socket.socket(fileno=fds.pop())
    if pid := os.fork():
        for fd in fds:
            os.close(fd)
        told.send(str(pid).encode())
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        told.send(str(code).encode())
        os._exit(0)
    told.close()


def _become(wanted: dict[str, Any], fds: list[int]) -> list[str]:
    """Restore the state of a new interpreter that starts a command."""
    for number, fd in enumerate(fds):
        os.dup2(fd, number)
        os.close(fd)
    os.chdir(wanted["cwd"])
    os.environ.clear()
    os.environ.update(wanted["environ"])
    sys.path[0] = wanted["cwd"]
    command: list[str] = wanted["command"]
    sys.orig_argv = [sys.executable, *command]
    return command


def _run(module: str, codes: list[int]) -> None:
    """Run a module as the main program; `codes` gets its exit code unless it ends otherwise."""
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as error:
        codes.append(error.code & 0xFF if isinstance(error.code, int) else int(error.code is not None))
        raise
    except Exception:
        codes.append(1)
        raise
    codes.append(0)


def _leave(codes: list[int]) -> None:
    """The last exit handler of a fork: tearing down its modules would copy most of the server's memory."""
    with suppress(Exception):  # whatever cannot be flushed is the interpreter's to report
        if codes:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(codes[0])


if __name__ == "__main__":
    _codes = list[int]()
    atexit.register(_leave, _codes)  # before all others, which run first
    _preload()
    _, _module, *sys.argv[1:] = _serve(socket.socket(fileno=int(sys.argv[1])))
    _run(_module, _codes)
