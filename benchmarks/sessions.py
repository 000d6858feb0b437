"""The lab's overhead per step over a WebSocket: `python -m benchmarks.sessions`, a minute on 2 cores.

One echo server, played round-robin in three ways: OpenEnv's own client in a bare loop, the lab's session
(parses an answer, writes an observation), and the lab's whole episode with a model that answers at once
(renders the prompt too). Then the same with 64 concurrent sessions. Ratios are relative to the bare loop:
geometric means, with 95 % intervals over rounds.
"""

import argparse
import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from math import exp, log

from lab.agent.agent import Agent
from lab.agent.candidate import Candidate, ContextSettings
from lab.agent.rollout import play
from lab.agent.task import Task
from lab.agent.template import PromptTemplate
from lab.environments.environment import Environment, open_environment
from lab.llm.client import Completion, Message
from lab.llm.sampling import SamplingParams
from lab.stats.intervals import t_interval
from tests.echo_server import ECHO

ROUNDS, STEPS, SESSIONS, EPISODE = 40, 200, 64, 8
ANSWER = "A sentence of the length that a small model writes. " * 8
CANDIDATE = Candidate(
    PromptTemplate("plain", "Speak at length.", "{history}\n\nStep {step}: {observation}"),
    context=ContextSettings(4, "text"),
)
TASK = Task("echo", "test", EPISODE, 150, max_return=120.0, success_score=0.1)

Way = Callable[[int], Awaitable[None]]
"""Plays a number of steps."""


class Instant:
    """A model that answers immediately."""

    async def complete(
        self,
        messages: Sequence[Message],  # noqa: ARG002
        sampling: SamplingParams,  # noqa: ARG002
        schema: str = "",  # noqa: ARG002
    ) -> Completion:
        """Return always the same answer."""
        return Completion(ANSWER, "stop", 0, 0, 0.0)


def ways(url: str, environment: Environment) -> dict[str, Way]:
    """The ways to play, in the order of the table."""
    from openenv.core.generic_client import GenericEnvClient

    async def bare(steps: int) -> None:
        async with GenericEnvClient(base_url=url) as client:
            await client.reset(seed=0)
            for _ in range(steps):
                result = await client.step({"message": ANSWER})
                assert result.observation["message_length"] == len(ANSWER)

    async def session(steps: int) -> None:
        async with environment.session() as opened:
            await opened.reset(0, {})
            for _ in range(steps):
                seen = await opened.step(opened.form.read(ANSWER).values)
                assert seen.text == ANSWER

    async def episodes(steps: int) -> None:
        agent = Agent(CANDIDATE, Instant(), TASK)
        async with environment.session() as opened:
            for seed in range(steps // EPISODE):
                episode = await play(agent, opened, seed)
                assert len(episode.steps) == EPISODE

    return {"OpenEnv's client, bare loop": bare, "the lab's session": session, "the lab's episodes": episodes}


async def timed_s(work: Awaitable[object]) -> float:
    """Seconds that `work` takes."""
    started = time.perf_counter()
    await work
    return time.perf_counter() - started


async def measure(url: str) -> None:
    """Print both tables."""
    async with open_environment(replace(ECHO, url=url)) as environment:
        playing = ways(url, environment)
        for way in playing.values():
            await way(STEPS)  # warm-up: imports, and opens the session
        alone = [{name: await timed_s(way(STEPS)) for name, way in playing.items()} for _ in range(ROUNDS)]
        show("one session", alone, STEPS)
        together = [
            {
                name: await timed_s(asyncio.gather(*(way(STEPS // 4) for _ in range(SESSIONS))))
                for name, way in playing.items()
            }
            for _ in range(ROUNDS // 4)
        ]
        show(f"{SESSIONS} concurrent sessions", together, STEPS // 4 * SESSIONS)


def show(title: str, rounds: list[dict[str, float]], steps: int) -> None:
    """Print a line per way."""
    bare = next(iter(rounds[0]))
    say(f"{title}, {len(rounds)} rounds of {steps:,} steps")
    for name in rounds[0]:
        ratio = t_interval([log(one[name] / one[bare]) for one in rounds], 0.95)
        mean, low, high = map(exp, (ratio.mean, ratio.low, ratio.high))
        micros = sum(one[name] for one in rounds) / len(rounds) / steps * 1e6
        say(f"  {name:<28} {micros:7.0f} us per step   {mean:.2f} [{low:.2f}, {high:.2f}]")


def say(text: str) -> None:
    """Print one line of the result."""
    print(text, flush=True)  # noqa: T201


@contextmanager
def echo_server() -> Iterator[str]:
    """Run an echo server during the block; yields its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "lab.environments.echo.server.app", "--port", str(port)]
    process = subprocess.Popen(command)
    try:
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    with echo_server() as server_url:
        asyncio.run(measure(server_url))
