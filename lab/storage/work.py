"""The time that was worked on a study, by its journal: pauses between processes do not count."""

from lab.storage.journal import Event, Opened


class Work:
    """Seconds in which at least one worker was at work, from its opening to the last that it wrote."""

    def __init__(self) -> None:
        self._before_s, self._began_s, self._last_s = 0.0, 0.0, 0.0
        self._open = set[str]()

    def wrote(self, at: float, worker: str, event: Event) -> None:
        """A worker wrote an entry of the journal at `at`, in seconds since 1970."""
        # A process that opens, while of those before it nobody writes any more, begins a stretch of its own.
        if isinstance(event, Opened) and (event.alone or not self._open):
            self._before_s += self._last_s - self._began_s
            self._began_s = self._last_s = at  # also where the clock was set back since
            self._open.clear()
        self._open.add(worker)
        self._last_s = max(at, self._last_s)

    @property
    def seconds(self) -> float:
        """All stretches together."""
        return self._before_s + self._last_s - self._began_s
