"""LabOptimizer in MLflow's own `optimize_prompts`, with a local store and a scripted program."""

import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.genai.optimize.types import PromptOptimizationResult
from mlflow.genai.scorers import scorer

import lab
from tests.fake_endpoint import Body, Reply, fake_endpoint
from tests.project import Project

ASKED, SHOUTED = "Answer: {{question}}", "Answer in capitals: {{question}}"
ROWS = [{"inputs": {"question": f"q{place}"}, "outputs": f"Q{place}"} for place in range(15)]

Optimize = Callable[[str, lab.LabOptimizer], PromptOptimizationResult]


@scorer
def exact(outputs: str, expectations: dict[str, str]) -> bool:
    return outputs == expectations["expected_response"]


@pytest.fixture(scope="module")
def optimize(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Optimize]:
    folder = Project.make(tmp_path_factory.mktemp("mlflow") / "project", tracked=True).folder
    before = mlflow.get_tracking_uri()
    mlflow.tracing.disable()  # a trace of each row takes most of the time
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    mlflow.set_experiment(experiment_id=MlflowClient().create_experiment("qa", f"{folder}/artifacts"))

    def run(name: str, optimizer: lab.LabOptimizer) -> PromptOptimizationResult:
        mlflow.genai.register_prompt(name, ASKED)

        def predict(question: str) -> str:
            text = str(mlflow.genai.load_prompt(f"prompts:/{name}/1").format(question=question))
            return question.upper() if "capitals" in text else question

        uris = [f"prompts:/{name}/1"]
        return mlflow.genai.optimize_prompts(
            predict_fn=predict, train_data=ROWS, prompt_uris=uris, optimizer=optimizer, scorers=[exact]
        )

    yield run
    mlflow.tracing.enable()
    mlflow.set_tracking_uri(before)


def test_a_better_text_is_registered_as_a_new_version(optimize: Optimize) -> None:
    optimizer = lab.LabOptimizer(candidates={"qa": ["{{question}}", SHOUTED]})
    result = optimize("qa", optimizer)
    (prompt,) = result.optimized_prompts
    assert (prompt.version, prompt.template) == (2, SHOUTED)
    assert (result.initial_eval_score, result.final_eval_score) == (0.0, 1.0)
    assert result.final_eval_score_per_scorer == {"exact": 1.0}
    assert "score higher" in optimizer.claim
    assert optimizer.study is not None
    assert optimizer.study.best_trial.params == {"qa": "given-2"}
    runs = mlflow.search_runs(output_format="list")
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert parent.data.tags["outcome"] == "winner"
    assert parent.data.metrics["difference_low"] > 0
    assert sorted(run.info.run_name for run in runs if run is not parent) == [
        *("baseline", "trial-001", "trial-002"),
    ]


def test_without_a_shown_difference_the_registered_text_is_kept(
    optimize: Optimize, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "lab"):
        result = optimize(
            "kept",
            lab.LabOptimizer(candidates={"kept": ["Please answer: {{question}}"]}, max_metric_calls=50),
        )
    assert result.optimized_prompts[0].template == ASKED
    assert result.initial_eval_score == result.final_eval_score == 0.0
    assert "The registered texts are kept" in caplog.text


def test_a_model_writes_texts_from_the_rows_and_one_that_loses_a_variable_is_refused(
    optimize: Optimize, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    texts = iter(["In capitals.", *[SHOUTED] * 5])

    def reflects(body: Body) -> Reply:
        assert re.search("Expected.*Q[0-9]", str(body["messages"]))
        return Reply(f"```\n{next(texts)}\n```")

    with fake_endpoint(reflects) as endpoint:
        monkeypatch.setenv("API_BASE_URL", endpoint.url)
        result = optimize("reflected", lab.LabOptimizer(reflection_model="fake", max_metric_calls=100))
    assert result.optimized_prompts[0].template == SHOUTED
    assert caplog.text.count("No text was written") == 1


def test_too_few_rows_for_a_verdict_are_an_error() -> None:
    optimizer = lab.LabOptimizer(candidates={"qa": [SHOUTED]})
    with pytest.raises(lab.LabError, match="3 rows"):
        optimizer.optimize(lambda *_: [], ROWS[:3], {"qa": ASKED})
