"""A real echo server in a separate process, on loopback."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from lab.environments.config import EnvironmentConfig

ROOT = Path(__file__).resolve().parents[1]
ECHO = EnvironmentConfig(
    python="lab.environments.echo.server.echo_environment:EchoEnvironment", text="echoed_message"
)
START_TIMEOUT_S = 300.0
STOP_TIMEOUT_S = 60.0


def without_gradio(folder: Path) -> str:
    """A PYTHONPATH entry without gradio, as in the image: OpenEnv starts in a third of the time."""
    (folder / "gradio.py").write_text("raise ModuleNotFoundError('left out by the tests')\n")
    return str(folder)


def free_port() -> int:
    """A free port on loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def is_healthy(url: str) -> bool:
    """Whether an environment server answers at this URL."""
    with suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=2) as answer:
        return bool(answer.status == 200)
    return False


def wait_until_healthy(url: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until the server answers; fail if its process ends or the time is up."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while not is_healthy(url):
        if process.poll() is not None:
            raise RuntimeError(f"the echo server ended with exit code {process.returncode}")
        if time.monotonic() > deadline:
            raise TimeoutError(f"no echo server at {url} within {START_TIMEOUT_S} s")
        time.sleep(0.05)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Terminate the process, and kill it if it does not end."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(STOP_TIMEOUT_S)


@contextmanager
def echo_server() -> Iterator[str]:
    """Serve the echo environment while the block runs; yields its base URL."""
    with server("-m", "lab.environments.echo.server.app") as url:
        yield url


@contextmanager
def server(*program: str, cwd: Path = ROOT) -> Iterator[str]:
    """Run `python *program --port PORT` while the block runs; yields its base URL once it is healthy."""
    port = free_port()
    command = [sys.executable, *program, "--port", str(port)]
    with TemporaryDirectory() as folder:
        settings = {"PYTHONPATH": without_gradio(Path(folder)), "ENABLE_WEB_INTERFACE": "false"}
        process = subprocess.Popen(command, cwd=cwd, env=os.environ | settings)
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until_healthy(url, process)
            yield url
        finally:
            stop(process)
