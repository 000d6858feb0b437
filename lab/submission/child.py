"""A Child: a forked process that runs code which may take its process down, and sends messages to its parent.

It owns the fork, the pipes, and ending the child with all processes that it started. The caller defines the
messages. Fork before starting a thread or an event loop; the child waits until it is started.
"""

import asyncio
import json
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from math import inf
from typing import Any, NoReturn

Message = Mapping[str, Any]
Tell = Callable[[Message], None]
Hear = Callable[[Message], bool]
"""Handles a message; returns whether to stop listening."""

Work = Callable[[Message, Tell], None]
"""What a child runs: gets the message that it was started with, and a function that sends one."""

REAP_S = 1.0
"""Seconds to wait for a killed child to end."""

_PARENT_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG, of prctl(2)."""


class Child:
    """The child process, as seen by its parent.

    Args:
        work: Function that the child runs once it is started.
        without: A file descriptor that the child does not inherit.

    Raises:
        OSError: No process can be created.
    """

    def __init__(self, work: Work, without: int) -> None:
        self._unread, self._lines = b"", deque[bytes]()
        self._status: int | None = None
        self._limit: asyncio.Timeout | None = None
        self._last_s = self._asked_s = inf
        self._pipe, its = os.pipe()
        gate, self._gate = os.pipe()
        parent = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            for descriptor in (self._pipe, self._gate, without):
                os.close(descriptor)
            _work(work, gate, its, parent)
        os.close(its)
        os.close(gate)
        os.set_blocking(self._pipe, False)

    def start(self, message: Message) -> None:
        """Let the child begin its work with `message`."""
        with suppress(BrokenPipeError):  # it has ended, as `listen` finds out
            os.write(self._gate, f"{json.dumps(message)}\n".encode())

    async def listen(self, hear: Hear, last_s: float) -> None:
        """Handle each message as it arrives, until `hear` says so or the child ends. May be called again.

        Args:
            last_s: Time at which to give up, by `time.monotonic`; see also `give_up_at` and `ask_to_end`.

        Raises:
            TimeoutError: The child did not end by then.
        """
        loop = asyncio.get_running_loop()
        over = loop.create_future()

        def look() -> None:
            if over.done():
                return
            ended = self._reaped()  # before reading: by then everything it sent is in the pipe
            while (last := self._read(hear)) is False and ended:
                pass
            if ended or last:
                over.set_result(None)

        loop.add_reader(self._pipe, look)
        loop.add_signal_handler(signal.SIGCHLD, look)
        try:
            async with asyncio.timeout(None) as self._limit:
                self.give_up_at(last_s)
                look()  # it may have ended already
                await over
        finally:
            loop.remove_reader(self._pipe)
            self._limit = None

    def give_up_at(self, last_s: float) -> None:
        """Let the running `listen` give up at `last_s` instead, but no later than `ask_to_end` says."""
        self._last_s = min(last_s, self._asked_s)
        if self._limit and not self._limit.expired():
            self._limit.reschedule(self._last_s + asyncio.get_running_loop().time() - time.monotonic())

    def ask_to_end(self, within_s: float) -> None:
        """Send SIGTERM, and make `listen` give up within `within_s` seconds, now or when it is called."""
        if not self._reaped():
            os.kill(self._pid, signal.SIGTERM)
        self._asked_s = min(self._asked_s, time.monotonic() + within_s)
        self.give_up_at(self._last_s)

    async def end(self) -> str:
        """Kill the child and the processes that it started; returns how it had ended."""
        with suppress(OSError):
            os.killpg(self._pid, signal.SIGKILL)
        if not self._reaped():
            os.kill(self._pid, signal.SIGKILL)  # it may lead no group yet
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
        """Handle what was sent. Returns whether to stop listening; None if there is nothing to read yet."""
        if not self._lines:
            try:
                data = os.read(self._pipe, 1 << 20)
            except BlockingIOError:
                return None
            if not data:
                return True
            *lines, self._unread = (self._unread + data).split(b"\n")
            self._lines.extend(lines)
        while self._lines:
            if hear(json.loads(self._lines.popleft())):
                return True
        return False


def _work(work: Work, gate: int, pipe: int, parent: int) -> NoReturn:
    try:
        os.setsid()  # the parent handles Ctrl-C, and one signal reaches all processes of the child
        _end_with(parent)
        with open(pipe, "w", encoding="utf-8") as file:

            def tell(message: Message) -> None:
                file.write(f"{json.dumps(message)}\n")
                file.flush()

            with open(gate, encoding="utf-8") as opened:
                started = opened.readline()
            if started:
                work(json.loads(started), tell)
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
