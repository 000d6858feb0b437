"""The embedded model as a child process: started, awaited and stopped by its owner.

It owns the process and its pipes, and uses only the standard library.
"""

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

_READY_S = 120.0
_TAIL_LINES = 4
_STOP_S = 5.0


class LocalModelProcess:
    """One running server. A context manager: leaving it stops the server.

    The server also stops by itself when this process ends for any reason.
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(
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
        self._url = ""
        self._answered = threading.Event()
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._heard_s = time.monotonic()
        work = (self._read_stdout, self._read_stderr)
        self._readers = [threading.Thread(target=read, daemon=True) for read in work]
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
        return cls()

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._process.pid

    @property
    def base_url(self) -> str:
        """The endpoint's URL, ending in `/v1`; waits until the server answers, which takes about 6 s.

        Raises:
            LocalModelError: The server ended, or was not ready within 120 s after its start or its last sign
                of progress of a conversion. It is stopped.
        """
        while not (ended := self._answered.is_set()) and self._left_s() > 0:
            self._answered.wait(self._left_s())
        if self._url:
            return self._url
        self.close()
        end = f"it ended with exit code {self._process.returncode}"
        raise LocalModelError(
            "The embedded model did not start",
            where=f"{sys.executable} -m lab.local_model",
            why=": ".join([end if ended else f"not ready in {_READY_S:g} s", *self._tail]),
            do="run python -m lab.local_model to see why, or set API_BASE_URL to use a hosted model",
        )

    def close(self) -> None:
        """Stop the server and wait until it has ended. A second call does nothing."""
        with self._process:  # closes the pipes, and waits
            self._process.terminate()
            try:
                self._process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
            for reader in self._readers:
                reader.join(_STOP_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _left_s(self) -> float:
        return self._heard_s + _READY_S - time.monotonic()

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
    assert pipe is not None
    return pipe
