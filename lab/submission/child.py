"""A Child: a forked process that runs code which may take its process down, and sends messages to its parent.

It owns the fork, the pipe, and ending the child with all processes that it started. The caller defines the
messages. Fork before starting a thread or an event loop.
"""

import asyncio
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NoReturn

Message = Mapping[str, Any]
Tell = Callable[[Message], None]
Hear = Callable[[Message], bool]
"""Handles a message; returns whether it was the last."""

REAP_S = 1.0
"""Seconds to wait for a killed child to end."""

_PARENT_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG, of prctl(2)."""


class Child:
    """The child process, as seen by its parent.

    Args:
        work: Function that the child runs; its argument sends a message to the parent.
        without: A file descriptor that the child does not inherit.

    Raises:
        OSError: No process can be created.
    """

    def __init__(self, work: Callable[[Tell], None], without: int) -> None:
        self._unread = b""
        self._status: int | None = None
        self._pipe, its = os.pipe()
        parent = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._pipe)
            os.close(without)
            _work(work, its, parent)
        os.close(its)
        os.set_blocking(self._pipe, False)

    async def listen(self, hear: Hear, last_s: float) -> None:
        """Handle each message as it arrives, until the last one or the child's end.

        Args:
            last_s: Time at which to give up, by `time.monotonic`; see also `ask_to_end`.

        Raises:
            TimeoutError: The child did not end by then.
        """
        loop = asyncio.get_running_loop()
        over = loop.create_future()

        def look() -> None:
            ended = self._reaped()  # before reading: by then everything it sent is in the pipe
            while (last := self._read(hear)) is False and ended:
                pass
            if (ended or last) and not over.done():
                over.set_result(None)

        loop.add_reader(self._pipe, look)
        loop.add_signal_handler(signal.SIGCHLD, look)
        try:
            async with asyncio.timeout_at(last_s + loop.time() - time.monotonic()) as self._limit:
                look()  # it may have ended already
                await over
        finally:
            loop.remove_reader(self._pipe)

    def ask_to_end(self, within_s: float) -> None:
        """Send SIGTERM, and make `listen` give up within `within_s` seconds. Call it while `listen` runs."""
        if not self._reaped():
            os.kill(self._pid, signal.SIGTERM)
        last_s = self._limit.when()
        if last_s is not None and not self._limit.expired():
            self._limit.reschedule(min(last_s, asyncio.get_running_loop().time() + within_s))

    async def end(self) -> str:
        """Kill the child and the processes that it started; returns how it had ended."""
        with suppress(OSError):
            os.killpg(self._pid, signal.SIGKILL)
        last_s = time.monotonic() + REAP_S
        while not self._reaped() and time.monotonic() < last_s:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        if self._status is None:
            return "still running after a kill"
        code = os.waitstatus_to_exitcode(self._status)
        names = {one.value: one.name for one in signal.Signals}  # without real-time signals
        return f"exit code {code}" if code >= 0 else names.get(-code, f"signal {-code}")

    def _reaped(self) -> bool:
        if self._status is None:
            try:
                pid, status = os.waitpid(self._pid, os.WNOHANG)
            except ChildProcessError:  # SIGCHLD was ignored at our start, so the status is lost
                pid, status = self._pid, 0
            self._status = status if pid else None
        return self._status is not None

    def _read(self, hear: Hear) -> bool | None:
        """Handle what was sent. Returns whether that was the last; None if there is nothing to read yet."""
        try:
            data = os.read(self._pipe, 1 << 20)
        except BlockingIOError:
            return None
        *lines, self._unread = (self._unread + data).split(b"\n")
        return any(hear(json.loads(line)) for line in lines) or not data


def _work(work: Callable[[Tell], None], pipe: int, parent: int) -> NoReturn:
    """The child's main function."""
    try:
        os.setsid()  # the parent handles Ctrl-C, and one signal reaches all processes of the child
        _end_with(parent)
        with open(pipe, "w", encoding="utf-8") as file:

            def tell(message: Message) -> None:
                file.write(f"{json.dumps(message)}\n")
                file.flush()

            work(tell)
            sys.stderr.flush()
    finally:
        os._exit(0)


def _end_with(parent: int) -> None:
    """Do not outlive the parent: by the kernel if it supports that, else by a thread."""
    with suppress(Exception):
        import ctypes

        ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, name="watch", daemon=True).start()
