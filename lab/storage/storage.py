"""The Storage: all studies, as the store of calls and episodes and Optuna's storage of trials.

It owns which two places an address means: by default files in `.lab/`; PostgreSQL holds both, for several
machines; any other URL is Optuna's only, and calls and episodes stay in the file.
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
        LabError: Here and in all reads and writes: the database or the disk failed.
    """

    store: Store
    optuna: OptunaStorage

    @classmethod
    def at(cls, address: str = "", *, writing: bool = True) -> "Storage":
        """Open the storage at `address`: a journal file, or a URL that Optuna accepts; empty for the default.

        Args:
            writing: Whether studies are worked on, and not only read.
        """
        if address.startswith("postgres"):
            store = Store(address)
            with store.exclusively():  # of concurrent workers, one creates Optuna's tables
                return cls(store, OptunaStorage(store.trials_url, writing=writing))
        return cls(Store(CALLS), OptunaStorage(address or LOG, writing=writing))

    def close(self) -> None:
        """Close the connections."""
        self.store.close()


def address_of(flag: str) -> str:
    """Return the flag's address, else `LAB_STORAGE`; empty for the default files."""
    return flag or os.environ.get("LAB_STORAGE", "")


def is_there(address: str) -> bool:
    """Return whether there is anything to read: reading must not create a storage."""
    return address.startswith("postgres") or Path(CALLS).exists()
