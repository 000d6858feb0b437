"""The experiment in MLflow: its store opened, itself found, restored or created, a study's own table of runs.

It owns MLflow's manners in this process: how long it tries, and that it prints nothing.
"""

import json
import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from lab.agent.task import OTHER
from lab.experiment.experiment import Experiment
from lab.tracking.database import prepare
from lab.tracking.metrics import cut, safe_name

if TYPE_CHECKING:
    from mlflow import MlflowClient

MOST_NOTE = 20_000
"""Characters that MLflow takes of an experiment's tag."""

REQUEST = {"MAX_RETRIES": "3", "TIMEOUT": "30"}
"""Of requests to a server, where MLflow's own variables say nothing: it would try 7 times for 120 s each."""


def open_client(say: Callable[[str], None]) -> "MlflowClient":
    """A client of the store at `MLFLOW_TRACKING_URI`, or of MLflow's own default, made if it is absent."""
    for name, value in REQUEST.items():
        os.environ.setdefault(f"MLFLOW_HTTP_REQUEST_{name}", value)
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"  # stdout is the result's alone
    import mlflow

    for name in ("mlflow", "alembic"):  # the lab says what fails, and nobody needs each table of a new store
        logging.getLogger(name).setLevel(logging.CRITICAL)
    prepare(mlflow.get_tracking_uri(), say)
    return mlflow.MlflowClient()


def active_experiment(client: "MlflowClient", experiment: Experiment, say: Callable[[str], None]) -> str:
    """The experiment's id; one that was deleted in MLflow is restored, with its runs."""
    found = client.get_experiment_by_name(experiment.name)
    if found is None:
        return _create(client, experiment)
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
        say(f"The experiment {experiment.name!r} was deleted in MLflow: it is restored there, with its runs.")
    return str(found.experiment_id)


def _create(client: "MlflowClient", experiment: Experiment) -> str:
    tags = {
        "mlflow.note.content": cut(experiment.about, MOST_NOTE),
        "mlflow.experiment.primaryMetric.name": f"{experiment.objective.maximise}_mean",
        "mlflow.experiment.primaryMetric.greaterIsBetter": "True",
    }
    return client.create_experiment(experiment.name, tags=tags)


def save_view(
    client: "MlflowClient", experiment: Experiment, experiment_id: str, study: str, parent: str
) -> None:
    """Keep a view of the table of runs, as MLflow's page does under Views: this study's, best first."""
    judged = experiment.objective.maximise
    ends = (f"{judged}_{end}" for end in ("mean", "low", "high"))
    figures = (*ends, f"{OTHER[judged]}_mean", "episodes", "tokens_per_episode")
    view = {
        "searchFilter": f"tags.`mlflow.parentRunId` = '{parent}'",
        "orderByKey": f"metrics.`{judged}_mean`",
        "orderByAsc": False,
        "selectedColumns": [
            *(f"tags.`{tag}`" for tag in ("kind", "race")),
            *(f"metrics.`{figure}`" for figure in figures),
            *(f"params.`{setting}`" for setting in experiment.space.free),
        ],
    }
    tag = f"mlflow.sharedViewState.{safe_name(study)}"
    client.set_experiment_tag(experiment_id, tag, json.dumps(view))


def view_url(experiment_id: str, study: str) -> str:
    """The address of that view on MLflow's page."""
    return f"#/experiments/{experiment_id}/runs?viewStateShareKey={safe_name(study)}"
