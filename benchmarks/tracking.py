"""What MLflow costs a study in time: the default experiment with and without it, in turns.

`python -m benchmarks.tracking` takes about ten minutes. The endpoint is a script that answers after half a
second, the same for the same request. The time is from the start of the command to its last request, so that
imports count alike; the wait for MLflow at the end is told beside it. `--pairs N` says how often.
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
    """A text of the length that a small model writes, which the request alone decides."""
    time.sleep(WAIT_S)
    digest = hashlib.sha256(repr(sorted(body.items())).encode()).digest()
    return Reply("A sentence of some length. " * (15 + digest[0] % 10), prompt_tokens=200)


def played(kind: str) -> float:
    """Seconds of a study for a call."""
    moments = list[float]()

    def script(body: Body) -> Reply:
        moments.append(time.monotonic())
        return answer(body)

    with tempfile.TemporaryDirectory() as folder, fake_endpoint(script) as endpoint:
        project = Project.make(Path(folder) / "project")
        settings = {"API_BASE_URL": endpoint.url, "MODEL_NAME": "m", "HF_TOKEN": "none"}
        began_s = time.monotonic()
        done = project.run("-m", "benchmarks.tracking", kind, **settings)
        assert done.returncode == 0, done.stderr
        assert (project.folder / "mlflow.db").exists() == (kind == "with")
    cpu = "".join(line for line in done.stderr.splitlines() if line.startswith(CPU))
    played_s, closed_s = moments[-1] - began_s, time.monotonic() - moments[-1]
    told = f"{played_s:6.1f} s, then {closed_s:.1f} s to the end, {len(moments)} calls"
    print(f"{kind:<8} {told}. {cpu}", flush=True)
    return played_s / len(moments)


def with_mlflow() -> None:
    """A study as it is; the tracker's thread tells the CPU that it took, the most that it can cost."""
    run = Tracker._run

    def timed(self: Tracker, *arguments: Any) -> None:  # noqa: ANN401 - passed on
        run(self, *arguments)
        print(f"{CPU}{time.thread_time():.1f} s, the import of MLflow included.", file=sys.stderr)

    with mock.patch.object(Tracker, "_run", timed):
        app([])


def report(pairs: int) -> None:
    """Print the ratio of the times of a call; each pair's order is the other's turned round."""
    ratios = list[float]()
    for pair in range(pairs):
        times = {kind: played(kind) for kind in (KINDS if pair % 2 else KINDS[::-1])}
        ratios.append(times["with"] / times["without"])
    more = t_interval([100 * (ratio - 1) for ratio in ratios], 0.95)
    told = f"{more.mean:+.1f} % [{more.low:+.1f}, {more.high:+.1f}], n = {pairs}"
    print(f"The time of a call with MLflow, against without: {told}.")


def main() -> None:
    """Run one study in this process, or report on many."""
    match sys.argv[1:]:
        case ["with"]:
            with_mlflow()
        case ["without"]:
            with mock.patch.object(Tracker, "lead"):  # whoever does not lead writes nothing
                app([])
        case ["--pairs", pairs]:
            report(int(pairs))
        case _:
            report(PAIRS)


if __name__ == "__main__":
    main()
