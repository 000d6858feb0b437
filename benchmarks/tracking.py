"""The time that MLflow costs a study: the default experiment with and without it, alternating.

`python -m benchmarks.tracking` takes about ten minutes. The endpoint is a script that answers after half a
second, the same for the same request. The time is from the start of the command to its last request,
including imports; the wait for MLflow at the end is shown separately. `--pairs N` sets the repetitions.
"""

# ruff: noqa: T201 - the figures are for people
import hashlib
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

from lab.stats.intervals import t_interval
from lab.tracking.tracker import Tracker
from lab.tune import app
from tests.fake_endpoint import Body, Reply, fake_endpoint
from tests.project import Project

PAIRS, WAIT_S = 6, 0.5
KINDS = ("without", "with")
CPU = "The tracker's CPU: "


def answer(body: Body) -> Reply:
    """A text of a small model's length, which depends only on the request."""
    time.sleep(WAIT_S)
    digest = hashlib.sha256(repr(sorted(body.items())).encode()).digest()
    return Reply("A sentence of some length. " * (15 + digest[0] % 10), prompt_tokens=200)


def played(kind: str) -> float:
    """Seconds per call of a study."""
    moments = list[float]()

    def script(body: Body) -> Reply:
        moments.append(time.monotonic())
        return answer(body)

    with tempfile.TemporaryDirectory() as folder, fake_endpoint(script) as endpoint:
        project = Project.make(Path(folder) / "project")
        settings = {"API_BASE_URL": endpoint.url, "MODEL_NAME": "m", "HF_TOKEN": "none"}
        began_s = time.monotonic()
        done = project.afresh.run("-m", "benchmarks.tracking", kind, **settings)
        assert done.returncode == 0, done.stderr
        assert (project.folder / "mlflow.db").exists() == (kind == "with")
    cpu = "".join(line for line in done.stderr.splitlines() if line.startswith(CPU))
    played_s, closed_s = moments[-1] - began_s, time.monotonic() - moments[-1]
    times = f"{played_s:6.1f} s, then {closed_s:.1f} s to the end, {len(moments)} calls"
    print(f"{kind:<8} {times}. {cpu}", flush=True)
    return played_s / len(moments)


def with_mlflow() -> None:
    """Run a study; the tracker's thread prints its CPU time, an upper bound of its cost."""
    run = Tracker._run

    def timed(self: Tracker, *arguments: Any) -> None:  # noqa: ANN401 - passed on
        run(self, *arguments)
        print(f"{CPU}{time.thread_time():.1f} s, the import of MLflow included.", file=sys.stderr)

    with mock.patch.object(Tracker, "_run", timed):
        app([])


def report(pairs: int) -> None:
    """Print the ratio of the times per call; the order alternates between pairs."""
    ratios = list[float]()
    for pair in range(pairs):
        times = {kind: played(kind) for kind in (KINDS if pair % 2 else KINDS[::-1])}
        ratios.append(times["with"] / times["without"])
    more = t_interval([100 * (ratio - 1) for ratio in ratios], 0.95)
    figures = f"{more.mean:+.1f} % [{more.low:+.1f}, {more.high:+.1f}], n = {pairs}"
    print(f"Time per call with MLflow relative to without: {figures}.")


def main() -> None:
    """Run one study in this process, or report many."""
    match sys.argv[1:]:
        case ["with"]:
            with_mlflow()
        case ["without"]:
            with mock.patch.object(Tracker, "lead"):  # a tracker that does not lead writes nothing
                app([])
        case ["--pairs", pairs]:
            report(int(pairs))
        case []:
            report(PAIRS)
        case _:
            print(__doc__)


if __name__ == "__main__":
    main()
