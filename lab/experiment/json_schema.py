"""The JSON Schema of experiment files, for completion and checks in editors.

`python -m lab.experiment.json_schema > experiments/experiment.schema.json` writes the one that ships.
"""

import json
import math
from typing import Any

from lab.experiment.schema import ExperimentFile


def experiment_schema() -> str:
    """The schema, from the models that read the file."""
    schema = {**_finite(ExperimentFile.model_json_schema()), "title": "Experiment"}
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


def _finite(schema: Any) -> Any:  # noqa: ANN401  # of JSON
    """The schema without infinite defaults, which JSON cannot represent."""
    match schema:
        case dict():
            kept = {name: _finite(one) for name, one in schema.items()}
            return {
                name: one for name, one in kept.items() if not isinstance(one, float) or math.isfinite(one)
            }
        case list():
            return [_finite(one) for one in schema]
    return schema


if __name__ == "__main__":
    print(experiment_schema(), end="")  # noqa: T201
