"""Fixtures that several test modules share."""

import os
import signal
import sys
from collections.abc import Iterator

import pytest
from hypothesis import settings

from lab.local_model.child import LocalModelProcess
from tests.echo_server import ROOT

if sys.dont_write_bytecode:  # a hundred processes would compile a hundred times; it is kept out of the way
    bytecode = os.environ.setdefault("PYTHONPYCACHEPREFIX", str(ROOT / ".pytest_cache/bytecode"))
    sys.pycache_prefix, sys.dont_write_bytecode = bytecode, False
    del os.environ["PYTHONDONTWRITEBYTECODE"]

settings.register_profile("lab", deadline=None)  # a busy machine is no fault of the code's
settings.load_profile("lab")


LONG = (
    *("real_environments", "quirks", "main_job", "tune", "docs", "submission_faults", "optuna"),
    *("several_tasks", "race", "workers", "headroom", "endings", "browser", "tracking_faults"),
    *("inference", "local_model", "resume"),
)
"""The longest test modules, in turn one that computes and one that waits; names are without `test_`."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin the longest modules first: a worker plays a whole module, and the last one would play alone."""
    place = {f"test_{name}": number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: place.get(item.path.stem, len(LONG)))


# Below nohup, or in the background of a shell, commands would ignore these.
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def local_model_url() -> Iterator[str]:
    """The base URL of a running embedded model: the real one, started once for all tests."""
    with LocalModelProcess.launch() as model:
        yield model.base_url
