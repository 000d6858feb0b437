"""What a person sees of a study: MLflow's pages and the report, in a real browser.

A model that would rather act on the page than be read plays in it. The pictures go to the project's folder,
or to where `PICTURES` says.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import mlflow
import pytest
from mlflow.entities import Run

from lab.frozen import FrozenPrompt, read_frozen
from tests.browser import Browser, browsing, mlflow_ui, needs_chromium
from tests.fake_endpoint import Body, FakeEndpoint, Reply, fake_endpoint
from tests.project import Project
from tests.test_tune import EXPERIMENT, storyteller_is_best, tune

pytestmark = needs_chromium

BEACON = "http://127.0.0.1:9/beacon.png"

EVIL = f'![x]({BEACON}) <img src="{BEACON}" onerror="document.title=1"> <script>document.title=2</script> '


def evil(body: Body) -> Reply:
    """The known truth, and what would fetch an image or run a script where a page lets it."""
    reply = storyteller_is_best(body)
    return replace(reply, text=EVIL + str(reply.text))


@dataclass(frozen=True)
class Seen:
    """A finished study, open in a browser at its MLflow.

    Attributes:
        parent, children: its runs, as MLflow's client tells them.
        traces: of the holdout episodes of what was frozen, by their ids.
    """

    project: Project
    endpoint: FakeEndpoint
    browser: Browser
    frozen: FrozenPrompt
    parent: Run
    children: list[Run]
    traces: list[str]

    def picture(self, name: str) -> None:
        """Take one."""
        self.browser.picture(Path(os.environ.get("PICTURES", self.project.folder)) / name)

    @property
    def experiment(self) -> str:
        """The path of its page."""
        return f"/#/experiments/{self.parent.info.experiment_id}"

    def without_complaint(self) -> None:
        """Nothing is wrong in the console, and nothing was fetched from elsewhere."""
        assert self.browser.complaints() == []
        assert self.browser.strayed() == []
        assert self.browser.driver.title not in ("1", "2")


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    project = Project.make(tmp_path_factory.mktemp("browser") / "project")
    project.write("experiments/known.toml", EXPERIMENT.replace("calls = 400", "calls = 320"))
    with fake_endpoint(evil) as endpoint:
        code, _, err = tune(project, endpoint)
        assert code == 0, err
        with mlflow_ui(project) as origin, browsing(origin) as browser:
            yield look(project, endpoint, browser)


def look(project: Project, endpoint: FakeEndpoint, browser: Browser) -> Seen:
    """What the server tells of the study."""
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


def test_the_runs_are_a_table_that_opens_on_the_studys_trials(seen: Seen) -> None:
    name = seen.parent.info.run_name
    assert name is not None
    seen.browser.open(f"{seen.experiment}/runs")
    seen.browser.shows(name, "A known truth: one template is better.")
    seen.browser.click("[data-testid='expander-known'], .ag-row button, .ag-row [role='button']")
    seen.browser.shows("trial-00")
    seen.picture("mlflow-runs.png")
    seen.without_complaint()
