"""The search: which candidate plays which seed next, until the budget is left to the verdict.

It owns Optuna's sampler and pruner for noisy instances, the race on a study's trials, the loop, the player.
It leaves where trials are kept to `storage`, what is judged to `verdict`, and new texts to `proposers`.
`RaceSampler` and `RacePruner` need nothing else of the lab: see `docs/optuna.md`.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lab.search.pruner import RacePruner
    from lab.search.sampler import RaceSampler

__all__ = ["RacePruner", "RaceSampler"]


def __getattr__(name: str) -> object:
    """Import either when it is asked for: Optuna takes a second, and `--help` needs none of it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from lab.search.pruner import RacePruner
    from lab.search.sampler import RaceSampler

    return {"RacePruner": RacePruner, "RaceSampler": RaceSampler}[name]
