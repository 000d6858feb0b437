"""A stand-in for the `docker` command: it starts the real echo server where Docker would start an image."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from textwrap import dedent

from tests.echo_server import ROOT, is_healthy

PACKAGE = ROOT / "lab" / "environments" / "echo"

# Knows what OpenEnv's LocalDockerProvider asks of `docker`: version, run -d --name N -p PORT:8000 IMAGE,
# stop ID, rm ID. A container is a file named by its id that holds the server's process id and port.
DOCKER = """
    import os, signal, socket, subprocess, sys, time
    from pathlib import Path

    CONTAINERS, PACKAGE = Path({containers!r}), {package!r}

    def run(options):
        port, image = options[options.index("-p") + 1].split(":")[0], options[-1]
        if image != "test:latest":
            sys.exit(f"Unable to find image '{{image}}' locally")
        server = subprocess.Popen(
            [sys.executable, "-m", "server.app", "--port", port], cwd=PACKAGE, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        (CONTAINERS / f"c{{server.pid}}").write_text(f"{{server.pid}} {{port}}")
        print(f"c{{server.pid}}")

    def stop(options):
        pid, port = map(int, (CONTAINERS / options[-1]).read_text().split())
        os.kill(pid, signal.SIGTERM)
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)):
                    return
            time.sleep(0.05)
        sys.exit("the server does not stop")

    def rm(options):
        (CONTAINERS / options[-1]).unlink()

    if sys.argv[1] != "version":
        dict(run=run, stop=stop, rm=rm)[sys.argv[1]](sys.argv[2:])
"""


class FakeDocker:
    """The stand-in, in a folder to put first on PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "bin"
        self.containers = folder / "containers"
        self.folder.mkdir()
        self.containers.mkdir()
        program = dedent(DOCKER).format(containers=str(self.containers), package=str(PACKAGE))
        command = self.folder / "docker"
        command.write_text(f"#!{sys.executable}\n{program}", encoding="utf-8")
        command.chmod(0o755)

    @property
    def path(self) -> str:
        """A PATH on which this `docker` comes first."""
        return f"{self.folder}{os.pathsep}{os.environ['PATH']}"

    def left_over(self) -> list[tuple[int, int]]:
        """Process id and port of each container that was not removed."""
        files = [file.read_text().split() for file in self.containers.iterdir()]
        return [(int(pid), int(port)) for pid, port in files]


@contextmanager
def fake_docker(folder: Path) -> Iterator[FakeDocker]:
    """The stand-in in `folder`; containers left running are stopped at the end."""
    stand_in = FakeDocker(folder)
    try:
        yield stand_in
    finally:
        for pid, port in stand_in.left_over():
            if is_healthy(f"http://127.0.0.1:{port}"):  # else the process id may be another's by now
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
