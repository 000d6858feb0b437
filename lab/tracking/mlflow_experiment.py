"""The experiment in MLflow: opens the store, finds, restores or creates the experiment.

It owns MLflow's settings in this process: its timeouts and retries, and that it prints nothing.
"""

import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from lab.experiment.experiment import Experiment
from lab.tracking.database import prepare
from lab.tracking.metrics import cut

if TYPE_CHECKING:
    from mlflow import MlflowClient

MOST_NOTE = 20_000
"""Maximum characters of an experiment's tag in MLflow."""

REQUEST = {"MAX_RETRIES": "3", "TIMEOUT": "30"}
"""Defaults for requests to a server, unless MLflow's own variables are set: it would try 7 times 120 s."""


def open_client(say: Callable[[str], None]) -> "MlflowClient":
    """A client of the store at `MLFLOW_TRACKING_URI`, or of MLflow's default one, created if absent."""
    for name, value in REQUEST.items():
        os.environ.setdefault(f"MLFLOW_HTTP_REQUEST_{name}", value)
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"  # stdout is for the result only
    import mlflow

    for name in ("mlflow", "alembic"):  # the lab reports failures; a new store logs every table
        logging.getLogger(name).setLevel(logging.CRITICAL)
    prepare(mlflow.get_tracking_uri(), say)
    return mlflow.MlflowClient()


def active_experiment(client: "MlflowClient", experiment: Experiment, say: Callable[[str], None]) -> str:
    """The experiment's id; a deleted one is restored, with its runs."""
    found = client.get_experiment_by_name(experiment.name)
    if found is None:
        return _create(client, experiment)
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
        say(f"The experiment {experiment.name!r} was deleted in MLflow; restoring it with its runs.")
    return str(found.experiment_id)


def _create(client: "MlflowClient", experiment: Experiment) -> str:
    tags = {
        "mlflow.note.content": cut(experiment.about, MOST_NOTE),
        "mlflow.experiment.primaryMetric.name": f"{experiment.objective.maximise}_mean",
        "mlflow.experiment.primaryMetric.greaterIsBetter": "True",
    }
    return client.create_experiment(experiment.name, tags=tags)
