"""The methods by name, the lab first, and which of them take their budget as an argument.

A method that does not know its budget runs once; its picks during the run count for smaller budgets.
"""

from dataclasses import dataclass
from importlib import import_module

from benchmarks.ground import Method


@dataclass(frozen=True)
class Peer:
    """A method to compare with.

    Attributes:
        module: Module in `benchmarks.methods`, imported on use, because some need extra packages.
        knows_budget: Whether each budget needs a separate run.
        live_only: Whether it needs an endpoint, for proposed texts or for parallel episodes.
    """

    module: str
    knows_budget: bool = False
    live_only: bool = False

    def method(self) -> Method:
        """The method's `run` function."""
        method: Method = import_module(f"benchmarks.methods.{self.module}").run
        return method


PEERS = {
    "lab": Peer("lab_study", knows_budget=True, live_only=True),
    "lab_library": Peer("lab_library", knows_budget=True, live_only=True),
    "lab_both": Peer("lab_both", knows_budget=True, live_only=True),
    "baseline": Peer("baseline", live_only=True),
    "random": Peer("random_search"),
    "optuna": Peer("optuna_default"),
    "hyperband": Peer("optuna_hyperband"),
    "numbers_first": Peer("numbers_first", knows_budget=True),
    "gepa": Peer("gepa_method", live_only=True),
    "dspy": Peer("dspy_method", live_only=True),
    "mipro": Peer("mipro_method", knows_budget=True, live_only=True),
    "mipro_shots": Peer("mipro_shots", knows_budget=True, live_only=True),
    "capo": Peer("capo", live_only=True),
}
