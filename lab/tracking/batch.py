"""A batch of metrics, parameters and tags for a run, within MLflow's limits."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab.tracking.metrics import cut

if TYPE_CHECKING:
    from mlflow import MlflowClient

MOST_PARAM, MOST_TAG = 6_000, 8_000
"""Maximum characters of a parameter and of a run's tag in MLflow."""


@dataclass(frozen=True)
class Point:
    """Metrics of the same step and time; the time, in ms since 1970, is now if None."""

    figures: Mapping[str, float]
    step: int = 0
    at_ms: int | None = None


def log(
    client: "MlflowClient",
    run: str,
    points: Iterable[Point],
    params: Mapping[str, object],
    tags: Mapping[str, str],
) -> None:
    """Log in one batch; a point that is repeated with its time remains one point."""
    from mlflow.entities import Metric, Param, RunTag

    now = int(time.time() * 1000)
    client.log_batch(
        run,
        [
            Metric(key, float(f"{value:.10g}"), point.at_ms or now, point.step)
            for point in points
            for key, value in point.figures.items()
        ],
        [Param(key, cut(str(value), MOST_PARAM)) for key, value in params.items()],
        [RunTag(key, cut(value, MOST_TAG)) for key, value in tags.items()],
    )
