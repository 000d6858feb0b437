"""The JSON Schema of experiment files, for completion and checks in editors.

`python -m lab.experiment.json_schema > experiments/experiment.schema.json` writes the one that ships.
"""

import json
from math import inf

from lab.experiment.schema import ExperimentFile


def experiment_schema() -> str:
    """The schema, from the models that read the file, without infinite defaults, which JSON does not have."""
    text = json.dumps({**ExperimentFile.model_json_schema(), "title": "Experiment"})
    finite = json.loads(
        text, object_hook=lambda table: {k: v for k, v in table.items() if v not in (inf, -inf)}
    )
    return json.dumps(finite, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    print(experiment_schema(), end="")  # noqa: T201
