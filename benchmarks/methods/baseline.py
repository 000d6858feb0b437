"""The baseline itself, without a search: what the others' sealed returns are compared with."""

from benchmarks.ground import Ground


def run(ground: Ground) -> None:
    """Keep the baseline, which is every ground's first pick."""
    del ground
