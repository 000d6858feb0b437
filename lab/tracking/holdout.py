"""The Holdout in MLflow: the dataset of its tasks and seeds, on which candidates are evaluation runs.

A trace's request is its row of the dataset, so that MLflow compares two runs row by row. A store without
datasets, such as a folder, gets the same runs without one.
"""

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from lab.agent.task import Task
from lab.tracking.metrics import safe_name
from lab.tracking.store import Store

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

EVALUATION_RUN = {"mlflow.runType": "genai_evaluate"}
"""The tag by which MLflow knows an evaluation run."""

WITHOUT_DATASETS = ("FEATURE_DISABLED", "ENDPOINT_NOT_FOUND")
"""MLflow's codes for a store, and for a server, that has no datasets."""


def row(task: Task, seed: int) -> dict[str, object]:
    """The inputs of an episode: a row of the dataset."""
    return {"task": task.setup(seed)[0].name, "seed": seed}


class Dataset:
    """The dataset of a holdout; studies of an experiment with the same tasks and seeds share it."""

    def __init__(self, store: Store, experiment: str, task: Task, seeds: Sequence[int]) -> None:
        self._client, self._experiment_id = store.client, store.experiment_id
        self._rows = [row(task, seed) for seed in sorted(seeds)]
        digest = hashlib.sha256(json.dumps(self._rows).encode()).hexdigest()
        self.name = f"{safe_name(experiment)}-holdout-{digest[:6]}"

    def log(self, run: str) -> None:
        """Log it as the input of a run; it is created for the first one."""
        from mlflow import MlflowException

        try:
            self._client.log_inputs(run, [self._input])
        except MlflowException as error:
            if error.error_code not in WITHOUT_DATASETS:
                raise

    @cached_property
    def _input(self) -> "DatasetInput":
        from mlflow.entities import DatasetInput

        found = self._client.search_datasets([self._experiment_id], f"name = '{self.name}'")
        dataset = found[0] if found else self._client.create_dataset(self.name, self._experiment_id)
        if not dataset.profile:  # the rows are missing; they change the digest, which names what was played
            dataset.merge_records([{"inputs": inputs} for inputs in self._rows])
            dataset = self._client.get_dataset(dataset.dataset_id)
        return DatasetInput(dataset._to_mlflow_entity())
