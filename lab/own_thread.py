"""An OwnThread: one thread that makes calls in the order in which they come.

It owns the thread, which is a daemon: a call that never returns does not keep the process from ending, as it
would in a `ThreadPoolExecutor`.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread
from typing import Any

from lab.foreign import foreign


class OwnThread:
    """Started at once; ends after the last call once it was told to."""

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        Thread(target=self._work, name=name, daemon=True).start()

    async def call(self, make: Callable[[], Any]) -> Any:  # noqa: ANN401  # of foreign code
        """What `make` returns; cancelled, it is left to itself.

        Raises:
            ForeignError: it raised anything but a LabError.
        """
        made = Future[Any]()
        self._calls.put((made, make))
        return await asyncio.wrap_future(made)

    def end(self) -> None:
        """No further call will come."""
        self._calls.put(None)

    def _work(self) -> None:
        while (one := self._calls.get()) is not None:
            made, make = one
            if not made.set_running_or_notify_cancel():
                continue
            try:
                with foreign():
                    result = make()
            except Exception as error:
                made.set_exception(error)
            else:
                made.set_result(result)
