"""The experiment in MLflow: found, restored or created, and a study's own table of runs in it."""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from lab.experiment import Experiment
from lab.figures import cut, safe_name
from lab.task import OTHER

if TYPE_CHECKING:
    from mlflow import MlflowClient

MOST_NOTE = 20_000
"""Characters that MLflow takes of an experiment's tag."""


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
