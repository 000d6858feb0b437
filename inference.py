"""The submission: plays one episode with the frozen prompt and prints START, STEP and END lines to stdout.

    python inference.py [PATH] [--endpoint URL]

It plays `prompts/best.toml`, or the frozen prompt at PATH, with the same Agent that scored it. Variables in
the environment or in `.env` override its settings:

    API_BASE_URL, MODEL_NAME          the endpoint and the model; by default those it was tuned on
    HF_TOKEN or API_KEY               the endpoint's key; sent only to the host that it is for
    ENV_BASE_URL                      the environment's server; else
    LOCAL_IMAGE_NAME or IMAGE_NAME    its Docker image; else the frozen prompt's location
    TEST_TASK, TEST_BENCHMARK         the names on the START line; of several tasks, the one that is played
    DEADLINE_S                        maximum seconds from start to END (1200)

Exit codes: 0 the episode was played, or the deadline ended it; 1 it could not be played; 2 usage; 128 + n
signal n ended it (130 SIGINT, 143 SIGTERM). Everything except the three kinds of line goes to stderr.

The episode is played in a child process (see `lab.submission.appearance`), because an environment may take
its process down. This process prints the lines, and END in every case.
"""

import signal

ENDING = (
    *(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT),
    *(signal.SIGALRM, signal.SIGXCPU, signal.SIGUSR1, signal.SIGUSR2),
)
if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)  # until END can be printed: see submit

import asyncio
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from lab.agent.step import Step
from lab.errors import ConfigError, LabError
from lab.llm.settings import choose_model, read_surroundings
from lab.submission.appearance import CLOSING_S, SEED, Appearance
from lab.submission.child import Child, Message
from lab.submission.contract import end_line, start_line, start_name, step_line
from lab.submission.frozen import BEST, read_frozen
from lab.submission.stdout import STDERR, Output, take_stdout

STARTED = time.monotonic()
ROOT = Path(__file__).resolve().parent

PRINTING_S = 2.0
"""Seconds for the reader to accept the last lines."""

NOTING_S = 0.5
"""Seconds for the reader of stderr, after everything else."""

ENDING_S = CLOSING_S + 0.5
"""Seconds for the child to end after a signal, before it is killed."""

T = TypeVar("T")


async def submit(submission: "Submission") -> int:
    """Print START, the steps, and END, whatever happens in between; returns the exit code."""
    try:
        await submission.run()
    except Exception as error:  # a closed stdout, or an internal error: END must be printed anyway
        submission.say(f"The episode failed: {type(error).__name__}: {error}")
    return await submission.end()


class Submission:
    """The parent process's view of the episode: its settings, its steps so far, and its end.

    Args:
        path: Path of the frozen prompt.
        stdout: File descriptor of the real stdout; None if it was closed.
        endpoint: Base URL of the flag `--endpoint`, which confirms it for the key; empty for none.
    """

    def __init__(self, path: Path, stdout: int | None, endpoint: str = "") -> None:
        self._steps: list[Step] = []
        self._error: LabError | None = None
        self._exit_code: int | None = None
        self._signal, self._signal_s, self._ended = 0, 0.0, False
        self._tried(lambda: read_surroundings(ROOT, endpoint))
        self._frozen = frozen = self._tried(lambda: read_frozen(path))
        self._model = model = self._tried(lambda: choose_model(frozen.model.choice)) if frozen else None
        self._deadline_s = self._tried(deadline_s) or CLOSING_S
        self._child: Child | None = None
        if frozen and model and stdout is not None and self._error is None:
            last_s = STARTED + self._deadline_s - min(CLOSING_S + PRINTING_S, self._deadline_s / 4)
            self._child = self._tried(lambda: Child(Appearance(frozen, model, ROOT, last_s).play, stdout))
        # Threads start here, so no fork is possible afterwards.
        self._output, self._notes = Output(stdout), Output(STDERR)

    def _tried(self, make: Callable[[], T]) -> T | None:
        """The result of `make`; the first error is kept until START is printed."""
        try:
            return make()
        except LabError as error:
            self._error = self._error or error
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
            self._error = self._error or LabError("The submission itself failed.", why=why)
        return None

    def say(self, text: str) -> None:
        """Print to stderr."""
        with suppress(OSError, ValueError):
            self._notes.show(text)

    async def run(self) -> None:
        """Print START, and each step until the episode, the deadline or a signal ends it."""
        for number in ENDING:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
                asyncio.get_running_loop().add_signal_handler(number, self._on_signal, number)
        names = self._names()
        self._output.show(start_line(*names))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
        for name in dict.fromkeys(names):
            if start_name(name) != name:
                self.say(f"Note: START shows {name!r} as {start_name(name)!r}: its names contain no spaces.")
        if self._child is None:
            self.say(str(self._error))
            return
        if self._frozen and self._model and self._model.name != self._frozen.model.name:
            self.say(f"Note: tuned on {self._frozen.model.name}, played on {self._model.name}.")
        last_s = STARTED + self._deadline_s - min(PRINTING_S / 2, self._deadline_s / 20)
        with suppress(TimeoutError):
            await self._child.listen(self._hear, last_s)

    def _names(self) -> tuple[str, str, str]:
        """Task, benchmark and model, even if nothing can be played."""
        tuned = self._frozen
        task = os.environ.get("TEST_TASK") or (tuned.task.setup(SEED)[0].name if tuned else "unknown")
        benchmark = os.environ.get("TEST_BENCHMARK") or (tuned.task.benchmark if tuned else "unknown")
        model = self._model.name if self._model else os.environ.get("MODEL_NAME") or "unknown"
        return task, benchmark, model

    def _hear(self, message: Message) -> bool:
        """Print a step of the child; returns whether the episode is over."""
        if "exit_code" in message:
            self._exit_code = message["exit_code"]
            return True
        step = Step(observation="", **message)
        self._steps.append(step)
        try:
            self._output.show(step_line(step.number, step.action, step.reward, step.done, step.error))
        except (OSError, ValueError):  # the reader has closed stdout
            self._ask_to_end()
        return False

    def _on_signal(self, number: signal.Signals) -> None:
        if self._signal:
            return
        self._signal, self._signal_s = number, time.monotonic()
        if not self._ended:
            self.say(f"{signal.Signals(number).name} ended the episode.")
            self._ask_to_end()

    def _ask_to_end(self) -> None:
        if self._child:
            self._child.ask_to_end(ENDING_S)

    async def end(self) -> int:
        """Print END: the score of the steps played, without success if the episode failed."""
        self._ended = True
        if self._child:
            how = await self._child.end()
            if self._exit_code is None:
                self.say(f"The process that plays the episode did not finish: {how}.")
        played = self._exit_code == 0 and not self._signal
        rewards = [step.reward for step in self._steps]
        score = self._frozen.task.score_of(rewards) if self._frozen else 0.0
        enough = self._frozen is not None and score >= self._frozen.task.success_score
        chosen = any(step.trouble is None for step in self._steps)
        with suppress(OSError, ValueError):
            self._output.show(end_line(played and enough and chosen, score, rewards))
        await self._printed(self._output, STARTED + self._deadline_s)
        if not self._output.whole:
            self.say("Not all lines could be printed: stdout is closed or blocked.")
        await self._printed(self._notes, time.monotonic() + NOTING_S)
        if self._signal:
            return 128 + self._signal
        return self._exit_code if self._exit_code is not None and self._output.whole else 1

    async def _printed(self, output: Output, last_s: float) -> None:
        """Wait until the reader has accepted every line, until `last_s`, or until shortly after a signal."""
        output.end()
        began = time.monotonic()
        while not output.over and (now := time.monotonic()) < last_s:
            if self._signal and now > max(began, self._signal_s) + PRINTING_S:
                break
            await asyncio.sleep(0.01)


def deadline_s() -> float:
    """`DEADLINE_S`, in seconds from the start.

    Raises:
        ConfigError: It is not a positive number.
    """
    text = os.environ.get("DEADLINE_S") or "1200"
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise ConfigError(
            f"DEADLINE_S is {text!r}.",
            where="DEADLINE_S",
            do="use a positive number of seconds, such as 1200",
        )
    return value


def chosen(arguments: Sequence[str]) -> tuple[Path, str]:
    """The frozen prompt and the endpoint from the command line; invalid arguments print the usage."""
    if not arguments:
        return ROOT / BEST, ""
    import argparse

    parser = argparse.ArgumentParser(description="Play one episode with a frozen prompt.")
    parser.add_argument("path", metavar="PATH", type=Path, nargs="?", help="the frozen prompt")
    parser.add_argument("--endpoint", metavar="URL", default="", help="send the calls and the key there")
    parser.set_defaults(path=ROOT / BEST)
    named = parser.parse_args(arguments)
    return named.path, named.endpoint


def main() -> None:
    """Run the submission and end the process."""
    path, endpoint = chosen(sys.argv[1:])
    exit_code = asyncio.Runner().run(submit(Submission(path, take_stdout(), endpoint)))
    os._exit(exit_code)  # a thread may still be waiting for the reader


if __name__ == "__main__":
    main()
