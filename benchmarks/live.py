"""The live comparison: every method at equal calls on one endpoint, then its picks on sealed episodes.

`python -m benchmarks.live` plays the missing runs and can be stopped at any time; `--report DIR` writes the
results' tables, and a picture if they are of one ground. A line of the results is one ground, method, run and
budget.
"""

# ruff: noqa: T201 - progress is for people
import argparse
import asyncio
import json
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from benchmarks.ground import Broken, OutOfCalls, pick_at
from benchmarks.live_ground import Host, LiveGround
from benchmarks.live_grounds import write_grounds
from benchmarks.live_report import write_report
from benchmarks.peers import PEERS
from lab.agent.candidate import Candidate
from lab.environments.config import choose_environment
from lab.environments.environment import open_environment
from lab.errors import LabError
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


def ground_of(line: Mapping[str, object]) -> object:
    """The ground of a result; the oldest lines are all of one and do not name it."""
    return line.get("ground", LIVE.stem)


def remove_partial_line(out: Path) -> None:
    """Remove a partial last line, so that the next one is not appended to it."""
    if out.exists() and (text := out.read_text()) and not text.endswith("\n"):
        out.write_text(text[: text.rfind("\n") + 1])


async def play(experiment: Experiment, owed: list[Job], holdout: int, at_once: int, out: Path) -> None:
    """Open the endpoint, and run every job, `at_once` concurrently."""
    with (
        opening_model(choose_model(experiment.model)) as opening,
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
            candidates = dict.fromkeys(pick.candidate for pick in picks.values())
            returns = {candidate: await _returns(host, candidate, holdout) for candidate in candidates}
        except Broken as broken:
            _tell_broken(job, broken)
            return
        lines = [
            {
                "ground": host.experiment.name,
                "method": job.method,
                "run": job.run,
                "budget": budget,
                # Not capped at the run's limit, so that overspending shows.
                "calls": ground.calls if budget == job.budgets[-1] else min(ground.calls, budget),
                "seconds": round(time.monotonic() - began_s),
                "task": asdict(host.experiment.task),
                "candidate": pick.candidate.as_table(),
                "claimed": pick.claimed,
                "interval": pick.interval,
                "holdout": returns[pick.candidate],
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


def only(experiment: Experiment, name: str) -> Experiment:
    """The experiment with one of its tasks, named after both."""
    tasks = tuple(task for task in experiment.task.tasks if task.name == name)
    if not tasks:
        known = ", ".join(task.name for task in experiment.task.tasks)
        raise SystemExit(f"{experiment.file} has no task {name!r}, only {known}")
    task = replace(experiment.task, tasks=tasks)
    return replace(experiment, name=f"{experiment.name}-{name}", task=task)


def main() -> None:
    """Play the missing runs, or write the report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.live", description=__doc__)
    parser.add_argument("--experiment", type=Path, default=LIVE, help="what the methods are compared on")
    parser.add_argument("--task", help="only this one of its tasks")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--budgets", type=int, nargs="+", default=[400, 800, 1600], metavar="CALLS")
    parser.add_argument("--methods", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--holdout", type=int, default=12, help="sealed episodes of each pick")
    parser.add_argument("--at-once", type=int, default=8, help="runs that share the endpoint")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/live.jsonl"))
    parser.add_argument("--report", type=Path, metavar="DIR", help="only write OUT's tables and picture")
    asked = parser.parse_args()
    if asked.report:
        lines = list(finished(asked.out))
        several = len({ground_of(line) for line in lines}) > 1
        write = write_grounds if several else write_report
        write(lines, asked.report, asked.out.stem)
        return
    try:
        experiment = load_experiment(asked.experiment)
    except LabError as error:
        raise SystemExit(str(error)) from error
    experiment = only(experiment, asked.task) if asked.task else experiment
    read_surroundings(Path())
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    remove_partial_line(asked.out)
    here = [line for line in finished(asked.out) if ground_of(line) == experiment.name]
    done = {(line["method"], line["run"], line["budget"]) for line in here}
    owed = jobs(asked.methods, asked.runs, asked.budgets, done)  # type: ignore[arg-type]
    for method in {job.method for job in owed}:
        PEERS[
            method
        ].method()  # packages that are imported in several threads at once can wait for each other
    print(f"{len(owed)} runs to play", flush=True)
    asyncio.run(play(experiment, owed, asked.holdout, asked.at_once, asked.out))


if __name__ == "__main__":
    main()
