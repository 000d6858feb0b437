"""The lab with the library's texts from the start, and without a proposer."""

from dataclasses import replace

from benchmarks.ground import Ground
from benchmarks.methods import lab_study
from benchmarks.methods.lab_both import with_library


def run(ground: Ground) -> None:
    """As `lab_study.run`."""
    lab_study.study(ground, replace(with_library(ground.experiment), proposals=None))
