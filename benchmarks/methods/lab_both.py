"""The lab with the library's texts from the start, and with new ones."""

from dataclasses import replace

from benchmarks.ground import Ground
from benchmarks.methods import lab_study
from lab.agent.template import load_template
from lab.experiment.experiment import TEMPLATES, Experiment


def run(ground: Ground) -> None:
    """As `lab_study.run`."""
    lab_study.study(ground, with_library(ground.experiment))


def with_library(experiment: Experiment) -> Experiment:
    """The experiment with all texts of the library that are named as its baseline's is."""
    kind = experiment.baseline.template.name.partition("_")[0]
    texts = [load_template(path) for path in sorted(TEMPLATES.glob(f"{kind}_*.toml"))]
    return replace(experiment, space=experiment.space.widened(texts, ()))
