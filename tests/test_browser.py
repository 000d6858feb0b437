"""A study in a real browser: MLflow's pages and the report.

The model's texts try to be active on the page. The pictures go to the project's folder, or to `PICTURES`.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import mlflow
import pytest
from mlflow.entities import Run
from selenium.webdriver.common.by import By

from lab.submission.frozen import FrozenPrompt, read_frozen
from tests.browser import Browser, browsing, mlflow_ui, needs_chromium
from tests.fake_endpoint import Body, FakeEndpoint, Reply, fake_endpoint
from tests.project import Project
from tests.test_tune import EXPERIMENT, storyteller_is_best, tune

pytestmark = needs_chromium

SECTIONS = (
    *(
        "verdict",
        "race",
        "candidates",
        "parameters",
        "pareto",
        "steps",
        "episodes",
        "diff",
        "cost",
        "caveats",
    ),
)
"""Sections of the report, by id."""

BEACON = "http://127.0.0.1:9/beacon.png"

EVIL = f'![x]({BEACON}) <img src="{BEACON}" onerror="document.title=1"> <script>document.title=2</script> '


def evil(body: Body) -> Reply:
    """The known truth, with text that would load an image or run a script on an unsafe page."""
    reply = storyteller_is_best(body)
    return replace(reply, text=EVIL + str(reply.text))


@dataclass(frozen=True)
class Seen:
    """A finished study, open in a browser at its MLflow.

    Attributes:
        parent, children: Its runs, from MLflow's client.
        traces: Ids of the traces of the frozen candidate's holdout episodes.
    """

    project: Project
    endpoint: FakeEndpoint
    browser: Browser
    frozen: FrozenPrompt
    parent: Run
    children: list[Run]
    traces: list[str]

    def picture(self, name: str) -> None:
        """Take a picture."""
        self.browser.picture(Path(os.environ.get("PICTURES", self.project.folder)) / name)

    @property
    def race(self) -> str:
        """Id of the run that has the race by episodes."""
        (run,) = [run for run in self.children if run.info.run_name == "race"]
        return str(run.info.run_id)

    @property
    def experiment(self) -> str:
        """Path of its page."""
        return f"/#/experiments/{self.parent.info.experiment_id}"

    def without_complaint(self) -> None:
        """Check that the console has no errors, and that nothing was loaded from elsewhere."""
        assert self.browser.complaints() == []
        assert self.browser.strayed() == []
        assert self.browser.driver.title not in ("1", "2")


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    project = Project.make(tmp_path_factory.mktemp("browser") / "project", tracked=True)
    project.write("experiments/known.toml", EXPERIMENT)
    with fake_endpoint(evil) as endpoint:
        code, _, err = tune(project, endpoint)
        assert code == 0, err
        with mlflow_ui(project) as origin, browsing(origin) as browser:
            yield look(project, endpoint, browser)


def look(project: Project, endpoint: FakeEndpoint, browser: Browser) -> Seen:
    """The server's answer about the study."""
    client = mlflow.MlflowClient(browser.origin)
    experiment = client.get_experiment_by_name("known")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if run.data.tags["kind"] == "study"]
    frozen = read_frozen(project.folder / "prompts/best.toml")
    name = f"holdout-trial-{frozen.provenance.trial:03d}"
    (holdout,) = [run for run in runs if run.info.run_name == name]
    traces = client.search_traces(
        locations=[experiment.experiment_id], run_id=holdout.info.run_id, include_spans=False
    )
    ids = [trace.info.trace_id for trace in traces]
    children = [run for run in runs if run is not parent]
    return Seen(project, endpoint, browser, frozen, parent, children, ids)


def test_the_studys_view_is_a_table_of_its_trials_best_first(seen: Seen) -> None:
    seen.browser.open(f"{seen.experiment}/runs?viewStateShareKey={seen.parent.info.run_name}")
    search = [run for run in seen.children if run.data.tags["kind"] == "search"]
    best = max(search, key=lambda run: run.data.metrics["return_mean"])
    text = seen.browser.shows(
        f"{len(search)} matching runs",
        *("return_mean", "episodes", "temperature", "template", "storyteller", "trial-0"),
        str(best.info.run_name),
    )
    assert "max_tokens" not in text  # what is the same for all is no column
    assert "holdout-" not in text
    seen.picture("mlflow-runs.png")
    seen.without_complaint()


def test_the_trials_compare_in_parallel_coordinates(seen: Seen) -> None:
    """The differing parameters and the return are the axes without a click; numbers are numeric."""
    search = [run for run in seen.children if run.data.tags["kind"] == "search"]
    first = sorted(search, key=lambda run: str(run.info.run_name))[:12]  # they lie far apart
    ids = json.dumps([run.info.run_id for run in first], separators=(",", ":"))
    seen.browser.open(f'/#/compare-runs?runs={ids}&experiments=["{seen.parent.info.experiment_id}"]')
    seen.browser.shows("Comparing 12 Runs", "Parallel Coordinates Plot")
    axes = ".js-plotly-plot .axis-title"

    def drawn() -> set[str]:
        return {element.text for element in seen.browser.driver.find_elements(By.CSS_SELECTOR, axes)}

    axes_there = {"temperature", "template", "return_mean"}
    assert seen.browser.wait(lambda: drawn() if drawn() >= axes_there else None, "the axes") == axes_there
    seen.picture("mlflow-compare.png")
    seen.without_complaint()


def test_the_parent_runs_page_tells_the_story(seen: Seen) -> None:
    evidence = seen.frozen.evidence
    seen.browser.open(f"{seen.experiment}/runs/{seen.parent.info.run_id}")
    seen.browser.shows(
        f"Frozen: trial-{seen.frozen.provenance.trial:03d} returns more than the baseline on unseen episodes",
        *(f"(+{evidence.difference:.1f} vs. baseline", "n = 8 episodes each", "frozen_return", "known (v2)"),
        f"{seen.parent.data.metrics['frozen_return']:.10g}",
    )
    seen.browser.click("button, a, span", "Show more")
    seen.browser.shows("Frozen prompt", "price unknown", "Where to look next")
    seen.picture("mlflow.png")
    seen.browser.open(f"{seen.experiment}/runs/{seen.parent.info.run_id}/artifacts")
    seen.browser.shows("best.toml", "experiment.toml", "report.html")
    seen.browser.click("a, span, div[role='treeitem'] *, li *", "report.html")
    driver = seen.browser.driver

    def plots() -> bool:
        for frame in driver.find_elements(By.TAG_NAME, "iframe"):
            driver.switch_to.frame(frame)
            found = driver.find_elements(By.CSS_SELECTOR, "#race svg, #pareto svg, #steps svg")
            driver.switch_to.default_content()
            if len(found) >= 3:
                return True
        return False

    seen.browser.wait(plots, "the report's plots")
    seen.without_complaint()


def test_the_race_is_drawn_on_the_charts_of_its_run(seen: Seen) -> None:
    seen.browser.open(f"{seen.experiment}/runs/{seen.race}/model-metrics")
    seen.browser.shows("Model metrics", "contenders")
    seen.browser.wait(
        lambda: seen.browser.driver.find_elements(By.CSS_SELECTOR, ".js-plotly-plot svg"), "a chart"
    )
    seen.without_complaint()


def test_the_frozen_prompt_is_in_the_registry(seen: Seen) -> None:
    sampling = seen.frozen.candidate.sampling
    seen.browser.open("/#/prompts/known")
    seen.browser.shows(
        *(
            "Version 1",
            "Version 2",
            "@ baseline",
            "@ frozen",
            "You are a storyteller.",
            "{% if history %}",
            "Tell chapter {{step}}",
        ),
        *(f"Temperature: {sampling.temperature:g}", "Max Tokens: 150", "Model: fake"),
    )
    seen.without_complaint()


def test_from_the_landing_page_to_a_trials_prompt_in_three_clicks(seen: Seen) -> None:
    seen.browser.open("/")
    seen.browser.shows("Recent Experiments")
    seen.browser.follow("known")
    seen.browser.follow("All trials, best first")
    seen.browser.shows("matching runs")
    seen.browser.follow("trial-")
    seen.browser.shows("Description", "You are a storyteller.", "Tell chapter {step}")
    seen.picture("mlflow-trial.png")
    seen.without_complaint()


def test_with_a_tracking_server_the_result_ends_with_the_urls_of_its_pages(seen: Seen) -> None:
    command = ("-m", "lab.tune", "experiments/known.toml")
    settings = {"API_BASE_URL": seen.endpoint.url, "MODEL_NAME": "fake", "HF_TOKEN": "k"}
    settings["MLFLOW_TRACKING_URI"] = seen.browser.origin
    done = seen.project.run(*command, **settings)
    assert done.returncode == 0, done.stderr
    urls = dict(line.strip().split(": ", 1) for line in done.stdout.split("In MLflow:\n")[1].splitlines())
    assert urls["The study"] == f"{seen.browser.origin}{seen.experiment}/runs/{seen.parent.info.run_id}"
    (holdout,) = [url for text, url in urls.items() if "side by side" in text]
    replace(seen.browser, origin="").open(holdout)
    seen.browser.shows("Comparing", "holdout-baseline")
    assert "mlflow ui" not in done.stdout
    document = json.loads(seen.project.run(*command, "--json", **settings).stdout)
    assert document["mlflow"] == urls


def test_the_holdouts_of_winner_and_baseline_are_compared_row_by_row(seen: Seen) -> None:
    """The rows are the dataset's; each has both candidates' returns, as assessments."""
    evidence = seen.frozen.evidence
    seen.browser.open(f"{seen.experiment}/runs/{seen.parent.info.run_id}")
    seen.browser.follow("side by side")
    winner = f"holdout-trial-{seen.frozen.provenance.trial:03d}"
    seen.browser.shows("Comparing", winner, "holdout-baseline", f"{evidence.episodes} of {evidence.episodes}")
    seen.browser.shows("return", '"seed": 1000', "in 4 steps")
    seen.picture("mlflow-holdout.png")
    seen.without_complaint()


def test_both_prompt_versions_are_compared(seen: Seen) -> None:
    seen.browser.open(f"{seen.experiment}/prompts/known?promptVersion=2")
    seen.browser.shows("Viewing version 2")
    seen.browser.click("label, button", "Compare")
    seen.browser.shows("Comparing version", "storyteller")
    seen.picture("mlflow-prompt.png")
    seen.without_complaint()


def test_an_episode_is_a_trace_whose_words_do_not_act_on_the_page(seen: Seen) -> None:
    assert len(seen.traces) == seen.frozen.evidence.episodes
    seen.browser.open(f"{seen.experiment}/traces?selectedEvaluationId={seen.traces[0]}")
    seen.browser.shows("episode", "step 1", "step 4", "environment")
    seen.browser.click("[data-testid^='timeline-tree-node']", "model")
    seen.browser.shows("You are a storyteller.", "15 tokens", "Assistant", BEACON, "document.title=2")
    assert "$" not in seen.browser.text  # a price that is not known is not shown as 0
    seen.picture("mlflow-trace.png")
    seen.without_complaint()


def test_the_report_opens_offline_with_all_its_parts(seen: Seen) -> None:
    done = seen.project.run(
        *("-m", "lab.report", "experiments/known.toml", "--out", "report.html"),
        **{"API_BASE_URL": seen.endpoint.url, "MODEL_NAME": "fake", "HF_TOKEN": "k"},
    )
    assert done.returncode == 0, done.stderr
    page = replace(seen.browser, origin="file://")
    page.open(str(seen.project.folder / "report.html"))
    page.shows(f"trial-{seen.frozen.provenance.trial:03d}", "storyteller")
    for part in SECTIONS:
        section = page.driver.find_element(By.ID, part)
        assert section.is_displayed(), part
        assert section.text.strip(), part
    for part in ("race", "candidates", "parameters", "pareto", "steps"):
        assert page.driver.find_elements(By.CSS_SELECTOR, f"#{part} svg"), part
    page.picture(Path(os.environ.get("PICTURES", seen.project.folder)) / "report.png")
    seen.without_complaint()
