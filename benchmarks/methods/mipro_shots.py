"""DSPy by `dspy.MIPROv2` with demonstrations, as its defaults have it: up to four, by bootstrapping.

The package plays the training seeds, takes steps of episodes that returned something, and lets TPE choose
among sets of them as among instructions. It takes any step of such an episode; here only those that earned
something are offered. There are none with a given answer, so `max_labeled_demos` stays 0.
"""

from benchmarks.ground import Ground
from benchmarks.methods.mipro_method import INSTRUCTIONS, TRAINING, search

SHOTS = 4


def run(ground: Ground) -> None:
    """Search once; all sets but an empty one are bootstrapped, each from half of the training seeds or so."""
    search(ground, SHOTS, (INSTRUCTIONS - 1) * TRAINING // 2)
