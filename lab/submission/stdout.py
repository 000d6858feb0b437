"""Output: the real stdout, and lines to it from a separate thread, so that a slow reader stops nothing.

It owns the standard descriptors. Code of others that runs in this process may print: the real stdout is taken
aside, and descriptor 1 is pointed at stderr. What a line says is `lab.submission.contract`'s.
"""

import os
import queue
import select
import sys
import threading

STDIN, STDOUT, STDERR = 0, 1, 2

_real: int | None = STDOUT


def take_stdout() -> int | None:
    """Keep the real stdout for the lab's own lines, and point descriptor 1 and `sys.stdout` at stderr.

    Returns:
        The real stdout's descriptor, which no child process inherits; None where stdout was never open.
    """
    global _real
    if _real != STDOUT:
        return _real
    was_open = [_open_at_least(descriptor) for descriptor in (STDIN, STDOUT, STDERR)]
    if sys.stderr is None:  # else a note would be printed to stdout
        sys.stderr = open(STDERR, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    if sys.stdout is not None:
        sys.stdout.flush()
    _real = os.dup(STDOUT) if was_open[STDOUT] else None
    os.dup2(STDERR, STDOUT)
    sys.stdout = sys.stderr
    return _real


def _open_at_least(descriptor: int) -> bool:
    """Open it on /dev/null where it is closed, or the next file that is opened would get it."""
    try:
        os.fstat(descriptor)
    except OSError:
        os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest that is free
        return False
    return True


def print_result(text: str) -> None:
    """Write `text` and a line end to the real stdout, wherever `sys.stdout` points by now.

    Raises:
        OSError: nobody reads it any more.
    """
    if _real is not None:
        _write(_real, f"{text}\n")


def _write(descriptor: int, text: str) -> None:
    data = memoryview(text.encode("utf-8", "backslashreplace"))
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:  # whoever started us made it so
            select.select([], [descriptor], [])


class Output:
    """Writes lines whole and in order, each as soon as the reader takes it.

    Args:
        descriptor: where to; None for a stdout that was never open.
    """

    def __init__(self, descriptor: int | None) -> None:
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._error: OSError | ValueError | None = None
        if descriptor is None:
            self._error = ValueError("stdout was closed from the start")
        self._thread = threading.Thread(target=self._work, args=(descriptor,), name="output", daemon=True)
        self._thread.start()

    def show(self, line: str) -> None:
        """Queue one line.

        Raises:
            OSError, ValueError: stdout is closed, as an earlier line found.
        """
        if self._error is not None:
            raise self._error
        self._lines.put(line)

    def end(self) -> None:
        """No further line comes."""
        self._lines.put(None)

    @property
    def over(self) -> bool:
        """Whether all is written, or nothing more can be."""
        return not self._thread.is_alive()

    @property
    def whole(self) -> bool:
        """Whether every line was written."""
        return self.over and self._error is None

    def _work(self, descriptor: int | None) -> None:
        try:
            while descriptor is not None and (line := self._lines.get()) is not None:
                _write(descriptor, f"{line}\n")
        except (OSError, ValueError) as error:
            self._error = error
