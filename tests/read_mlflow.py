"""Reads a study from the MLflow store of the working directory, as `mlflow ui` does, and checks it."""

import json
import sys

import mlflow
from mlflow.entities import Run

METRICS = {"return_mean", "episodes", "score_mean", "tokens_in", "tokens_out", "latency_mean_s"}


def text(run: Run, name: str) -> str:
    """The text of an artifact."""
    return str(mlflow.artifacts.load_text(f"{run.info.artifact_uri}/{name}"))


def check(name: str) -> None:
    """Fail unless the experiment `name` has one complete study."""
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    (race,) = [run for run in runs if run.info.run_name == "race"]
    own = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    children = [run for run in own if run is not race]
    assert {run.info.status for run in runs} == {"FINISHED"}
    kinds = [run.data.tags["kind"] for run in children]
    assert kinds.count("search") >= 5
    assert (kinds.count("confirmation"), kinds.count("holdout")) == (3, 2 + 1)
    for run in children:
        assert set(run.data.metrics) >= METRICS, run.data.metrics
        assert run.data.params["template"]
        assert 0.5 <= float(run.data.params["temperature"]) <= 1.0
        prompt, episodes = text(run, "prompt.txt"), json.loads(text(run, "episodes.json"))
        assert "--- system" in prompt
        assert "before step 4" in prompt
        assert len(episodes) == run.data.metrics["episodes"]
        total = sum(step["reward"] for episode in episodes for step in episode["steps"])
        assert abs(total / len(episodes) - run.data.metrics["return_mean"]) < 1e-6
    assert parent.data.tags["outcome"] == "winner"
    seen = race.data.metrics["headroom_p_value"] < 0.05
    assert (parent.data.tags["headroom"] == "found") == seen
    assert parent.data.metrics["p_value"] < 0.05
    assert parent.data.metrics["calls"] <= 300
    assert parent.data.params["frozen_template"] == "storyteller"
    assert parent.data.metrics["difference_low"] > 0
    assert "digest" in text(parent, "best.toml")
    assert "[space]" in text(parent, "experiment.toml")


if __name__ == "__main__":
    check(sys.argv[1])
    sys.stdout.write("ok\n")
