"""A Listing: the state and size of every study in the store.

It owns the states' names. It reads no documents or results, so it also lists studies that cannot be read.
"""

import fcntl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import sqlalchemy as sql

from lab.errors import LabError
from lab.experiment.budget import FREE
from lab.storage.database import CALLS, studies
from lab.storage.record import Record
from lab.storage.storage import Storage
from lab.storage.study_trials import facts_of

State = Literal["searching", "judging", "unfinished", "finished", "stopped", "damaged"]
"""The first two while a process works on the study; `unfinished` if none does, and the study can resume;
`stopped` if it ended with an error that would occur again; `damaged` if its record is unreadable."""


@dataclass(frozen=True)
class Listed:
    """A study.

    Attributes:
        began: Start time, ISO 8601, UTC.
        trials: Number of candidates with an ended episode; None, as the other counts, if it is damaged.
        episodes: Number of completed episodes.
        calls: Number of answered model calls.
    """

    name: str
    experiment: str
    began: str
    state: State
    trials: int | None = None
    episodes: int | None = None
    calls: int | None = None

    @property
    def began_text(self) -> str:
        """Start time to the minute, for people."""
        return self.began[:16].replace("T", " ")


def listing(storage: Storage, experiment: str = "") -> list[Listed]:
    """All studies, or those of one experiment, latest first."""
    query = sql.select(studies.c.name, studies.c.experiment, studies.c.began)
    if experiment:
        query = query.where(studies.c.experiment == experiment)
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
    """Whether a process that works on the experiment's last study holds `lab.study.resume.alone`'s lock."""
    path = CALLS.parent / f"{experiment}.lock"
    try:
        with path.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return isinstance(error, BlockingIOError)
    return False
