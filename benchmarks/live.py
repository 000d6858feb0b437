"""The live comparison: every method at equal calls on one endpoint, then its picks on sealed episodes.

`python -m benchmarks.live` plays the missing runs and can be stopped at any time; `--report DIR` writes a
table and a picture of the results. A line of the results is one method, run and budget.
"""

# ruff: noqa: T201 - progress is for people
import argparse
import asyncio
import json
import os
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.ground import Broken, OutOfCalls, pick_at
from benchmarks.live_ground import Host, LiveGround
from benchmarks.live_report import write_report
from benchmarks.peers import PEERS
from lab.agent.candidate import Candidate
from lab.environments.config import choose_environment
from lab.environments.environment import open_environment
from lab.experiment.experiment import Experiment, load_experiment
from lab.llm.client import Endpoint
from lab.llm.launch import open_endpoint, opening_model
from lab.llm.settings import choose_model, proposer_endpoint, read_surroundings

LIVE = Path("benchmarks/live.toml")


@dataclass(frozen=True)
class Job:
    """One run of a method; its budgets are those without a pick yet, and the last is its limit."""

    method: str
    run: int
    budgets: tuple[int, ...]


def jobs(
    methods: Sequence[str], runs: int, budgets: Sequence[int], done: set[tuple[str, int, int]]
) -> list[Job]:
    """The missing jobs, run by run, so that a partial comparison is useful."""
    owed = list[Job]()
    for run in range(runs):
        for method in methods:
            left = tuple(sorted(budget for budget in budgets if (method, run, budget) not in done))
            if left and PEERS[method].knows_budget:
                owed += [Job(method, run, (budget,)) for budget in left]
            elif left:
                owed.append(Job(method, run, left))
    return owed


def finished(out: Path) -> Iterator[dict[str, object]]:
    """The results so far, without a partial last line."""
    for line in out.read_text().splitlines(keepends=True) if out.exists() else ():
        if line.endswith("\n"):
            yield json.loads(line)


def remove_partial_line(out: Path) -> None:
    """Remove a partial last line, so that the next one is not appended to it."""
    if out.exists() and (text := out.read_text()) and not text.endswith("\n"):
        out.write_text(text[: text.rfind("\n") + 1])


async def play(experiment: Experiment, owed: list[Job], holdout: int, at_once: int, out: Path) -> None:
    """Open the endpoint, and run every job, `at_once` concurrently."""
    with (
        opening_model(choose_model(experiment.model), os.environ) as opening,
        ThreadPoolExecutor(at_once) as threads,
    ):
        async with (
            open_environment(choose_environment(experiment.environment)) as environment,
            open_endpoint(opening, experiment.patience) as endpoint,
            Endpoint(proposer_endpoint(endpoint.config)) as proposer,
        ):
            host = Host(experiment, asyncio.get_running_loop(), endpoint, proposer, environment)
            slots = asyncio.Semaphore(at_once)
            try:
                async with asyncio.TaskGroup() as group:
                    for job in owed:
                        group.create_task(_one(job, host, holdout, slots, threads, out))
            finally:
                host.stopped.set()  # else `threads` and this loop would wait for each other


async def _one(
    job: Job, host: Host, holdout: int, slots: asyncio.Semaphore, threads: ThreadPoolExecutor, out: Path
) -> None:
    async with slots:
        began_s = time.monotonic()
        ground = LiveGround(host, job.run, job.budgets[-1])
        if not await host.loop.run_in_executor(threads, _search, job, ground):
            return
        picks = {budget: pick_at(ground.picks, budget) for budget in job.budgets}
        try:
            returns = {pick: await _returns(host, pick, holdout) for pick in dict.fromkeys(picks.values())}
        except Broken as broken:
            _tell_broken(job, broken)
            return
        lines = [
            {
                "method": job.method,
                "run": job.run,
                "budget": budget,
                # Not capped at the run's limit, so that overspending shows.
                "calls": ground.calls if budget == job.budgets[-1] else min(ground.calls, budget),
                "seconds": round(time.monotonic() - began_s),
                "task": asdict(host.experiment.task),
                "candidate": pick.as_table(),
                "holdout": returns[pick],
            }
            for budget, pick in picks.items()
        ]
        with out.open("a") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
        print(f"{job.method} {job.run}: {ground.calls} of {job.budgets[-1]} calls", flush=True)


def _search(job: Job, ground: LiveGround) -> bool:
    """Run the method to its end, in a thread; returns whether the run is valid."""
    try:
        PEERS[job.method].method()(ground)
    except OutOfCalls:
        return True
    except Broken as broken:
        _tell_broken(job, broken)
        return False
    except Exception:  # a peer's failure affects only its own run
        traceback.print_exc()
        print(f"{job.method} {job.run} failed and will be repeated", flush=True)
        return False
    finally:
        ground.close()
    return True


def _tell_broken(job: Job, broken: Broken) -> None:
    print(f"{job.method} {job.run} will be repeated: {broken.__cause__}", flush=True)


async def _returns(host: Host, pick: Candidate, holdout: int) -> list[float]:
    return [round(episode.episode_return, 2) for episode in await host.holdout(pick, holdout)]


def main() -> None:
    """Play the missing runs, or write the report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.live", description=__doc__)
    parser.add_argument("--experiment", type=Path, default=LIVE, help="what the methods are compared on")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--budgets", type=int, nargs="+", default=[400, 800, 1600], metavar="CALLS")
    parser.add_argument("--methods", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--holdout", type=int, default=12, help="sealed episodes of each pick")
    parser.add_argument("--at-once", type=int, default=8, help="runs that share the endpoint")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/live.jsonl"))
    parser.add_argument("--report", type=Path, metavar="DIR", help="only write OUT's table and picture")
    asked = parser.parse_args()
    if asked.report:
        write_report(list(finished(asked.out)), asked.report, asked.out.stem)
        return
    read_surroundings(Path())
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    remove_partial_line(asked.out)
    done = {(line["method"], line["run"], line["budget"]) for line in finished(asked.out)}
    owed = jobs(asked.methods, asked.runs, asked.budgets, done)  # type: ignore[arg-type]
    for method in {job.method for job in owed}:
        PEERS[
            method
        ].method()  # packages that are imported in several threads at once can wait for each other
    print(f"{len(owed)} runs to play", flush=True)
    asyncio.run(play(load_experiment(asked.experiment), owed, asked.holdout, asked.at_once, asked.out))


if __name__ == "__main__":
    main()
