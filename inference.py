"""The submission: plays each task with the frozen prompt and prints START, STEP and END lines to stdout.

    python inference.py [PATH] [--endpoint URL]

It plays `prompts/best.toml`, or the frozen prompt at PATH, with the same Agent that scored it. Variables in
the environment or in `.env` override its settings:

    API_BASE_URL, MODEL_NAME          the endpoint and the model; by default those it was tuned on
    HF_TOKEN or API_KEY               the endpoint's key; sent only to the host that it is for
    ENV_BASE_URL                      the environment's server; else
    LOCAL_IMAGE_NAME or IMAGE_NAME    its Docker image; else the frozen prompt's location
    TEST_TASK                         of several tasks, those that are played: NAME or NAME,NAME; by default
                                      all. The name of a single task
    TEST_BENCHMARK                    the name of the benchmark
    DEADLINE_S                        maximum seconds from start to the last END (1200)

Exit codes: 0 every episode was played, or ended by the deadline; 1 one could not be played; 2 usage; 128 + n
signal n ended it (130 SIGINT, 143 SIGTERM). Everything except the three kinds of line goes to stderr.

Episodes are played in a child process (see `lab.submission.appearance`), because an environment may take its
process down; then another child plays the next task. This process prints the lines, and END in every case.
All model calls go through the OpenAI client, the package openai: see `lab.llm.client`.
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

from lab.agent.step import Step, own_score_of
from lab.errors import ConfigError, LabError
from lab.llm.settings import choose_model, read_surroundings
from lab.submission.appearance import Appearance
from lab.submission.child import Child, Message
from lab.submission.contract import end_line, start_line, start_name, step_line
from lab.submission.frozen import BEST, read_frozen
from lab.submission.stdout import STDERR, Output, take_stdout
from lab.submission.turns import CLOSING_S, PRINTING_S, Turn, opening_share, share_of, turns_of

STARTED = time.monotonic()
ROOT = Path(__file__).resolve().parent

CHILDREN = 8
"""Maximum child processes: one plays all tasks unless it is taken down, and each costs 5 ms before START."""

NOTING_S = 0.5
"""Seconds for the reader of stderr, after everything else."""

ENDING_S = CLOSING_S + 0.5
"""Seconds for the child to end after a signal, before it is killed."""

T = TypeVar("T")


async def submit(submission: "Submission") -> int:
    """Print START, the steps, and END of every task, whatever happens; returns the exit code."""
    await submission.run()
    return await submission.end()


class Submission:
    """The parent process's view of the run: its settings, its tasks, the steps so far, and how each ended.

    Args:
        path: Path of the frozen prompt.
        stdout: File descriptor of the real stdout; None if it was closed.
        endpoint: Base URL of the flag `--endpoint`, which confirms it for the key; empty for none.
    """

    def __init__(self, path: Path, stdout: int | None, endpoint: str = "") -> None:
        self._error: LabError | None = None
        self._steps, self._exit_code, self._goes_on = list[Step](), 1, False
        self._heard, self._worst, self._left = False, 0, 1
        self._signal, self._signal_s, self._stopping, self._ended = 0, 0.0, False, False
        self._tried(lambda: read_surroundings(ROOT, endpoint))
        self._frozen = frozen = self._tried(lambda: read_frozen(path))
        self._model = model = self._tried(lambda: choose_model(frozen.model.choice)) if frozen else None
        self._last_s = last_s = STARTED + (self._tried(deadline_s) or CLOSING_S)
        task = frozen.task if frozen else None
        self._turns, self._unknown = turns, _ = turns_of(task, os.environ.get("TEST_TASK", ""))
        self._dialect = model.dialect.as_table() if model else {}
        self._child: Child | None = None
        self._spare = list[Child]()
        if frozen and model and stdout is not None and self._error is None:
            work = Appearance(frozen, model, ROOT, turns, last_s).play
            for _ in turns[:CHILDREN]:
                self._tried(lambda: self._spare.append(Child(work, stdout)))
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
        """Play the turns; each gets its END, whatever happens in between."""
        for place, turn in enumerate(self._turns):
            try:
                await self._play(place, turn)
            except Exception as error:  # an internal error
                self.say(f"The episode failed: {type(error).__name__}: {error}")
            self._end_turn()

    async def _play(self, number: int, turn: Turn) -> None:
        """Print START, and each step until the episode, its share of the deadline or a signal ends it."""
        self._steps, self._exit_code, self._goes_on, self._heard = [], 1, False, False
        if number == 0:
            self._await_signals()
        self._show(start_line(turn.name, *self._names()))
        if number == 0:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
            self._note()
        if self._child is None and self._spare and not self._stopping:
            self._child = self._spare.pop(0)
            self._child.start({"turn": number, "dialect": self._dialect})
        elif self._child is None and not self._stopping and self._error is None:
            self.say(f"{turn.name} is not played: {CHILDREN} processes were taken down before.")
        if self._child is not None:
            self._left = len(self._turns) - number
            opening = opening_share(time.monotonic(), self._last_s, self._left)
            try:
                with suppress(TimeoutError):
                    await self._child.listen(self._hear, opening.stop_s)
            finally:
                if not self._goes_on:
                    await self._end_child()

    def _await_signals(self) -> None:
        for number in ENDING:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
                asyncio.get_running_loop().add_signal_handler(number, self._on_signal, number)

    def _names(self) -> tuple[str, str]:
        """Benchmark and model, even if nothing can be played."""
        tuned = self._frozen
        benchmark = os.environ.get("TEST_BENCHMARK") or (tuned.task.benchmark if tuned else "unknown")
        return benchmark, self._model.name if self._model else os.environ.get("MODEL_NAME") or "unknown"

    def _note(self) -> None:
        """Say what the reader of the lines should know."""
        for name in dict.fromkeys([*(turn.name for turn in self._turns), *self._names()]):
            if start_name(name) != name:
                self.say(f"Note: START shows {name!r} as {start_name(name)!r}: its names contain no spaces.")
        if self._unknown:
            unknown, played = map(repr, self._unknown), (turn.name for turn in self._turns)
            self.say(f"Note: TEST_TASK names no task {', '.join(unknown)}; playing {', '.join(played)}.")
        if not self._spare:
            self.say(str(self._error))
        elif self._frozen and self._model and self._model.name != self._frozen.model.name:
            self.say(f"Note: tuned on {self._frozen.model.name}, played on {self._model.name}.")

    def _hear(self, message: Message) -> bool:
        """Print a step of the child; returns whether the episode is over."""
        if "opened" in message and self._child:
            self._child.give_up_at(share_of(time.monotonic(), self._last_s, self._left).stop_s)
            return False
        if "dialect" in message:
            self._dialect = message["dialect"]
            return False
        if "exit_code" in message:
            self._exit_code, self._goes_on, self._heard = message["exit_code"], message["goes_on"], True
            return True
        step = Step(observation="", **message)
        self._steps.append(step)
        self._show(step_line(step.number, step.action, step.reward, step.done, step.error))
        return False

    def _show(self, line: str) -> None:
        try:
            self._output.show(line)
        except (OSError, ValueError):  # the reader has closed stdout
            self._stop()

    def _on_signal(self, number: signal.Signals) -> None:
        if self._signal:
            return
        self._signal, self._signal_s = number, time.monotonic()
        if not self._ended:
            self.say(f"{signal.Signals(number).name} ended the episode.")
            self._stop()

    def _stop(self) -> None:
        """End the running episode, and play no other."""
        self._stopping = True
        if self._child:
            self._child.ask_to_end(ENDING_S)

    async def _end_child(self) -> None:
        if self._child:
            ended, self._child = self._child, None
            how = await ended.end()
            if not self._heard:
                self.say(f"The process that plays the episode did not finish: {how}.")

    def _end_turn(self) -> None:
        """Print END: the score of the steps played, without success if the episode failed."""
        task = self._frozen.task if self._frozen else None
        played = self._exit_code == 0 and not self._signal
        rewards = [step.reward for step in self._steps]
        score = task.score_of(rewards, own_score_of(self._steps)) if task else 0.0
        enough = task is not None and score >= task.success_score
        chosen = any(step.trouble is None for step in self._steps)
        is_open = task is not None and task.score_bounds == "open"
        self._show(end_line(played and enough and chosen, score, rewards, open_bounds=is_open))
        self._worst = max(self._worst, self._exit_code)

    async def end(self) -> int:
        """Wait for the reader of the lines; returns the exit code."""
        self._ended = True
        for child in self._spare:
            await child.end()
        await self._printed(self._output, self._last_s)
        if not self._output.whole:
            self.say("Not all lines could be printed: stdout is closed or blocked.")
        await self._printed(self._notes, time.monotonic() + NOTING_S)
        if self._signal:
            return 128 + self._signal
        return self._worst if self._output.whole else 1

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

    parser = argparse.ArgumentParser(description="Play each task with a frozen prompt.")
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
