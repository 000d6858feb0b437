"""The search: which candidate plays which seed next, until only the verdict's share of the budget remains.

It owns Optuna's sampler and pruner for noisy instances, the race on a study's trials, the loop, the player.
It leaves storing trials to `storage`, judging to `verdict`, and new texts to `proposers`.
`RaceSampler` and `RacePruner` use little else of the lab: see `docs/optuna.md`.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lab.search.pruner import RacePruner
    from lab.search.sampler import RaceSampler

__all__ = ["RacePruner", "RaceSampler"]


def __getattr__(name: str) -> object:
    """Import a class on first use: importing Optuna takes a second, and `--help` does not need it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from lab.search.pruner import RacePruner
    from lab.search.sampler import RaceSampler

    return {"RacePruner": RacePruner, "RaceSampler": RaceSampler}[name]
