"""The embedded model as a child process: started, awaited and stopped by its owner.

It owns the process and its pipes, and uses only the standard library.
"""

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import IO, Self

from lab.errors import LocalModelError
from lab.local_model.weights import check_runtime, find_model

READY_PREFIX = "The embedded model listens at "
"""Start of the server's single line on stdout; its URL follows."""

PROGRESS_PREFIX = "The embedded model: "
"""Start of the server's lines on stderr that tell of its progress; they are passed on."""

_SECRETS = ("KEY", "TOKEN", "PASSWORD", "_BASE_URL", "LAB_STORAGE", "TRACKING_URI")
"""Parts of the names of variables that may hold a secret."""

_TAIL_LINES = 20
_STOP_S = 5.0


def start(timeout_s: float = 120) -> "LocalModelProcess":
    """Start the embedded model and wait until it answers; loading takes about 6 s.

    Raises:
        LocalModelError: It is not installed, ended, or was not ready in time.
    """
    process = LocalModelProcess.launch()
    process.wait_ready(timeout_s)
    return process


class LocalModelProcess:
    """One running server. A context manager: leaving it stops the server.

    The server also stops by itself when this process ends for any reason.
    """

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self._url = ""
        self._answered = threading.Event()
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._heard_s = time.monotonic()
        self._readers = [
            threading.Thread(target=self._read_stdout, daemon=True),
            threading.Thread(target=self._read_stderr, daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    @classmethod
    def launch(cls) -> Self:
        """Start the process and return at once, while it loads.

        Raises:
            LocalModelError: The runtime is not installed, or the weights are missing or unusable.
        """
        find_model()
        check_runtime()
        return cls(
            subprocess.Popen(
                [sys.executable, "-m", "lab.local_model", "--port", "0", "--with-parent"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=child_environment(),
                start_new_session=True,  # the parent handles Ctrl-C in the terminal
                text=True,
                encoding="utf-8",
                errors="replace",
            )
        )

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._process.pid

    @property
    def base_url(self) -> str:
        """The endpoint's URL, ending in `/v1`; waits for the server if necessary.

        Raises:
            LocalModelError: The server did not become ready.
        """
        return self.wait_ready()

    def wait_ready(self, timeout_s: float = 120) -> str:
        """Wait until the server answers, and return its `base_url`. On failure it is stopped.

        The time starts anew with each sign of progress of a conversion.

        Raises:
            LocalModelError: It ended, or was not ready in time.
        """
        in_time = self._answers(timeout_s)
        if self._url:
            return self._url
        self.close()
        why = (
            f"it ended with exit code {self._process.returncode}"
            if in_time
            else f"not ready in {timeout_s:g} s"
        )
        raise LocalModelError(
            "The embedded model did not start",
            where=f"{sys.executable} -m lab.local_model",
            why=": ".join([why, *list(self._tail)[-4:]]),
            do="run python -m lab.local_model to see why, or set API_BASE_URL to use a hosted model",
        )

    async def ready(self, timeout_s: float = 120) -> str:
        """`wait_ready` as a coroutine, without blocking the event loop."""
        return await asyncio.to_thread(self.wait_ready, timeout_s)

    def close(self) -> None:
        """Stop the server and wait until it has ended. A second call does nothing."""
        self._process.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for reader in self._readers:
            reader.join(_STOP_S)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            _stream(pipe).close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _answers(self, timeout_s: float) -> bool:
        self._heard_s = time.monotonic()
        while (left_s := self._heard_s + timeout_s - time.monotonic()) > 0:
            if self._answered.wait(left_s):
                return True
        return False

    def _read_stdout(self) -> None:
        for line in _stream(self._process.stdout):
            if line.startswith(READY_PREFIX):
                self._url = line.removeprefix(READY_PREFIX).strip()
                self._answered.set()
        self._answered.set()

    def _read_stderr(self) -> None:
        for line in _stream(self._process.stderr):
            if line.startswith(PROGRESS_PREFIX):
                self._heard_s = time.monotonic()
                print(line, end="", file=sys.stderr, flush=True)  # noqa: T201
            else:
                self._tail.append(line.rstrip())


def child_environment() -> dict[str, str]:
    """The child's environment variables: this process's without secrets, and with `lab` importable."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not any(part in name.upper() for part in _SECRETS)
    }
    root = Path(__file__).resolve().parents[2]
    if root.name != "site-packages":
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (environment.get("PYTHONPATH"), str(root))))
    return environment


def _stream(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None, "launch() opens all three pipes"
    return pipe
