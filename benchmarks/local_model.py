"""Throughput of the embedded model over HTTP: `python benchmarks/local_model.py`, about 3 minutes.

Two loads at each number of requests in flight: one question without history, and a chat of 4 append-only
turns with one system text.
"""

# ruff: noqa: T201 - the table is the result
import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionMessageParam

from lab.local_model.child import LocalModelProcess

CONCURRENCIES = (1, 4, 16, 32)
MODEL = "SmolLM2-135M-Instruct"
MAX_TOKENS = 150
CHAT_TURNS = 4
SYSTEM = (
    "You are a lecturing professor who answers each message at length, in plain words, with one example and "
    "one counterexample, and never ends before two hundred words are written. "
)


@dataclass
class Tally:
    """Calls and tokens of a load."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


Load = Callable[[AsyncOpenAI, int, Tally], Awaitable[None]]


async def ask(client: AsyncOpenAI, messages: list[ChatCompletionMessageParam], tally: Tally) -> str:
    """Make one call, and count it."""
    answer = await client.chat.completions.create(
        model=MODEL, messages=messages, max_tokens=MAX_TOKENS, temperature=0.8
    )
    assert answer.usage is not None
    tally.calls += 1
    tally.prompt_tokens += answer.usage.prompt_tokens
    tally.completion_tokens += answer.usage.completion_tokens
    return answer.choices[0].message.content or ""


async def question(client: AsyncOpenAI, number: int, tally: Tally) -> None:
    """Ask two questions in sequence, without history."""
    for part in ("north", "south"):
        text = f"Tell me, in 300 words, a tale of city {number} in the {part}."
        await ask(client, [{"role": "user", "content": text}], tally)


async def chat(client: AsyncOpenAI, number: int, tally: Tally) -> None:
    """Run a chat with an append-only history."""
    messages: list[ChatCompletionMessageParam] = [{"role": "system", "content": SYSTEM}]
    for turn in range(CHAT_TURNS):
        messages.append(
            {"role": "user", "content": f"Lecture {number}, part {turn}: tell me what comes next."}
        )
        messages.append({"role": "assistant", "content": await ask(client, messages, tally)})


async def measure(client: AsyncOpenAI, load: Load, concurrency: int) -> tuple[Tally, float]:
    """Run `concurrency` copies of a load, and return their calls and tokens, and the seconds they took."""
    tally, began_s = Tally(), time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(concurrency):
            group.create_task(_run(load, client, number, tally))
    return tally, time.perf_counter() - began_s


async def _run(load: Load, client: AsyncOpenAI, number: int, tally: Tally) -> None:
    await load(client, number, tally)


async def table(base_url: str, title: str, load: Load) -> None:
    """Print a row per number of requests in flight."""
    print(f"\n{title}\n\n| in flight | calls | prompt tokens/call | tokens/s | calls/s | against 1 |")
    print("|---:|---:|---:|---:|---:|---:|")
    alone = 0.0
    async with AsyncOpenAI(base_url=base_url, api_key="none", timeout=300, max_retries=0) as client:
        for concurrency in CONCURRENCIES:
            tally, took_s = await measure(client, load, concurrency)
            rate = tally.completion_tokens / took_s
            alone = alone or rate
            print(
                f"| {concurrency} | {tally.calls} | {tally.prompt_tokens / tally.calls:.0f} | {rate:.0f} "
                f"| {tally.calls / took_s:.2f} | {rate / alone:.1f} x |",
                flush=True,
            )


def main() -> None:
    """Start the model, print both tables, stop it."""
    began_s = time.perf_counter()
    with LocalModelProcess.launch() as model:
        print(f"ready after {time.perf_counter() - began_s:.1f} s; at most {MAX_TOKENS} new tokens per call")
        asyncio.run(table(model.base_url, "One question, no history", question))
        asyncio.run(table(model.base_url, f"A chat of {CHAT_TURNS} turns", chat))


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    main()
