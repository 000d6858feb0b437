"""A Listing: every study in the store, in a line each: where it stands, and how large it is.

It owns the states by which people know a study. What it depends on and what it found are not looked at: a
study that cannot be read is listed all the same.
"""

import fcntl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sql

from lab.errors import LabError
from lab.experiment.budget import FREE
from lab.storage.database import CALLS, studies
from lab.storage.record import Record
from lab.storage.storage import Storage
from lab.storage.trials import facts_of

State = Literal["searching", "judging", "unfinished", "finished", "stopped", "damaged"]
"""The first two while a process works on the study; `unfinished` where none does, and the study can resume;
`stopped` where it ended with an error that it would give again; `damaged` where its record is unreadable."""


@dataclass(frozen=True)
class Listed:
    """A study.

    Attributes:
        began: ISO 8601, UTC.
        trials: candidates with an episode that has ended; this and the others None where it is damaged.
        episodes: whole ones.
        calls: of the model, that were answered.
    """

    name: str
    experiment: str
    began: str
    state: State
    trials: int | None = None
    episodes: int | None = None
    calls: int | None = None


def listing(storage: Storage) -> list[Listed]:
    """All studies, the latest first."""
    query = sql.select(studies.c.name, studies.c.experiment, studies.c.began)
    rows = storage.store.rows(query.order_by(studies.c.began.desc(), studies.c.name))
    latest: dict[str, str] = {}
    for row in rows:
        latest.setdefault(row.experiment, row.name)
    return [_listed(storage, row, last=latest[row.experiment] == row.name) for row in rows]


def _listed(storage: Storage, row: sql.Row[tuple[str, str, float]], *, last: bool) -> Listed:
    began = datetime.fromtimestamp(row.began, UTC).isoformat(timespec="seconds")
    try:
        record = Record(storage.store, row.name, "")
        facts = facts_of(storage.optuna, row.name)
        calls = sum(record.spent_elsewhere(FREE, proposals=kind).calls for kind in (False, True))
    except LabError:
        return Listed(row.name, row.experiment, began, "damaged")
    trials = len({digest for digest, _ in record.ended})
    state = _state(facts, record, row.experiment, last=last)
    return Listed(row.name, row.experiment, began, state, trials, record.episodes, calls)


def _state(facts: Mapping[str, Any], record: Record, experiment: str, *, last: bool) -> State:
    if "judged" in facts:
        return "finished"
    if "stopped" in facts:
        return "stopped"
    at_work = record.store.is_led(record.name) if record.store.shared else last and _is_locked(experiment)
    if not at_work:
        return "unfinished"
    return "judging" if "searched" in facts else "searching"


def _is_locked(experiment: str) -> bool:
    """Whether a process holds the lock of `lab.study.resume.alone`, as who works on the last study does."""
    path = CALLS.parent / f"{experiment}.lock"
    try:
        with Path(path).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
