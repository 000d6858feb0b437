"""MLflow's default database file: created under another name, and renamed once it is complete.

MLflow creates it in about a hundred statements, in a few seconds, and cannot continue after a kill. A file
that such a kill left contains no runs and is moved away. Servers and other databases are MLflow's.
"""

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress
from itertools import count
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import make_url

from lab.files import alone_in

SEEDED = frozenset({"alembic_version", "workspaces"})
"""Tables in which a migration writes rows; a complete database also has an experiment, `Default`."""

STILL_S = 10.0
"""Seconds without a write after which no process is creating the database."""


def prepare(uri: str, say: Callable[[str], None]) -> None:
    """Create the database at `uri` if it is a file that is absent or incomplete.

    Args:
        say: Called with a line if an incomplete file was moved away.

    Raises:
        OSError, sqlite3.Error, mlflow.MlflowException: It cannot be read or created.
    """
    path = database_file(uri)
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with alone_in(path.parent):
        if is_half_made(path):
            _wait_until_still(path)
            if is_half_made(path):
                say(f"MLflow's {path} was incomplete after a kill: moved to {_aside(path)}.")
        if not path.exists():
            _make(path)


def database_file(uri: str) -> Path | None:
    """The SQLite file that a tracking URI names; None for anything else."""
    if not uri.startswith("sqlite:"):
        return None
    database = make_url(uri).database
    return Path(database) if database and not database.startswith((":memory:", "file:")) else None


def is_half_made(path: Path) -> bool:
    """Whether the file is a database that MLflow has not finished creating.

    Raises:
        sqlite3.Error: It cannot be read.
    """
    if not path.is_file():
        return False
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=20)) as database:
        try:
            names = database.execute("select name from sqlite_master where type = 'table'").fetchall()
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError:
            return False  # not a database: MLflow reports it
        tables = {name.replace('"', '""') for (name,) in names if not name.startswith("sqlite_")} - SEEDED
        return not any(database.execute(f'select 1 from "{table}" limit 1').fetchone() for table in tables)


def _wait_until_still(path: Path) -> None:
    """Wait until no other process, such as `mlflow ui`, is creating it."""
    while is_half_made(path) and abs(time.time() - path.stat().st_mtime) < STILL_S:
        time.sleep(0.2)


def _aside(path: Path) -> Path:
    """Move the file and its journal, which must not be applied to a new database, to the first free name."""
    aside = next(one for number in count(1) if not (one := Path(f"{path}.broken-{number}")).exists())
    for suffix in ("-journal", "-wal", "-shm", ""):
        with suppress(FileNotFoundError):
            Path(f"{path}{suffix}").rename(f"{aside}{suffix}")
    return aside


def _make(path: Path) -> None:
    import mlflow

    made = Path(f"{path}.new")
    for suffix in ("-journal", ""):  # of an earlier attempt that was killed
        Path(f"{made}{suffix}").unlink(missing_ok=True)
    made.touch()  # fail at once if nothing can be written: MLflow would try for minutes
    address = f"sqlite:///{quote(str(made))}"
    mlflow.MlflowClient(tracking_uri=address).search_experiments(max_results=1)
    made.rename(path)
