"""The lab's overhead per call: calls per second, CPU and memory, compared with a bare `AsyncOpenAI` loop.

`python -m benchmarks.load` takes about three minutes, with `--long 100000` ten. The endpoint waits 200 ms per
call and accepts any load; 64 calls are in flight. The bare loop and the lab's player with its record
alternate, each in a separate process.
"""

# ruff: noqa: T201 - the figures are for people
import asyncio
import gc
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from benchmarks.figures import Row, table
from lab.agent.candidate import Candidate
from lab.agent.task import Task
from lab.agent.template import PromptTemplate
from lab.environments.environment import open_environment
from lab.experiment.budget import FREE, Spending
from lab.experiment.metered import Metered
from lab.llm.client import Endpoint, EndpointConfig
from lab.llm.throttle import Patience
from lab.search.player import Player
from lab.storage.database import Store
from lab.storage.record import Record
from tests.echo_server import ECHO

IN_FLIGHT, WAIT_S, ROUNDS = 64, 0.2, 3
TASK = Task("echo", "test", max_steps=8, max_tokens=150, max_return=120.0, success_score=0.1)
CALLS = IN_FLIGHT * TASK.max_steps * 10
"""Calls of whole rounds of episodes: in a partial last round the slots could not stay full."""

AT_ONCE = CALLS // TASK.max_steps
"""Episodes that start together."""

CANDIDATE = Candidate(PromptTemplate("plain", "Speak at length.", "Step {step}: {observation}"))
ANSWER = "A sentence of the length that a small model writes. " * 8


def completion(text: str) -> bytes:
    """The body of an answer."""
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    usage = {"prompt_tokens": 100, "completion_tokens": 80, "total_tokens": 180}
    table = {
        "id": "a",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [choice],
        "usage": usage,
    }
    return json.dumps(table).encode()


async def serve(wait_s: float, body: Callable[[bytes], bytes]) -> None:
    """Serve an endpoint, with a minimal HTTP implementation that needs little CPU.

    Args:
        wait_s: Seconds before each answer.
        body: Returns the answer to the body of a request.
    """
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                lines = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
                length = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0)
                request = await reader.readexactly(length)
                await asyncio.sleep(wait_s)
                answered = body(request)
                writer.write(head % len(answered) + answered)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def bare(url: str, calls: int) -> float:
    """Seconds of this many calls by the bare client, 64 at a time."""
    from openai import AsyncOpenAI

    left = iter(range(calls))

    async def worker(client: AsyncOpenAI) -> None:
        for number in left:
            await client.chat.completions.create(
                model="m",
                messages=[
                    {"role": "system", "content": "Speak at length."},
                    {"role": "user", "content": f"Step {number % 8}: {ANSWER}"},
                ],
                temperature=0.7,
                max_tokens=150,
            )

    async with AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
        began_s = time.monotonic()
        await asyncio.gather(*(worker(client) for _ in range(IN_FLIGHT)))
        return time.monotonic() - began_s


async def lab(url: str, calls: int) -> float:
    """Seconds of as many calls in episodes, counted and recorded."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "calls.db")
        record, spending = Record(store, store.begin("load", ""), ""), Spending()
        config = EndpointConfig(url, "m", "none", Patience())
        async with open_environment(ECHO) as environment, Endpoint(config) as endpoint:
            model = Metered(endpoint, spending, FREE)
            player = Player(model, environment, TASK, IN_FLIGHT, spending, record)
            began_s, episodes = time.monotonic(), range(calls // TASK.max_steps)
            for first in range(0, len(episodes), AT_ONCE):
                some = episodes[first : first + AT_ONCE]
                await asyncio.gather(*(player.episode(CANDIDATE, seed) for seed in some))
            seconds = time.monotonic() - began_s
        assert spending.calls == calls
        store.close()
    return seconds


def measured(kind: str, url: str, calls: int) -> dict[str, float]:
    """One run in this process: calls per second, CPU in ms per call, and maximum memory in MB."""
    work = {"bare": bare, "lab": lab}[kind]
    asyncio.run(work(url, IN_FLIGHT * 8))  # import before measuring
    gc.freeze()  # as `lab.study.study` does; the bare loop benefits as well
    before = time.process_time()
    rate = calls / asyncio.run(work(url, calls))
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"rate": rate, "cpu_ms": (time.process_time() - before) / calls * 1000, "peak_mb": peak_mb}


@contextmanager
def endpoint(module: str = "benchmarks.load") -> Iterator[str]:
    """Run a benchmark's endpoint in a separate process; yields its URL."""
    command = [sys.executable, "-m", module, "serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        finally:
            process.kill()


def run(kind: str, url: str, calls: int) -> dict[str, float]:
    """The figures of one run in a separate process."""
    command = [sys.executable, "-m", "benchmarks.load", kind, url, str(calls)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def measure(long: int = 0) -> list[Row]:
    """Measure, and return the rows: medians of the rounds, and memory over `long` calls if it is set."""
    runs = {"bare": list[dict[str, float]](), "lab": list[dict[str, float]]()}
    with endpoint() as url:
        for _ in range(ROUNDS):
            for kind, figures in runs.items():
                figures.append(run(kind, url, CALLS))
        longest = run("lab", url, long) if long else None
    bare, lab = ({key: median(one[key] for one in found) for key in found[0]} for found in runs.values())
    where = f"{IN_FLIGHT} in flight at {WAIT_S * 1000:.0f} ms per call, {CALLS:,} calls, median of {ROUNDS}"
    share, cpu = lab["rate"] / IN_FLIGHT * WAIT_S, lab["cpu_ms"] / bare["cpu_ms"]
    speed = f"{lab['rate']:.0f} calls/s, {share:.1%} of the ideal; bare loop {bare['rate']:.0f}"
    rows = [
        Row(where, speed, "at least 95 %"),
        Row(
            "CPU per call, relative to a bare `AsyncOpenAI` loop in the same run",
            f"{cpu:.2f} times: {lab['cpu_ms']:.2f} ms, bare {bare['cpu_ms']:.2f}",
            "at most 2",
        ),
    ]
    if longest:
        each_kb = (longest["peak_mb"] - lab["peak_mb"]) * 1024 / (long - CALLS)
        after = f"after {CALLS:,}, {lab['peak_mb']:.0f} MB: {each_kb:.2f} KB per call"
        rows.append(Row(f"maximum memory in {long:,} calls", f"{longest['peak_mb']:.0f} MB; {after}", "flat"))
    return rows


def main() -> None:
    """Serve, measure one run, or report all."""
    match sys.argv[1:]:
        case ["serve"]:
            body = completion(ANSWER)
            asyncio.run(serve(WAIT_S, lambda _: body))
        case [("bare" | "lab") as kind, url, calls]:
            print(json.dumps(measured(kind, url, int(calls))))
        case ["--long", calls]:
            print(table(measure(int(calls))))
        case []:
            print(table(measure()))
        case _:
            print(__doc__)


if __name__ == "__main__":
    main()
