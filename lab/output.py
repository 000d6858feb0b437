"""Output: lines to stdout from a thread of its own, so that nobody who reads slowly, or not at all, stops us.

What a line says is `lab.contract`'s. A pipe that is full blocks whoever writes to it: signals and the
deadline have to be seen all the same.
"""

import queue
import sys
import threading


class Output:
    """Writes lines whole and in order, each as soon as the reader takes it."""

    def __init__(self) -> None:
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        closed = ValueError("stdout was closed from the start")
        self._error: OSError | ValueError | None = closed if sys.stdout is None else None
        self._thread = threading.Thread(target=self._write, name="output", daemon=True)
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

    def _write(self) -> None:
        try:
            while (line := self._lines.get()) is not None:
                sys.stdout.write(f"{line}\n")
                sys.stdout.flush()
        except (OSError, ValueError) as error:
            self._error = error
