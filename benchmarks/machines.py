"""How many workers one PostgreSQL bears: up to 200 simulated workers with 32 episodes in flight each.

`python -m benchmarks.machines` takes about fifteen minutes, and writes `results/machines.md`. The workers
share two cores with the database, so the figures that hold elsewhere are CPU, of each side, per operation.
"""

# ruff: noqa: T201 - the figures are for people
import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sql

from benchmarks.machines_worker import Bench, fill, work
from lab.storage.database import Store
from lab.storage.record import Record
from lab.storage.trials import Trials
from tests.postgres import Postgres, postgres, rows

WORKERS = {100: (1, 5, 10, 25, 50, 100, 200), 2_000: (1, 10, 50)}
"""Numbers of workers by the number of trials that there are before."""

START_S, SETTLE_S, WINDOW_S, EACH_S = 120.0, 30.0, 10.0, 1.5
"""Maximum seconds for the workers' start, seconds for their first trials and for a measurement, and CPU
seconds for measuring an operation."""

MOST_CONNECTIONS = 2_000
RESULT = Path("benchmarks/results/machines.md")
ABOUT = """Made by `python -m benchmarks.machines`. First, one worker: its CPU and PostgreSQL's for an
operation, in a study with as many open trials. Then simulated workers on the two cores that the database uses
too: operations per second (median and 95th percentile in ms), cores in use, and open connections."""
TICK_S = 1 / os.sysconf("SC_CLK_TCK")

WATCHED = {
    "a call kept": (Store, "insert"),
    "report": (Trials, "report"),
    "a new trial": (Trials, "begin"),
    "heartbeats": (Trials, "beat"),
    "reading trials": (Trials, "read"),
    "budget count": (Record, "spent_elsewhere"),
}
"""Methods that are timed while the workers work."""


def database_cpu_s(postmaster: int) -> float:
    """CPU seconds of the server and all its connections so far, ended ones included."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            process, fields = int(stat.parent.name), stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):  # it has ended
            continue
        if postmaster in (process, int(fields[1])):
            ticks += sum(map(int, fields[11:15] if process == postmaster else fields[11:13]))
    return ticks * TICK_S


def costs(address: str, postmaster: int, trials: int) -> dict[str, list[float]]:
    """CPU milliseconds of the worker and of the database for one operation of each kind, by one worker."""
    found = dict[str, list[float]]()
    bench = Bench(address, share=trials)
    for name, operation in bench.operations().items():
        operation()
        before, began, times = database_cpu_s(postmaster), time.process_time(), 0
        until_s = time.monotonic() + 10 * EACH_S
        while (here := time.process_time() - began) < EACH_S and time.monotonic() < until_s:
            operation()
            times += 1
        there = database_cpu_s(postmaster) - before
        found[name] = [here / times * 1000, there / times * 1000]
        print(trials, name, times, found[name], file=sys.stderr)
    return found


class Watch:
    """Times the watched methods in every thread."""

    def __init__(self) -> None:
        self.took = defaultdict[str, list[tuple[float, float]]](list)
        for name, (owner, method) in WATCHED.items():
            setattr(owner, method, self._timed(name, getattr(owner, method)))

    def _timed(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401  # of any method
            began_s = time.monotonic()
            try:
                return method(*arguments, **options)
            finally:
                self.took[name].append((began_s, time.monotonic() - began_s))

        return timed

    def figures(self, since_s: float) -> dict[str, list[float]]:
        """Operations per second since then, and median and 95th percentile of their milliseconds."""
        seconds, figures = time.monotonic() - since_s, dict[str, list[float]]()
        for name in WATCHED:
            took = [lasted for began, lasted in list(self.took[name]) if began + lasted >= since_s]
            middle, high = np.percentile(took, [50, 95]) if took else (0.0, 0.0)
            figures[name] = [len(took) / seconds, float(middle) * 1000, float(high) * 1000]
        return figures


def load(address: str, postmaster: int, workers: int) -> dict[str, Any]:
    """Let this many workers work, and measure; the process then has to end."""
    watch, started, failed = Watch(), list[int](), list[str]()

    def run(index: int) -> None:
        try:
            asyncio.run(work(address, index, workers, lambda: started.append(index)))
        except BaseException as error:
            failed.append(str(error))

    began_s = time.monotonic()
    for index in range(workers):
        threading.Thread(target=run, args=(index,), daemon=True).start()
    while len(started) + len(failed) < workers and time.monotonic() < began_s + START_S:
        time.sleep(0.2)
    start_s = time.monotonic() - began_s
    time.sleep(SETTLE_S)
    since_s, here, there = time.monotonic(), time.process_time(), database_cpu_s(postmaster)
    time.sleep(WINDOW_S)
    lasted_s = time.monotonic() - since_s
    return {
        "started": len(started),
        "start_s": start_s,
        "failed": failed[:1],
        "client": (time.process_time() - here) / lasted_s,
        "database": (database_cpu_s(postmaster) - there) / lasted_s,
        "connections": rows(address, "select count(*) from pg_stat_activity where datname is not null")[0][0],
        **watch.figures(since_s),
    }


def in_process(*arguments: object) -> dict[str, Any]:
    """The figures of a measurement in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.machines", *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(arguments[-1], figures, file=sys.stderr)
    return figures


def copied(server: Postgres, template: str) -> str:
    """The URL of a copy of a database to which nobody is connected."""
    url = server.database()
    name = sql.make_url(url).database
    server.server.psql(f"drop database {name}")
    server.server.psql(f"create database {name} template {sql.make_url(template).database} owner lab")
    return url


def measure() -> None:
    """Measure all, and write the tables after each part: first the costs, then the loads."""
    alone, loads = dict[int, dict[str, list[float]]](), dict[tuple[int, int], dict[str, Any]]()
    with postgres() as server:
        server.server.psql(f"alter system set max_connections = {MOST_CONNECTIONS}")
        server.server.stop()
        server.server.ensure_postgres_running()
        postmaster, filled = server.server.get_pid(), {trials: server.database() for trials in WORKERS}
        for trials, place in filled.items():
            in_process("fill", place, trials)
            alone[trials] = in_process("costs", copied(server, place), postmaster, trials)
            write(alone, loads)
        for trials, teams in WORKERS.items():
            for workers in teams:
                place = copied(server, filled[trials])
                loads[trials, workers] = in_process("load", place, postmaster, workers)
                write(alone, loads)


def write(
    alone: Mapping[int, Mapping[str, list[float]]], loads: Mapping[tuple[int, int], Mapping[str, Any]]
) -> None:
    """Write what is measured so far."""
    tables = [costs_text(alone), *([loads_text(loads)] if loads else [])]
    RESULT.write_text("\n\n".join([ABOUT, *tables]) + "\n")


def costs_text(alone: Mapping[int, Mapping[str, list[float]]]) -> str:
    """The table of costs."""
    lines = [
        "| CPU in ms: worker / PostgreSQL | " + " | ".join(f"{one:,} trials" for one in alone) + " |",
        "|---|" + "---:|" * len(alone),
    ]
    for name in next(iter(alone.values())):
        figures = (f"{one[name][0]:.3g} / {one[name][1]:.3g}" for one in alone.values())
        lines.append(f"| {name} | {' | '.join(figures)} |")
    return "\n".join(lines)


def loads_text(loads: Mapping[tuple[int, int], Mapping[str, Any]]) -> str:
    """The table of loads: operations per second, and median and 95th percentile of the milliseconds."""
    head = ["trials", "workers", *WATCHED, "cores: workers", "database", "connections"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---:|" * len(head)]
    for (trials, workers), found in loads.items():
        figures = [f"{found[name][0]:.3g} ({found[name][1]:.0f}, {found[name][2]:.0f})" for name in WATCHED]
        shares = [f"{found['client']:.2f}", f"{found['database']:.2f}", str(found["connections"])]
        there = str(workers) if found["started"] == workers else f"{workers} ({found['started']} started)"
        lines.append("| " + " | ".join([f"{trials:,}", there, *figures, *shares]) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure one part in this process, or all."""
    match sys.argv[1:]:
        case ["fill", address, trials]:
            fill(address, int(trials))
            figures: dict[str, Any] = {}
        case ["costs", address, postmaster, trials]:
            figures = costs(address, int(postmaster), int(trials))
        case ["load", address, postmaster, workers]:
            figures = load(address, int(postmaster), int(workers))
        case []:
            measure()
            print(RESULT.read_text())
            return
        case _:
            print(__doc__)
            return
    print(json.dumps(figures), flush=True)
    os._exit(0)  # leaving would hand over every trial


if __name__ == "__main__":
    main()
