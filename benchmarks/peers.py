"""The methods by name, the lab's own first, and which of them make use of their budget from the start.

A method that does not know its budget has one run, whose picks on the way are its picks at smaller budgets.
"""

from dataclasses import dataclass
from importlib import import_module

from benchmarks.ground import Method


@dataclass(frozen=True)
class Peer:
    """A method to compare with.

    Attributes:
        module: below `benchmarks.methods`; imported when it is wanted, for some need packages of their own.
        knows_budget: whether a smaller budget makes another run.
        live_only: whether it needs an endpoint: it asks a model for texts, or plays episodes side by side.
    """

    module: str
    knows_budget: bool = False
    live_only: bool = False

    def method(self) -> Method:
        """Its `run`."""
        method: Method = import_module(f"benchmarks.methods.{self.module}").run
        return method


PEERS = {
    "lab": Peer("lab_study", knows_budget=True, live_only=True),
    "random": Peer("random_search"),
    "optuna": Peer("optuna_default"),
    "hyperband": Peer("optuna_hyperband"),
    "numbers_first": Peer("numbers_first", knows_budget=True),
    "gepa": Peer("gepa_method", live_only=True),
    "dspy": Peer("dspy_method", live_only=True),
    "capo": Peer("capo", live_only=True),
}
