"""A study in MLflow besides its metrics: traces, the prompt, the description, also when logged again."""

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2.sandbox import SandboxedEnvironment
from mlflow import MlflowClient
from mlflow.entities import Feedback, Run, Span, Trace

from lab.agent.candidate import Demonstration
from lab.agent.episode import Start
from lab.agent.messages import chat
from lab.agent.step import Step
from lab.agent.template import PromptTemplate, load_template
from lab.submission.frozen import FrozenPrompt, read_frozen
from lab.tracking.prompts import Prompt, jinja, variable
from tests.echo_server import ROOT
from tests.fake_endpoint import FakeEndpoint, fake_endpoint
from tests.project import Project
from tests.test_tune import EXPERIMENT, storyteller_is_best, tune

PRICED = EXPERIMENT.replace('name = "fake"', 'name = "fake"\ndollars_in = 10.0\ndollars_out = 20.0')
TABLES = (
    *("runs", "metrics", "params", "tags", "trace_info", "spans", "assessments", "model_versions"),
    *("evaluation_datasets", "evaluation_dataset_records", "inputs", "experiment_tags"),
)


@dataclass(frozen=True)
class Tracked:
    """A finished study, read back with MLflow's own client."""

    project: Project
    endpoint: FakeEndpoint
    client: MlflowClient
    frozen: FrozenPrompt

    @property
    def runs(self) -> list[Run]:
        """All traces."""
        return list(self.client.search_runs([self.experiment]))

    @property
    def experiment(self) -> str:
        """Its id."""
        found = self.client.get_experiment_by_name("known")
        assert found is not None
        return str(found.experiment_id)

    def traces(self, run: Run) -> list[Trace]:
        """Traces of one run."""
        return list(self.client.search_traces(locations=[self.experiment], run_id=run.info.run_id))

    def counts(self) -> dict[str, int]:
        """Rows of MLflow's tables."""
        with closing(sqlite3.connect(self.project.folder / "mlflow.db")) as database:
            return {
                table: database.execute(f"select count(*) from {table}").fetchone()[0] for table in TABLES
            }


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Tracked:
    project = Project.make(tmp_path_factory.mktemp("tracked") / "project")
    project.write("experiments/known.toml", PRICED + "\n[tracking]\ntraces = 2\n")
    with fake_endpoint(storyteller_is_best) as endpoint:
        code, _, err = tune(project, endpoint)
    assert code == 0, err
    client = MlflowClient(f"sqlite:///{project.folder}/mlflow.db")
    return Tracked(project, endpoint, client, read_frozen(project.folder / "prompts/best.toml"))


def test_each_run_has_the_requested_number_of_traces_and_the_holdout_all(tracked: Tracked) -> None:
    frozen = f"holdout-trial-{tracked.frozen.provenance.trial:03d}"
    for run in tracked.runs:
        wanted = min(2, run.data.metrics.get("episodes", 0))
        if run.info.run_name in (frozen, "holdout-baseline"):
            wanted = 8
        assert len(tracked.traces(run)) == wanted, run.info.run_name


def test_a_trace_is_the_episode_with_its_messages_tokens_rewards_and_times(tracked: Tracked) -> None:
    (run,) = [run for run in tracked.runs if run.info.run_name == "holdout-baseline"]
    sent = [request["messages"] for request in tracked.endpoint.requests]
    returns = []
    for trace in tracked.traces(run):
        spans = {span.span_id: span for span in trace.data.spans}
        models = [span for span in spans.values() if span.name == "model"]
        assert [span.name for span in models] == ["model"] * 4
        assert all(span.inputs["messages"] in sent for span in models)
        assert trace.info.token_usage == {"input_tokens": 40, "output_tokens": 20, "total_tokens": 60}
        assert sum(span.llm_cost["total_cost"] for span in models if span.llm_cost) == pytest.approx(8e-4)
        rewards = [span.outputs["reward"] for span in spans.values() if span.name == "environment"]
        assert [span.inputs["action"] for span in spans.values() if span.name == "environment"] == [
            span.outputs["choices"][0]["message"]["content"] for span in models
        ]
        judged = {one.name: one.value for one in trace.info.assessments if isinstance(one, Feedback)}
        assert judged["return"] == pytest.approx(sum(rewards))
        assert judged["score"] == pytest.approx(min(1.0, sum(rewards) / 120), abs=1e-6)
        assert judged["success"] is True
        returns.append(sum(rewards))
        assert all(inside(span, spans) for span in spans.values())
        assert all(length_s(span) >= 0.05 for span in models)  # the endpoint waits so long
    assert sum(returns) / len(returns) == pytest.approx(run.data.metrics["return_mean"])


def inside(span: Span, spans: Mapping[str, Span]) -> bool:
    parent = spans[span.parent_id] if span.parent_id else span
    assert span.end_time_ns is not None
    assert parent.end_time_ns is not None
    return parent.start_time_ns <= span.start_time_ns <= span.end_time_ns <= parent.end_time_ns


def length_s(span: Span) -> float:
    assert span.end_time_ns is not None
    return (span.end_time_ns - span.start_time_ns) / 1e9


def test_a_repeated_study_adds_nothing(tracked: Tracked) -> None:
    before, ended = tracked.counts(), {run.info.run_id: run.info.end_time for run in tracked.runs}
    assert before["model_versions"] == before["evaluation_datasets"] + 1 == 2
    code, _, err = tune(tracked.project, tracked.endpoint)
    assert code == 0, err
    assert "this is its result again" in err
    assert "MLflow did not take" not in err
    assert tracked.counts() == before
    # MLflow, whose import takes seconds, was not started: it would end the study's run again.
    assert {run.info.run_id: run.info.end_time for run in tracked.runs} == ended


def test_the_registered_prompt_renders_what_the_lab_sends(tracked: Tracked) -> None:
    frozen = tracked.frozen
    prompt = tracked.client.load_prompt("prompts:/known@frozen")
    assert prompt.tags["digest"] == frozen.candidate.digest
    assert prompt.model_config is not None
    assert prompt.model_config["temperature"] == frozen.candidate.sampling.temperature
    assert prompt.model_config["model_name"] == "fake"
    steps = tuple(Step(number, f"act {number}", f"saw {number}", 1.5, False) for number in (1, 2))
    for before in ((), steps):
        history = "\n".join(f"Step {step.number} (reward 1.50): {step.action}" for step in before) or None
        observation = before[-1].observation if before else "ready"
        told = prompt.format(step=len(before) + 1, max_steps=4, observation=observation, history=history)
        messages = chat(frozen.candidate, frozen.task, Start("ready"), before)
        assert told == [{"role": message.role, "content": message.content} for message in messages]


def test_a_registered_prompt_with_demonstrations_and_observation_fields_renders_what_the_lab_sends(
    tracked: Tracked,
) -> None:
    asks = PromptTemplate("asks", "Answer.", "It was {observation.verdict}.\n\nAnswer {observation.question}")
    shown = (
        Demonstration(1, "question: 1 + 1?", "2 {{ so }}", (("question", "{% 1 %} + 1?"),)),
        Demonstration(2, "question: 2?", "3", (("question", "2?"), ("verdict", "right"))),
    )
    candidate = replace(tracked.frozen.candidate, template=asks, demonstrations=shown)
    own = replace(tracked.frozen.provenance, experiment="fields")
    registry = Prompt(tracked.client, replace(tracked.frozen, candidate=candidate, provenance=own))
    assert registry.register_frozen([]) == "fields/1"
    prompt = tracked.client.load_prompt("prompts:/fields@frozen")
    start = Start("question: 3?", {"question": "3?", "verdict": None})
    messages = chat(candidate, tracked.frozen.task, start, ())
    told = prompt.format(observation_question="3?", observation_verdict=None)
    assert told == [{"role": message.role, "content": message.content} for message in messages]
    assert [message["content"] for message in told][1:3] == ["Answer {% 1 %} + 1?", "2 {{ so }}"]


def test_the_parent_run_opens_with_the_verdict_and_links_the_prompt(tracked: Tracked) -> None:
    (parent,) = [run for run in tracked.runs if run.data.tags["kind"] == "study"]
    told, evidence = parent.data.tags["mlflow.note.content"], tracked.frozen.evidence
    assert told.startswith(f"[All trials, best first](#/experiments/{tracked.experiment}/runs?viewState")
    assert f"\n\n**Frozen: trial-{tracked.frozen.provenance.trial:03d} returns more than the" in told
    first, value = next(iter(parent.data.metrics.items()))
    assert first == "return_mean"
    assert value == pytest.approx(evidence.frozen_return)
    assert "contenders" not in parent.data.metrics
    assert f"(+{evidence.difference:.1f} vs. baseline" in told
    assert f"${tracked.frozen.provenance.dollars:.2f}" in told
    linked = json.loads(parent.data.tags["mlflow.linkedPrompts"])
    assert linked == [{"name": "known", "version": "1"}, {"name": "known", "version": "2"}]
    assert parent.data.tags["prompt"] == "known/2"


def test_baseline_and_frozen_prompt_are_versions_with_configuration_and_message(tracked: Tracked) -> None:
    evidence = tracked.frozen.evidence
    for number, alias, mean in (
        (1, "baseline", evidence.baseline_return),
        (2, "frozen", evidence.frozen_return),
    ):
        prompt = tracked.client.get_prompt_version_by_alias("known", alias)
        assert prompt.version == number
        assert prompt.commit_message is not None
        assert f"return {mean:.1f}" in prompt.commit_message
        assert prompt.model_config is not None
        assert prompt.model_config["max_tokens"] == 150


def test_the_holdouts_of_baseline_and_winner_are_evaluation_runs_on_one_dataset(tracked: Tracked) -> None:
    compared = [run for run in tracked.runs if run.data.tags.get("mlflow.runType") == "genai_evaluate"]
    winner = f"holdout-trial-{tracked.frozen.provenance.trial:03d}"
    assert {run.info.run_name for run in compared} == {winner, "holdout-baseline"}
    (dataset,) = tracked.client.search_datasets([tracked.experiment])
    with closing(sqlite3.connect(tracked.project.folder / "mlflow.db")) as database:
        rows = [
            json.loads(one) for (one,) in database.execute("select inputs from evaluation_dataset_records")
        ]
    for run in compared:
        assert run.inputs is not None
        assert [one.dataset.name for one in run.inputs.dataset_inputs] == [dataset.name]
        played = [json.loads(trace.info.request_preview or "") for trace in tracked.traces(run)]
        assert sorted(map(str, played)) == sorted(map(str, rows))
    (won,) = [run for run in compared if run.info.run_name == winner]
    low, high = tracked.frozen.evidence.difference_interval
    told = [won.data.metrics[name] for name in ("difference_low", "difference", "difference_high")]
    assert told == pytest.approx([low, tracked.frozen.evidence.difference, high])


def test_a_trials_run_describes_its_prompt_and_how_far_it_came(tracked: Tracked) -> None:
    search = [run for run in tracked.runs if run.data.tags["kind"] == "search"]
    for run in search:
        template = load_template(ROOT / f"prompts/templates/{run.data.params['template']}.toml")
        assert template.system.strip() in run.data.tags["mlflow.note.content"]
    places = {run.info.run_name: run.data.tags.get("race") for run in search}
    assert places[f"trial-{tracked.frozen.provenance.trial:03d}"] == "winner"
    assert sorted(place for place in places.values() if place not in (None, "dropped")) == [
        *("confirmed", "finalist", "winner")
    ]


def test_a_store_without_datasets_gets_the_same_runs(tracked: Tracked) -> None:
    """MLflow's folders take no spans either, which is told; the dataset is no failure."""
    folder = tracked.project.folder / "folder"
    done = tracked.project.run(
        *("-m", "lab.report", "experiments/known.toml", "--mlflow"),
        **{"API_BASE_URL": tracked.endpoint.url, "MODEL_NAME": "fake"},
        **{"MLFLOW_ALLOW_FILE_STORE": "true", "MLFLOW_TRACKING_URI": str(folder)},
    )
    assert "dataset" not in done.stderr
    assert "the traces of" in done.stderr
    named = [path.read_text() for path in folder.glob("*/*/tags/mlflow.runName")]
    assert {"holdout-baseline", "baseline"} <= set(named)


def rendered(text: str, values: Mapping[str, str | None]) -> str:
    named = {variable(name): value for name, value in values.items()}
    return SandboxedEnvironment().from_string(jinja(text)).render(**named)


FIRST: dict[str, str | None] = {
    "step": "1",
    "max_steps": "8",
    "observation": "{{ step }}",
    "reward": None,
    "history": None,
}
FIRST |= {"schema": None, "observation.rules": None, "observation.log": ""}
LATER: dict[str, str | None] = {
    "step": "2",
    "max_steps": "8",
    "observation": "{% x",
    "reward": "1.00",
    "history": "{history}",
}
LATER |= {"schema": "{}", "observation.rules": "{{ rules }}", "observation.log": "a log"}


@pytest.mark.parametrize(
    "path", sorted((ROOT / "prompts/templates").glob("*.toml")), ids=lambda path: path.stem
)
def test_every_template_of_the_library_means_the_same_in_mlflows_language(path: Path) -> None:
    template = load_template(path)
    fields = [f"observation.{name}" for name in sorted(template.fields)]
    for values, value in ((FIRST, None), (LATER, "seen")):
        told = {**values, **dict.fromkeys(fields, value)}
        assert rendered(template.turn, told) == template.render_turn(told)
    assert rendered(template.system, FIRST) == template.render_system(FIRST)


literal = st.text("ab{}%#'\"", max_size=6).map(lambda text: text.replace("{", "{{").replace("}", "}}"))
placeholder = st.sampled_from(
    ["step", "observation", "history", "reward", "observation.rules", "observation.log"]
).map(lambda name: f"{{{name}}}")
paragraph = st.lists(st.one_of(literal, placeholder), min_size=1, max_size=5).map("".join)


@settings(max_examples=300, deadline=None)
@given(st.lists(paragraph, max_size=3), st.lists(paragraph, max_size=3))
def test_no_text_means_something_else_in_mlflows_language(before: list[str], after: list[str]) -> None:
    text = "\n\n".join([*before, "always {step}", *after])
    template = PromptTemplate("any", "Speak.", text)
    for values in (FIRST, LATER):
        assert rendered(text, values) == template.render_turn(values)


def test_a_repeated_study_writes_only_the_run_that_was_deleted(tracked: Tracked) -> None:
    def written() -> dict[Path, int]:
        files = (tracked.project.folder / "mlruns").rglob("artifacts/*")
        return {path: path.stat().st_mtime_ns for path in files if path.name != "experiment.toml"}

    (deleted,) = [run for run in tracked.runs if run.info.run_name == "holdout-baseline"]
    before = written()
    tracked.client.delete_run(deleted.info.run_id)
    code, _, err = tune(tracked.project, tracked.endpoint)
    assert code == 0, err
    (again,) = [run for run in tracked.runs if run.info.run_name == "holdout-baseline"]
    assert again.info.run_id != deleted.info.run_id
    assert again.data.metrics == deleted.data.metrics
    assert len(tracked.traces(again)) == 8
    changed = {path for path, at in written().items() if before.get(path) != at}
    assert {path.parent.parent.name for path in changed} == {again.info.run_id}
