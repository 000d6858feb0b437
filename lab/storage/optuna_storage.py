"""Optuna's storage: its location, how it is opened after a crash, and the errors for its exceptions."""

import time
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import (
    BaseStorage,
    InMemoryStorage,
    JournalStorage,
    RDBStorage,
    RetryHeartbeatStaleTrialCallback,
)
from optuna.storages._rdb.models import TrialHeartbeatModel, TrialModel
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.storages.journal._file import LOCK_FILE_SUFFIX
from optuna.trial import TrialState
from sqlalchemy import func, make_url, select, text
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from lab.errors import ConfigError, LabError
from lab.storage.database import refused
from lab.storage.postgres_cache import PostgresCache

LOG = Path(".lab/optuna.log")

_ADDRESS = "use postgresql://USER:PASSWORD@HOST:PORT/DATABASE, another database's URL, or FILE.log"

LOCK_S = 5
"""Seconds after which the lock of a process killed during a write is broken."""

BEAT_S, GRACE_S = 1, 15
"""Seconds between heartbeats of a worker's trials, and without one until others take them over."""

_BEAT = text(
    "insert into trial_heartbeats (trial_id, heartbeat)"
    " select one, current_timestamp from unnest(cast(:trials as integer[])) as one order by one"
    " on conflict (trial_id) do update set heartbeat = excluded.heartbeat"
)


class OptunaStorage:
    """An open Optuna storage: a journal file, a database's URL, or None for one in memory.

    Attributes:
        where: The location for people, without a password.
        shared: Whether workers on other machines may use it too.
        writing: Whether studies may be created in it; otherwise an absent study is empty.

    Raises:
        ConfigError: The URL is invalid, or its driver is not installed.
        LabError: The storage cannot be opened.
    """

    def __init__(self, place: str | Path | None = LOG, *, writing: bool = True) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        warnings.filterwarnings("ignore", category=ExperimentalWarning)
        address = "" if place is None else str(place)
        self.shared, self.writing = address.startswith("postgresql"), writing
        self._is_server = "://" in address and not address.startswith("sqlite")
        self.where = _without_password(address)
        try:
            with self.translated_errors():
                self.storage: BaseStorage = (
                    InMemoryStorage() if place is None else _opened(address, writing=writing)
                )
        except (ValueError, KeyError, TypeError) as error:  # lines that Optuna did not write
            what, why = "Optuna's storage is damaged.", f"{type(error).__name__}: {error}"
            do = "move it away, and run the same command to rebuild it from the recorded episodes"
            raise LabError(what, where=self.where, why=why, do=do) from None
        except ImportError as error:
            do = "install the package that this database needs, such as PyMySQL for mysql+pymysql://..."
            what, why = "The database's driver is not installed.", str(error)
            raise ConfigError(what, where=self.where, why=why, do=do) from None

    def names(self) -> list[str]:
        """Return the names of all studies."""
        with self.translated_errors():
            return optuna.get_all_study_names(self.storage)

    def cached(self) -> BaseStorage:
        """Return the storage with a separate cache of trials, for a study that reads them again and again."""
        if isinstance(self.storage, RDBStorage) and self.shared:
            return PostgresCache(self.storage)
        return self.storage

    def beat(self, trial_ids: Collection[int]) -> None:
        """Record heartbeats of running trials; Optuna's own way takes five statements for each."""
        if self.shared and trial_ids:
            assert isinstance(self.storage, RDBStorage)
            with self.storage.engine.begin() as connection:
                connection.execute(_BEAT, {"trials": list(trial_ids)})

    def has_dead(self, study_id: int) -> bool:
        """Whether a running trial's heartbeat is overdue."""
        assert isinstance(self.storage, RDBStorage)
        overdue = TrialHeartbeatModel.heartbeat < func.current_timestamp() - timedelta(seconds=GRACE_S)
        running = (TrialModel.study_id == study_id) & (TrialModel.state == TrialState.RUNNING)
        query = select(TrialModel.trial_id).join(TrialHeartbeatModel).where(running, overdue).limit(1)
        with self.storage.engine.connect() as connection:
            return connection.execute(query).first() is not None

    @contextmanager
    def translated_errors(self) -> Iterator[None]:
        """Translate the storage's exceptions into LabErrors."""
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Heartbeat of storage")
                yield
        except (StorageInternalError, SQLAlchemyError, OSError) as error:
            raised = error.__cause__ if isinstance(error.__cause__, SQLAlchemyError) else error
            what = "Optuna's storage cannot be read or written."
            raise refused(what, self.where, raised, server=self._is_server) from None


def retrying() -> RetryHeartbeatStaleTrialCallback:
    """What adds a waiting copy of a failed trial, with the values reported so far."""
    return RetryHeartbeatStaleTrialCallback(inherit_intermediate_values=True)


def _journal(path: Path, *, writing: bool) -> BaseStorage:
    if path.suffix != ".log":
        raise ConfigError("Invalid storage URL.", where="--storage or LAB_STORAGE", do=_ADDRESS)
    if not writing and not path.exists():
        return InMemoryStorage()
    path.parent.mkdir(parents=True, exist_ok=True)
    path = path.resolve()  # the lock is a link to it, and Optuna breaks no dangling link
    _unlock(path.with_name(path.name + LOCK_FILE_SUFFIX))
    lock = JournalFileSymlinkLock(str(path), grace_period=LOCK_S)
    backend = JournalFileBackend(str(path), lock_obj=lock)
    if writing:
        lock.acquire()
        try:
            _mend(path)
        finally:
            lock.release()
    return JournalStorage(backend)


def _unlock(lock: Path) -> None:
    """Remove the lock of a killed process that named the journal by a relative path."""
    leads_nowhere = lock.is_symlink() and not lock.exists()
    if leads_nowhere and time.time() - lock.lstat().st_mtime > LOCK_S:
        lock.unlink(missing_ok=True)


def _mend(path: Path) -> None:
    """Remove a partial last line, written by a killed process, which Optuna cannot read."""
    with path.open("rb+") as file:
        text = file.read()
        if text and not text.endswith(b"\n"):
            file.truncate(text.rfind(b"\n") + 1)


def _opened(address: str, *, writing: bool) -> BaseStorage:
    if "://" not in address:
        return _journal(Path(address), writing=writing)
    if not address.startswith("postgresql"):
        return RDBStorage(address)
    return RDBStorage(
        address, heartbeat_interval=BEAT_S, grace_period=GRACE_S, heartbeat_stale_trial_callback=retrying()
    )


def _without_password(address: str) -> str:
    if "://" not in address:
        return address
    try:
        url = make_url(address)
        with suppress(ImportError):  # a missing driver is reported on opening
            url.get_dialect()
    except ArgumentError:
        where = "--storage or LAB_STORAGE"
        raise ConfigError("Invalid storage URL.", where=where, do=_ADDRESS) from None
    return url.set(query={}).render_as_string()
