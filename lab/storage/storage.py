"""The Storage: where all studies are: the store of calls and episodes, and Optuna's of trials.

It owns which two places an address means. By default they are files in `.lab/`; PostgreSQL holds both, for
several machines; any other address is Optuna's alone, and calls and episodes stay in the file.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from lab.storage.database import CALLS, Store
from lab.storage.optuna_storage import LOG, OptunaStorage


@dataclass(frozen=True)
class Storage:
    """An open storage.

    Raises:
        ConfigError: The address is invalid.
        LabError: here and in everything that reads or writes: the database or the disk refused.
    """

    store: Store
    optuna: OptunaStorage

    @classmethod
    def at(cls, address: str = "", *, writing: bool = True) -> "Storage":
        """Open what is at `address`: a file, or an address that Optuna takes; empty for the default.

        Args:
            writing: Whether a study is to be worked on, and not only read.
        """
        if address.startswith("postgres"):
            store = Store(address)
            with store.exclusively():  # of workers that start at once, one makes Optuna's tables
                return cls(store, OptunaStorage(store.trials_url, writing=writing))
        return cls(Store(CALLS), OptunaStorage(address or LOG, writing=writing))

    def close(self) -> None:
        """Close the connections."""
        self.store.close()


def address_of(flag: str) -> str:
    """Return the storage's address: the flag's, else `LAB_STORAGE`; empty for the default files."""
    return flag or os.environ.get("LAB_STORAGE", "")


def is_there(address: str) -> bool:
    """Return whether there is anything to read, so that nothing is made by reading."""
    return address.startswith("postgres") or Path(CALLS).exists()
