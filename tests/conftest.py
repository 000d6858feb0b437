"""Fixtures that several test modules share."""

from collections.abc import Iterator

import pytest
from hypothesis import settings

from lab.local_model.child import start

settings.register_profile("lab", deadline=None)  # a busy machine is no fault of the code's
settings.load_profile("lab")


@pytest.fixture(scope="session")
def local_model_url() -> Iterator[str]:
    """The base URL of a running embedded model: the real one, started once for all tests."""
    with start() as model:
        yield model.base_url
