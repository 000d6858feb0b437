"""Samplers and pruners of OptunaHub's registry, which `optunahub` loads from its cache, without network."""

import subprocess
from pathlib import Path

import pytest

from tests.fake_endpoint import FakeEndpoint, fake_endpoint
from tests.project import Project
from tests.test_resume import EXPERIMENT, a_project, by_the_request, optuna_trials, settings

STUBBORN = '''
import optunahub


class StubbornSampler(optunahub.samplers.SimpleBaseSampler):
    """Settles on one point, as `GPSampler` does; needs the space, as the registry's SMAC does."""

    def __init__(self, search_space, seed):
        super().__init__(search_space, seed)
        assert seed == 3

    def sample_relative(self, study, trial, search_space):
        last = {name: getattr(one, "choices", [0])[-1] for name, one in search_space.items()}
        return last | {"temperature": search_space["temperature"].high}

    def after_trial(self, study, trial, state, values):
        assert values is not None  # a repeated candidate is a failed trial, without a value
'''
SEVERAL = """
from optuna.pruners import NopPruner
from optuna.samplers import RandomSampler


class FirstSampler(RandomSampler):
    pass


class SecondSampler(RandomSampler):
    def sample_independent(self, study, trial, name, distribution):
        if sum(one.state.is_finished() for one in study.get_trials(deepcopy=False)) > 2:
            raise KeyError("no gradient")
        return super().sample_independent(study, trial, name, distribution)


class OnlyPruner(NopPruner):
    def prune(self, study, trial):
        raise ZeroDivisionError("no reports to divide by")


__all__ = ["FirstSampler", "OnlyPruner", "SecondSampler"]
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = a_project(tmp_path / "project").untracked
    for name, text in {
        "stubborn": STUBBORN,
        "several": SEVERAL,
        "needy": "import not_installed\n",
        "wordy": "raise ModuleNotFoundError('Run `pip install annealing[all]`.')\n",
        "older": "import optuna._gp.of_another_version\n",
    }.items():
        registry = "hub/github.com/optuna/optunahub-registry/main/package"
        made.write(f"{registry}/samplers/{name}/__init__.py", text)
    return made


def tune(project: Project, endpoint: FakeEndpoint, search: str) -> "subprocess.CompletedProcess[str]":
    text = "seed = 3\n" + EXPERIMENT.replace("[search]\n", f"[search]\n{search}\n")
    command = ("-m", "lab.tune", str(project.write("experiments/known.toml", text)))
    done = project.run(*command, **settings(endpoint), OPTUNAHUB_CACHE_HOME=str(project.folder / "hub"))
    assert "Traceback" not in done.stderr, done.stderr
    return done


def test_a_sampler_gets_the_seed_and_the_space_and_may_repeat_itself(project: Project) -> None:
    with fake_endpoint(by_the_request) as endpoint:
        done = tune(project, endpoint, 'sampler = "optunahub:samplers/stubborn"')
    assert done.returncode == 0, done.stderr
    assert "Frozen: trial-" in done.stdout
    played = [trial for trial in optuna_trials(project) if trial.intermediate_values]
    assert len({trial.user_attrs["digest"] for trial in played}) == len(played) > 5


def test_one_of_several_samplers_of_a_package_is_named(project: Project) -> None:
    with fake_endpoint(by_the_request) as endpoint:
        done = tune(project, endpoint, 'sampler = "optunahub:samplers/several.FirstSampler"')
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('sampler = "optunahub:samplers/several"', "it has FirstSampler and SecondSampler; add one as .NAME"),
        ('pruner = "optunahub:samplers/stubborn"', "it has no Pruner"),
        ('sampler = "optunahub:samplers/needy"', "needs the package not_installed"),
        ('sampler = "optunahub:samplers/wordy"', "why: Run `pip install annealing[all]`."),
        ('sampler = "optunahub:samplers/older"', "why: No module named 'optuna._gp.of_another_version'"),
        ('sampler = "optuna.samplers.GridSampler"', "GridSampler'> cannot be created"),
    ],
)
def test_what_cannot_be_used_is_reported_before_anything_is_played(
    project: Project, line: str, said: str
) -> None:
    with fake_endpoint(by_the_request) as endpoint:
        done = tune(project, endpoint, line)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "pip install optuna," not in done.stderr
    assert "pip install ," not in done.stderr
    assert endpoint.requests == []


def test_a_sampler_that_fails_while_it_is_used_is_named_and_the_calls_are_kept(project: Project) -> None:
    search = 'sampler = "optunahub:samplers/several.SecondSampler"'
    with fake_endpoint(by_the_request) as endpoint:
        done = tune(project, endpoint, search)
        made = len(endpoint.requests)
        again = tune(project, endpoint, search)
    assert [done.returncode, again.returncode] == [2, 2], done.stderr
    said = "The sampler SecondSampler failed.\n  where: search.sampler\n  why: KeyError: 'no gradient'"
    assert said in done.stderr
    assert said in again.stderr
    assert len(endpoint.requests) == made > 0


def test_a_pruner_that_fails_while_it_is_used_is_named(project: Project) -> None:
    with fake_endpoint(by_the_request) as endpoint:
        done = tune(project, endpoint, 'sampler = "random"\npruner = "optunahub:samplers/several"')
    assert done.returncode == 2, done.stderr
    assert "The pruner OnlyPruner failed." in done.stderr
    assert "ZeroDivisionError: no reports to divide by" in done.stderr
