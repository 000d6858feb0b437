"""Output: the real stdout, written from a separate thread, so that a slow reader blocks nothing.

It owns the standard file descriptors. Foreign code in this process may print: therefore the real stdout is
duplicated, and descriptor 1 redirected to stderr. The lines' format is `lab.submission.contract`'s.
"""

import os
import queue
import select
import sys
import threading

STDIN, STDOUT, STDERR = 0, 1, 2

_real: int | None = STDOUT


def take_stdout() -> int | None:
    """Reserve the real stdout for the lab's lines, and redirect descriptor 1 and `sys.stdout` to stderr.

    Returns:
        The real stdout's descriptor, which child processes do not inherit; None if stdout was closed.
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
    """Open a closed descriptor on /dev/null; otherwise the next opened file would get it."""
    try:
        os.fstat(descriptor)
    except OSError:
        os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # gets the lowest free number
        return False
    return True


def print_result(text: str) -> None:
    """Write `text` and a newline to the real stdout, wherever `sys.stdout` points now.

    Raises:
        OSError: The reader has closed it.
    """
    if _real is not None:
        _write(_real, f"{text}\n")


def _write(descriptor: int, text: str) -> None:
    data = memoryview(text.encode("utf-8", "backslashreplace"))
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:  # the parent process made it non-blocking
            select.select([], [descriptor], [])


class Output:
    """Writes whole lines in order, as fast as the reader accepts them.

    Args:
        descriptor: Target file descriptor; None for a stdout that was closed.
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
            OSError, ValueError: An earlier line found stdout closed.
        """
        if self._error is not None:
            raise self._error
        self._lines.put(line)

    def end(self) -> None:
        """End the output after the queued lines."""
        self._lines.put(None)

    @property
    def over(self) -> bool:
        """Whether everything is written, or nothing more can be."""
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
