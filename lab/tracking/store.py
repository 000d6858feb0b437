"""The Store: the experiment in MLflow, and what every run of it is written with.

It owns runs and their batches, and that a rejected item affects no other. A run that has all of its contents
has the tag `contents`, and is left as it is.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from lab.experiment.experiment import Experiment
from lab.tracking.batch import Point, log
from lab.tracking.missed import Missed, is_gone
from lab.tracking.mlflow_experiment import active_experiment, open_client

CONTENTS = "contents"
"""The tag of a run that has all of its contents: a hash of them."""


class Store:
    """An experiment at `MLFLOW_TRACKING_URI`, or in MLflow's own default store.

    Attributes:
        tags: Tags of the runs found in it or created, by run id.
        whole: Whether MLflow took every item since this was last set.
    """

    def __init__(self, experiment: Experiment, missed: Missed, say: Callable[[str], None]) -> None:
        self.client = open_client(say)
        self.experiment_id = active_experiment(self.client, experiment, say)
        self.tags = dict[str, dict[str, str]]()
        self.whole = True
        self._missed = missed

    def found(self, query: str) -> dict[str, str]:
        """Run ids by run name."""
        runs = dict[str, str]()
        token: str | None = None
        while True:
            page = self.client.search_runs([self.experiment_id], query, page_token=token)
            runs |= {str(run.info.run_name): str(run.info.run_id) for run in page}
            self.tags |= {str(run.info.run_id): dict(run.data.tags) for run in page}
            token = page.token
            if not token:
                return runs

    def create_run(self, name: str, tags: Mapping[str, str], at_ms: int | None = None) -> str:
        """Create a run, and return its id."""
        run = str(self.client.create_run(self.experiment_id, at_ms, dict(tags), name).info.run_id)
        self.tags[run] = dict(tags)
        return run

    def has(self, run: str, contents: str) -> bool:
        """Whether a run has all of these contents."""
        return self.tags[run].get(CONTENTS) == contents

    def log(
        self,
        run: str,
        metrics: Mapping[str, float] | None = None,
        params: Mapping[str, object] | None = None,
        *,
        prefix: str = "",
        step: int = 0,
        at_ms: int | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Log with the time of the event, so that a repeated event gives the same point."""
        named = {prefix + key: value for key, value in (params or {}).items()}
        log(self.client, run, [Point(metrics or {}, step, at_ms)], named, tags or {})
        self.tags[run] |= tags or {}

    @contextmanager
    def item(self, what: str) -> Iterator[None]:
        """Record whether the block wrote `what`; raises only if the server is gone."""
        try:
            yield
        except Exception as error:
            if is_gone(error):
                raise
            self.whole = False
            self._missed.add(what, error)
        else:
            self._missed.took(what)


def contents_of(values: object) -> str:
    """The value of `CONTENTS` for a run written from these values."""
    return hashlib.sha256(repr(values).encode()).hexdigest()
