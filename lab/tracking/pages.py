"""The pages of a study in MLflow: their URLs, relative to the server, and the views that they open.

A view is a table of runs with a filter, an order and columns, saved as a tag of the experiment.
"""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from lab.addresses import shown_url
from lab.experiment.experiment import Experiment
from lab.tracking.metrics import cut, safe_name
from lab.tracking.store import MOST_NOTE

if TYPE_CHECKING:
    from mlflow import MlflowClient

TRIALS = "All trials, best first"
"""What the view of the trials is called where it is linked."""

SHOWN = 4
"""Number of settings that the views show."""

NOTE = "mlflow.note.content"
"""The tag of a description."""


class Pages:
    """The pages of one study, whose run is `parent`."""

    def __init__(self, experiment_id: str, study: str, parent: str) -> None:
        self._page = f"#/experiments/{experiment_id}"
        self._experiment_id, self._view, self._parent = experiment_id, safe_name(study), parent
        self.name = study
        self.study = f"{self._page}/runs/{parent}"
        self.trials = f"{self._page}/runs?viewStateShareKey={self._view}"
        self.confirmation = f"{self.trials}-confirmation"

    def holdout(self, run: str, baseline: str) -> str:
        """Two evaluation runs side by side."""
        return f"{self._page}/evaluation-runs?selectedRunUuid={run}&compareToRunUuid={baseline}"

    def prompt(self, name: str) -> str:
        """The versions of a prompt."""
        return f"{self._page}/prompts/{quote(name)}"

    def save_views(self, client: "MlflowClient", experiment: Experiment) -> None:
        """Save the tables of the search's trials and of the confirmation, best first.

        MLflow shows the columns of a group by their names, metrics first: few columns keep the first settings
        of the space, such as the template, in sight; a menu adds the others.
        """
        judged = experiment.objective.maximise
        views = {"search": self._view, "confirmation": f"{self._view}-confirmation"}
        for kind, name in views.items():
            view = {
                "searchFilter": f"tags.`mlflow.parentRunId` = '{self._parent}' and tags.kind = '{kind}'",
                "orderByKey": f"metrics.`{judged}_mean`",
                "orderByAsc": False,
                "selectedColumns": [
                    *(f"metrics.`{figure}`" for figure in (f"{judged}_mean", "episodes")),
                    *(f"params.`{setting}`" for setting in [*experiment.space.free][:SHOWN]),
                    "tags.`race`",
                ],
            }
            tag = f"mlflow.sharedViewState.{name}"
            client.set_experiment_tag(self._experiment_id, tag, json.dumps(view))

    def link_from_experiment(self, client: "MlflowClient", experiment: Experiment) -> None:
        """Begin the experiment's description with links to this study, unless people have rewritten it."""
        about = cut(experiment.about, MOST_NOTE - 1_000)
        found = client.get_experiment(self._experiment_id).tags.get(NOTE, "")
        if found.endswith(about):
            links = f"Last study: [{self.name}]({self.study}) · [{TRIALS}]({self.trials})"
            client.set_experiment_tag(self._experiment_id, NOTE, f"{links}\n\n{about}")


def on_server(uri: str, links: Mapping[str, str]) -> dict[str, str]:
    """The links as URLs of a tracking server, without its password and query; empty without a server."""
    if urlsplit(uri).scheme not in ("http", "https"):
        return {}
    server = shown_url(uri).rstrip("/")
    return {text: f"{server}/{link}" for text, link in links.items()}
