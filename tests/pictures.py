"""Takes the docs' pictures of a study: `python -m tests.pictures PROJECT NAME FOLDER`.

PROJECT is a folder in which `lab.tune` has run the experiment NAME; the pages are opened as
`tests/test_browser.py` opens them. The live screen's is `benchmarks.terminal_picture`'s, taken while it runs.
"""

import sys
from dataclasses import replace
from pathlib import Path

import mlflow

from tests.browser import browsing, dashboard, mlflow_ui
from tests.project import Project


def take(project: Path, experiment: str, folder: Path) -> None:
    """The study in optuna-dashboard, in MLflow, and in the report."""
    with dashboard(Project(project)) as origin, browsing(origin) as browser:
        browser.open("/dashboard/studies/0")
        browser.shows("Best Trial", "verdict", "Intermediate values")
        browser.picture(folder / "dashboard.png")
    with mlflow_ui(Project(project)) as origin, browsing(origin) as browser:
        client = mlflow.MlflowClient(origin)
        found = client.get_experiment_by_name(experiment)
        assert found is not None
        runs = client.search_runs([found.experiment_id])
        parent = next(run for run in runs if run.data.tags["kind"] == "study")
        page = f"/#/experiments/{found.experiment_id}"
        browser.open(f"{page}/runs/{parent.info.run_id}")
        browser.shows("frozen_return")
        browser.click("button, a, span", "Show more")
        browser.shows("Where to look next")
        browser.picture(folder / "mlflow.png")
        browser.open(f"{page}/runs?viewStateShareKey={parent.info.run_name}")
        browser.shows("trial-0", "return_mean", "template")
        browser.picture(folder / "mlflow-runs.png")
        browser.open(f"{page}/runs/{parent.info.run_id}")
        browser.follow("side by side")
        browser.shows("Comparing", "seed")
        browser.picture(folder / "mlflow-holdout.png")
        browser.open(f"{page}/prompts/{parent.data.tags['prompt'].rpartition('/')[0]}?promptVersion=2")
        browser.shows("Viewing version 2")
        browser.click("label, button", "Compare")
        browser.shows("Comparing version")
        browser.picture(folder / "mlflow-prompt.png")
        digest = parent.data.tags["digest"]
        traces = client.search_traces(
            locations=[found.experiment_id],
            filter_string=f"tags.digest = '{digest}'",
            include_spans=False,
        )
        holdout = next(one for one in traces if one.info.tags["run"].startswith("holdout"))
        browser.open(f"{page}/traces?selectedEvaluationId={holdout.info.trace_id}")
        browser.shows("step 1")
        browser.click("[data-testid^='timeline-tree-node']", "model")
        browser.shows("Assistant")
        browser.picture(folder / "mlflow-trace.png")
        written = project / ".lab/report.html"
        Project(project).run("-m", "lab.report", f"experiments/{experiment}.toml", "--out", str(written))
        report = replace(browser, origin="file://")
        report.driver.set_window_size(960, 1500)
        report.open(str(written))
        report.shows("What differs from the baseline")
        report.picture(folder / "report.png")


if __name__ == "__main__":
    take(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
