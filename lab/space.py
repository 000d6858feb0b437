"""The Space: which candidates there are to choose from, as dimensions that Optuna can suggest for.

It owns the way from Optuna's parameters to a Candidate and back, and knows nothing of how one is judged.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lab.candidate import Candidate, ContextSettings, Demonstration, SamplingParams, Setting, check_number
from lab.prompt import PromptTemplate

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


@dataclass(frozen=True)
class Choices:
    """One of a few values; a template's is its name."""

    values: tuple[Setting, ...]

    @property
    def ends(self) -> tuple[Setting, ...]:
        """The values that stand for all where limits are checked."""
        return self.values

    def __contains__(self, value: Setting) -> bool:
        return value in self.values


@dataclass(frozen=True)
class Range:
    """A number from `low` to `high`, both included; whole numbers where both are."""

    low: float
    high: float

    @property
    def ends(self) -> tuple[Setting, ...]:
        """The values that stand for all where limits are checked."""
        return (self.low, self.high)

    def __contains__(self, value: Setting) -> bool:
        return not isinstance(value, str) and self.low <= value <= self.high


Dimension = Choices | Range


@dataclass(frozen=True)
class Space:
    """All the candidates that an experiment may try.

    Attributes:
        free: the dimensions that are searched, by the names of `Candidate.settings`.
        start: gives every other setting its value.
        templates: by name, all that `free` may choose, and `start`'s.
        demonstrations: best first; a candidate with n of them has the first n.
    """

    free: Mapping[str, Dimension]
    start: Candidate
    templates: Mapping[str, PromptTemplate]
    demonstrations: tuple[Demonstration, ...] = ()

    def distributions(self) -> dict[str, "BaseDistribution"]:
        """The free dimensions in Optuna's terms."""
        return {name: _distribution(dimension) for name, dimension in self.free.items()}

    def candidate(self, params: Mapping[str, Setting]) -> Candidate:
        """The candidate that Optuna's `params` stand for; numbers are rounded to 2 decimals, for people."""
        rounded = {name: round(v, 2) if isinstance(v, float) else v for name, v in params.items()}
        return with_settings(self.start, rounded, self.templates, self.demonstrations)

    def params(self, candidate: Candidate) -> dict[str, Setting] | None:
        """The inverse of `candidate`, or None where it lies outside the space."""
        params = {name: candidate.settings[name] for name in self.free}
        inside = all(value in self.free[name] for name, value in params.items())
        return params if inside and self.candidate(params) == candidate else None

    def widened(self, texts: Iterable[PromptTemplate], demonstrations: Sequence[Demonstration]) -> "Space":
        """The same with more templates to choose from, and with demonstrations if there were none."""
        templates = {**self.templates, **{text.name: text for text in texts}}
        free = dict(self.free)
        free["template"] = Choices(tuple(templates))
        shown = self.demonstrations or tuple(demonstrations)
        return replace(self, free=free, templates=templates, demonstrations=shown)


def with_settings(
    candidate: Candidate,
    settings: Mapping[str, Setting],
    templates: Mapping[str, PromptTemplate],
    demonstrations: Sequence[Demonstration] = (),
) -> Candidate:
    """`candidate` with some settings replaced, by their names in `Candidate.settings`.

    Raises:
        ConfigError: a value is of the wrong kind or out of its setting's range.
    """
    merged = {**candidate.settings, **settings}
    shown = int(check_number("demonstrations", merged.pop("demonstrations"), whole=True))
    template = templates[str(merged.pop("template"))]
    context = {name: merged.pop(name) for name in ("history", "layout", "show_rewards")}
    sampling = SamplingParams(**merged, stop=candidate.sampling.stop)  # type: ignore[arg-type]
    context_settings = ContextSettings(**context)  # type: ignore[arg-type]
    return Candidate(template, sampling, context_settings, tuple(demonstrations[:shown]))


def _distribution(dimension: Dimension) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    match dimension:
        case Choices(values):
            return CategoricalDistribution(values)
        case Range(int(low), int(high)):
            return IntDistribution(low, high)
        case Range(low, high):
            return FloatDistribution(low, high)
