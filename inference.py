"""The submission: plays one episode with the frozen prompt and prints START, STEP and END lines to stdout.

    python inference.py

It plays `prompts/best.toml` with the same Agent that scored it. The surroundings may say otherwise, in the
environment or in `.env`:

    API_BASE_URL, MODEL_NAME          the endpoint and the model; by default what the prompt was tuned on
    HF_TOKEN or API_KEY               the endpoint's key
    ENV_BASE_URL                      the environment's server; else
    LOCAL_IMAGE_NAME or IMAGE_NAME    its Docker image; else it is played where the frozen prompt says
    TEST_TASK, TEST_BENCHMARK         the names on the START line; of several tasks, the one that is played
    DEADLINE_S                        seconds from start to END at most (1200)

Exit codes: 0 the episode was played, or the deadline ended it; 1 it could not be played; 130 and 143 a signal
ended it. Whatever is not one of the three kinds of line goes to stderr.
"""

import signal

ENDING = (signal.SIGTERM, signal.SIGINT)
signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)  # until somebody is there who prints END: see Submission

import asyncio
import os
import sys
import time
from contextlib import AsyncExitStack, suppress
from math import inf
from pathlib import Path

from lab.agent import Agent
from lab.contract import end_line, start_line, step_line
from lab.environment import open_environment
from lab.episode import Step, play
from lab.errors import ConfigError, LabError
from lab.frozen import BEST, FrozenPrompt, read_frozen
from lab.opening import open_endpoint, opening_model
from lab.output import Output
from lab.patience import Patience
from lab.settings import ModelChoice, choose_environment, choose_model, read_surroundings

STARTED = time.monotonic()
ROOT = Path(__file__).resolve().parent
SEED = 0
PATIENCE = Patience(attempts=3, whole_s=180.0)
"""With the model: a step that gets no answer has the fallback sent, and the deadline is near."""

CLOSING_S = 10.0
"""Seconds kept back for closing and printing, so that END is out by the deadline."""

PRINTING_S = 2.0
"""Seconds that a reader has to take the last lines."""


async def submit() -> int:
    """Print START, play, print END, whatever happens in between; the process's exit code."""
    output = Output()
    submission = Submission(output)
    try:
        submission.print_start()
        await submission.run()
    except Exception as error:  # a closed stdout, or a fault of our own: END is owed all the same
        say(f"The episode broke off: {type(error).__name__}: {error}")
        submission.exit_code = 1
    with suppress(OSError, ValueError):
        submission.print_end()
    await submission.printed()
    if not output.whole:
        say("Not all lines could be printed: stdout is closed, or nobody reads it.")
        submission.exit_code = submission.exit_code or 1
    return submission.exit_code


class Submission:
    """What is played, what was played so far, and how it ended."""

    def __init__(self, output: Output) -> None:
        self.exit_code = 1
        self._output, self._ended, self._signal_s = output, False, inf
        self.steps: list[Step] = []
        self.error: LabError | None = None
        self.frozen: FrozenPrompt | None = None
        self.model: ModelChoice | None = None
        task = asyncio.current_task()
        assert task is not None
        for number in ENDING:
            asyncio.get_running_loop().add_signal_handler(number, self._on_signal, task, number)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
        try:
            self.frozen = read_frozen(ROOT / BEST)
            self.model = choose_model(ModelChoice(self.frozen.model.endpoint, self.frozen.model.name))
        except LabError as error:
            self.error = error

    def print_start(self) -> None:
        """START, also where there is nothing to play."""
        tuned = self.frozen
        task = os.environ.get("TEST_TASK") or (tuned.task.setup(SEED)[0].name if tuned else "unknown")
        benchmark = os.environ.get("TEST_BENCHMARK") or (tuned.task.benchmark if tuned else "unknown")
        name = self.model.name if self.model else os.environ.get("MODEL_NAME") or "unknown"
        self._output.show(start_line(task, benchmark, name))

    async def run(self) -> None:
        """Play until the episode, the deadline or a signal ends it; expected errors go to stderr."""
        try:
            if self.error or not self.frozen or not self.model:
                raise self.error or ConfigError("There is nothing to play.")
            if self.model.name != self.frozen.model.name:
                say(f"Note: tuned on {self.frozen.model.name}, played on {self.model.name}.")
            async with asyncio.timeout(seconds_to_play()):
                await self._play(self.frozen, self.model)
            self.exit_code = 0
        except TimeoutError:
            self.exit_code = 0
            say(f"The deadline ended the episode after {len(self.steps)} steps. DEADLINE_S moves it.")
        except asyncio.CancelledError:
            say("A signal ended the episode.")
        except LabError as error:
            say(str(error))

    async def _play(self, frozen: FrozenPrompt, model: ModelChoice) -> None:
        stack = AsyncExitStack()
        try:
            opening = stack.enter_context(opening_model(model, os.environ))
            where = choose_environment(frozen.environment)
            environment = await stack.enter_async_context(open_environment(where, ROOT))
            endpoint = await stack.enter_async_context(open_endpoint(opening, PATIENCE))
            session = await stack.enter_async_context(environment.session())
            agent = Agent(frozen.candidate, endpoint, frozen.task)
            await play(agent, session, self._seed(frozen), on_step=self.show_step, fall_back=True)
        finally:
            try:
                async with asyncio.timeout(CLOSING_S - PRINTING_S):
                    await stack.aclose()
            except Exception as error:  # what was played counts, whatever closing says
                say(f"Closing failed: {type(error).__name__}: {error}")

    @staticmethod
    def _seed(frozen: FrozenPrompt) -> int:
        """The seed that plays the wanted task."""
        names, wanted = [setup.name for setup in frozen.task.tasks], os.environ.get("TEST_TASK")
        if names and wanted and wanted not in names:
            say(f"Note: there is no task {wanted!r} here; {names[0]!r} is played, of {', '.join(names)}.")
        return frozen.task.seed_of(wanted or "") + SEED * max(len(names), 1)

    def print_end(self) -> None:
        """END: the score of what was played; no success where the episode broke off."""
        self._ended = True
        rewards = [step.reward for step in self.steps]
        score = self.frozen.task.score_of(rewards) if self.frozen else 0.0
        enough = self.frozen is not None and score >= self.frozen.task.success_score
        self._output.show(end_line(self.exit_code == 0 and enough, score, rewards))

    async def printed(self) -> None:
        """Wait until the reader has taken every line: until the deadline, or a moment after a signal."""
        self._output.end()
        try:
            last_s = STARTED + deadline_s()
        except ConfigError:
            last_s = STARTED + CLOSING_S
        while not self._output.over and time.monotonic() < min(last_s, self._signal_s + PRINTING_S):  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    def show_step(self, step: Step) -> None:
        """STEP, and the step kept for END."""
        self.steps.append(step)
        self._output.show(step_line(step.number, step.action, step.reward, step.done, step.error))

    def _on_signal(self, task: "asyncio.Task[None]", number: signal.Signals) -> None:
        self.exit_code = 128 + number
        self._signal_s = min(self._signal_s, time.monotonic())
        if not self._ended:
            task.cancel()


def seconds_to_play() -> float:
    """What is left until the deadline, less what closing may take.

    Raises:
        ConfigError: see `deadline_s`.
    """
    value = deadline_s()
    return value - min(CLOSING_S, value / 4) - (time.monotonic() - STARTED)


def deadline_s() -> float:
    """`DEADLINE_S`, in seconds from the start.

    Raises:
        ConfigError: it is no positive number.
    """
    text = os.environ.get("DEADLINE_S") or "1200"
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise ConfigError(f"DEADLINE_S is {text!r}.", where="DEADLINE_S", do="use seconds, such as 1200")
    return value


def say(text: str) -> None:
    """Anything else."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201


def main() -> None:
    """Run the submission and end the process."""
    read_surroundings(ROOT)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace", newline="\n")
    exit_code = asyncio.Runner().run(submit())
    # A thread may still be importing or starting a container: END is out, so nothing is waited for.
    os._exit(exit_code)


if __name__ == "__main__":
    main()
