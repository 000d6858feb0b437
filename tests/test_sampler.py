"""RaceSampler and RacePruner as Optuna classes: Optuna's own suites, and their results."""

from collections.abc import Callable

import optuna
import pytest
from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    RelativeSamplerTestCase,
    SingleOnlySamplerTestCase,
)

from lab.search.sampler import RaceSampler

optuna.logging.set_verbosity(optuna.logging.WARNING)


class TestRaceSampler(BasicSamplerTestCase, RelativeSamplerTestCase, SingleOnlySamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return RaceSampler
