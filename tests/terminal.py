"""A real terminal for a command: a pty of a given size, and everything written to it."""

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.project import TIMEOUT_S, Project


@dataclass
class Terminal:
    """A command running in a terminal, to which stdout is also connected.

    Attributes:
        text: Everything written so far, with escapes.
    """

    process: "subprocess.Popen[bytes]"
    _screen: int
    text: str = ""
    _bytes: bytearray = field(default_factory=bytearray)

    @classmethod
    def start(cls, project: Project, *command: str, columns: int, lines: int, **settings: str) -> "Terminal":
        """Start `python *command` in the project's folder."""
        screen, keyboard = pty.openpty()
        _resize(screen, columns, lines)
        environ = project.environ(TERM="xterm-256color", **settings)
        for name in ("COLUMNS", "LINES", "FORCE_COLOR"):
            environ.pop(name, None)
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=project.folder,
            env=environ,
            start_new_session=True,
            stdin=keyboard,
            stdout=keyboard,
            stderr=keyboard,
        )
        os.close(keyboard)
        return cls(process, screen)

    def type(self, text: str) -> None:
        """As a person at the keyboard."""
        os.write(self._screen, text.encode())

    def resize(self, columns: int, lines: int) -> None:
        """Resize the window, as a user does."""
        _resize(self._screen, columns, lines)

    def read(self, until: Callable[[str], bool] = lambda _: False) -> str:
        """Read until the text matches, or to the command's end."""
        deadline = time.monotonic() + TIMEOUT_S
        while not until(self.text):
            assert time.monotonic() < deadline, self.text[-3000:]
            if not select.select([self._screen], [], [], 0.2)[0]:
                continue
            try:
                self._bytes += os.read(self._screen, 65536)
            except OSError:  # Linux's way to say that nobody has it open any more
                break
            self.text = self._bytes.decode("utf-8", "replace")
        return self.text

    def close(self) -> int:
        """Return the exit code; kill the command if it has not ended."""
        try:
            self.read()
            return self.process.wait(TIMEOUT_S)
        finally:
            self.process.kill()
            self.process.wait()
            os.close(self._screen)


def _resize(screen: int, columns: int, lines: int) -> None:
    fcntl.ioctl(screen, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
