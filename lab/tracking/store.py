"""The Store: the experiment in MLflow, and what every run of it is written with.

It owns MLflow's settings in this process, runs and their batches, and that a rejected item affects no other.
A run that has all of its contents has the tag `contents`, and is left as it is.
"""

import hashlib
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lab.experiment.experiment import Experiment
from lab.tracking.database import database_file, prepare
from lab.tracking.metrics import cut
from lab.tracking.missed import Missed, is_gone

if TYPE_CHECKING:
    from mlflow import MlflowClient

REQUEST = {"MAX_RETRIES": "3", "TIMEOUT": "30"}
"""Defaults for requests to a server, unless MLflow's own variables are set: it would try 7 times 120 s."""

MOST_PARAM, MOST_TAG, MOST_NOTE = 6_000, 8_000, 20_000
"""Maximum characters in MLflow of a parameter, of a run's tag, and of an experiment's tag."""

CONTENTS = "contents"
"""The tag of a run that has all of its contents: a hash of them."""

DEFAULT_URI = "sqlite:///mlflow.db"
"""MLflow's default, in the current folder."""

_STUDY = """
    select runs.run_uuid from runs join tags on tags.run_uuid = runs.run_uuid
    where runs.lifecycle_stage = 'active' and tags.key = ? and tags.value = ?
"""
_CHILDREN = """
    select runs.name, runs.lifecycle_stage from runs join tags on tags.run_uuid = runs.run_uuid
    where tags.key = 'mlflow.parentRunId' and tags.value = ?
"""


@dataclass(frozen=True)
class Point:
    """Metrics of the same step and time; the time, in ms since 1970, is now if None."""

    figures: Mapping[str, float]
    step: int = 0
    at_ms: int | None = None


class Store:
    """An experiment at `MLFLOW_TRACKING_URI`, or in MLflow's own default store.

    Attributes:
        tags: Tags of the runs found in it or created, by run id.
        whole: Whether MLflow took every item since this was last set.
    """

    def __init__(self, experiment: Experiment, missed: Missed, say: Callable[[str], None]) -> None:
        self.client = _opened(say)
        self.experiment_id = _active(self.client, experiment, say)
        self.tags = dict[str, dict[str, str]]()
        self.whole = True
        self._missed = missed

    def found(self, query: str) -> dict[str, str]:
        """Run ids by run name."""
        import mlflow

        runs = mlflow.search_runs([self.experiment_id], query, output_format="list")
        self.tags |= {run.info.run_id: dict(run.data.tags) for run in runs}
        return {str(run.info.run_name): str(run.info.run_id) for run in runs}

    def create_run(self, name: str, tags: Mapping[str, str], at_ms: int | None = None) -> str:
        """Create a run, and return its id."""
        run = str(self.client.create_run(self.experiment_id, at_ms, dict(tags), name).info.run_id)
        self.tags[run] = dict(tags)
        return run

    def has(self, run: str, contents: str) -> bool:
        """Whether a run has all of these contents."""
        return self.tags[run].get(CONTENTS) == contents

    def log(
        self,
        run: str,
        *points: Point,
        params: Mapping[str, object] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Log these together; a point that is repeated with its time remains one point."""
        from mlflow.entities import Metric, Param, RunTag

        now = int(time.time() * 1000)
        self.client.log_batch(
            run,
            [
                Metric(key, float(f"{value:.10g}"), point.at_ms or now, point.step)
                for point in points
                for key, value in point.figures.items()
            ],
            [Param(key, cut(str(value), MOST_PARAM)) for key, value in (params or {}).items()],
            [RunTag(key, cut(value, MOST_TAG)) for key, value in (tags or {}).items()],
        )
        self.tags[run] |= tags or {}

    @contextmanager
    def item(self, what: str) -> Iterator[None]:
        """Record whether the block wrote `what`; raises only if the server is gone."""
        try:
            yield
        except Exception as error:
            if is_gone(error):
                raise
            self.whole = False
            self._missed.add(what, error)
        else:
            self._missed.took(what)


def _opened(say: Callable[[str], None]) -> "MlflowClient":
    """A client of the store at `MLFLOW_TRACKING_URI`, or of MLflow's default one, created if absent."""
    for name, value in REQUEST.items():
        os.environ.setdefault(f"MLFLOW_HTTP_REQUEST_{name}", value)
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"  # stdout is for the result only
    import mlflow

    for name in ("mlflow", "alembic"):  # the lab reports failures; a new store logs every table
        logging.getLogger(name).setLevel(logging.CRITICAL)
    prepare(mlflow.get_tracking_uri(), say)
    return mlflow.MlflowClient()


def _active(client: "MlflowClient", experiment: Experiment, say: Callable[[str], None]) -> str:
    """The experiment's id; it is created if absent, and a deleted one is restored, with its runs."""
    found = client.get_experiment_by_name(experiment.name)
    if found is None:
        tags = {
            "mlflow.note.content": cut(experiment.about, MOST_NOTE),
            "mlflow.experiment.primaryMetric.name": f"{experiment.objective.maximise}_mean",
            "mlflow.experiment.primaryMetric.greaterIsBetter": "True",
        }
        return client.create_experiment(experiment.name, tags=tags)
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
        say(f"The experiment {experiment.name!r} was deleted in MLflow; restoring it with its runs.")
    return str(found.experiment_id)


def contents_of(values: object) -> str:
    """The value of `CONTENTS` for a run written from these values."""
    return hashlib.sha256(repr(values).encode()).hexdigest()


def tracking_file() -> Path | None:
    """The file that MLflow writes to; None if it is a server, or a database that is one."""
    return database_file(os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI)


def is_written(contents: str) -> bool:
    """Whether MLflow's file has a study with these contents and all of its runs, none deleted since.

    It is read without MLflow, whose import takes 5 s. A server is always asked through MLflow.
    """
    path = tracking_file()
    if path is None or not path.is_file():
        return False
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            study = database.execute(_STUDY, (CONTENTS, contents)).fetchone()
            runs = database.execute(_CHILDREN, study).fetchall() if study else []
    except sqlite3.Error:  # of another version, or damaged: MLflow reports it
        return False
    return bool(runs) and {name for name, _ in runs} == {name for name, stage in runs if stage == "active"}
