"""Whether MLflow's database file has all of a study, found without MLflow: its import takes 5 s.

A server is always asked through MLflow.
"""

import os
import sqlite3
from contextlib import closing

from lab.submission.freeze import frozen_text
from lab.submission.frozen import FrozenPrompt
from lab.tracking.database import database_file
from lab.tracking.store import CONTENTS, contents_of

DEFAULT_URI = "sqlite:///mlflow.db"
"""MLflow's default, in the current folder."""

_STUDY = """
    select runs.run_uuid from runs join tags on tags.run_uuid = runs.run_uuid
    where runs.lifecycle_stage = 'active' and tags.key = ? and tags.value = ?
"""
_CHILDREN = """
    select runs.name, runs.lifecycle_stage from runs join tags on tags.run_uuid = runs.run_uuid
    where tags.key = 'mlflow.parentRunId' and tags.value = ?
"""


def is_written(frozen: FrozenPrompt) -> bool:
    """Whether the file has the study of a frozen prompt with all of its runs, and none was deleted since."""
    path = database_file(os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI)
    if path is None or not path.is_file():
        return False
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            study = database.execute(_STUDY, (CONTENTS, contents_of(frozen_text(frozen)))).fetchone()
            runs = database.execute(_CHILDREN, study).fetchall() if study else []
    except sqlite3.Error:  # of another version, or damaged: MLflow reports it
        return False
    return bool(runs) and {name for name, _ in runs} == {name for name, stage in runs if stage == "active"}
