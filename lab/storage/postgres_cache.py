"""Optuna's cache of a study's trials on PostgreSQL, which reads only what has changed since its last read.

Optuna's own reads all unfinished trials again, and most trials of a race are unfinished: with 2,000 of them
that took a second of CPU. PostgreSQL stores with each row the transaction that wrote it, so the rows written
since a moment can be found, also those of a transaction that began before it and ended after it.
"""

import sqlalchemy as sql
from optuna.storages import RDBStorage
from optuna.storages._cached_storage import _CachedStorage, _StudyInfo
from optuna.trial import FrozenTrial

_HORIZON = sql.text("select pg_snapshot_xmin(pg_current_snapshot())::text::numeric % 4294967296")
"""The transaction before which all have ended; `xmin` has its lower 32 bits, which `age` compares."""

_MOST = 2**31 - 1
"""An id above all trials'."""

_PARTS = (
    "trial_params",
    "trial_values",
    "trial_user_attributes",
    "trial_system_attributes",
    "trial_intermediate_values",
)
_SINCE = "age(xmin) <= age(cast(cast(:since as text) as xid))"
_CHANGED = sql.text(
    f"select trial_id from trials where study_id = :study and {_SINCE}"
    + "".join(f" union select trial_id from {one} where trial_id = any(:open) and {_SINCE}" for one in _PARTS)
)


class PostgresCache(_CachedStorage):
    """The cache of one process."""

    def __init__(self, backend: RDBStorage) -> None:
        super().__init__(backend)
        self._read_at = dict[int, str]()

    def _read_trials_from_remote_storage(self, study_id: int) -> None:
        with self._lock:
            study, since = self._studies.setdefault(study_id, _StudyInfo()), self._read_at.get(study_id)
            values = {"study": study_id, "since": since, "open": list(study.unfinished_trial_ids)}
            with self._backend.engine.connect() as connection:
                horizon = str(connection.execute(_HORIZON).scalar_one())
                changed = set(connection.execute(_CHANGED, values).scalars()) if since else set[int]()
            trials = list[FrozenTrial]()
            if changed or since is None:
                trials = self._backend._get_trials(study_id, None, changed, _MOST if since else -1)
            self._read_at[study_id] = horizon
            self._add_trials_to_cache(study_id, trials)
            for trial in trials:
                if trial.state.is_finished():
                    study.unfinished_trial_ids.discard(trial._trial_id)
                else:
                    study.unfinished_trial_ids.add(trial._trial_id)
