"""Figures in words, the same on the terminal, in the report and in MLflow; an unknown one is no zero."""

from collections.abc import Sequence
from math import inf, isfinite, isnan

from lab.stats.intervals import Estimate

UNKNOWN = "unknown"

MORE = {"return": "more", "score": "higher"}
"""By measure, what it does that is better: it returns more, it scores higher."""

LESS = {"return": "less", "score": "lower"}


def number(value: float, size: float | None = None) -> str:
    """With as many decimals as its size leaves a meaning; `size` is that of the figures it stands beside."""
    if not isfinite(value):
        return UNKNOWN if isnan(value) else "-∞" if value < 0 else "∞"
    size = abs(value) if size is None else size
    decimals = next((places for least, places in ((10, 1), (1, 2), (0.1, 3)) if size >= least), 4)
    return f"{value:,.{decimals}f}" if round(value, decimals) else "0"


def signed(value: float, size: float | None = None) -> str:
    """The same, with its sign."""
    shown = number(value, size)
    return f"+{shown}" if value > 0 and shown != "0" else shown


def interval(estimate: Estimate, *, sign: bool = False) -> str:
    """The two ends; a single value has none."""
    if inf in (-estimate.low, estimate.high):
        return "no interval (one episode)" if estimate.n < 2 else "unbounded"
    write = signed if sign else number
    return f"[{write(estimate.low, _size(estimate))}, {write(estimate.high, _size(estimate))}]"


def mean(estimate: Estimate, *, sign: bool = False) -> str:
    """The mean, with the decimals of its interval."""
    return (signed if sign else number)(estimate.mean, _size(estimate))


def estimate_text(estimate: Estimate, *, sign: bool = False) -> str:
    """Mean and interval."""
    return f"{mean(estimate, sign=sign)} {interval(estimate, sign=sign)}"


def recorded(mean: float, ends: Sequence[float], n: int, *, sign: bool = False) -> str:
    """The same, of a frozen prompt's evidence."""
    low, high = ends
    return estimate_text(Estimate(mean, low, high, n), sign=sign)


def _size(estimate: Estimate) -> float:
    """The largest of an estimate's figures: all of them have its decimals."""
    return max(abs(one) for one in (estimate.mean, estimate.low, estimate.high) if isfinite(one))


def percent(share: float) -> str:
    """Without decimals, and never 0 % or 100 % of what is not quite."""
    if 0 < share < 0.01:
        return "under 1 %"
    if 0.99 < share < 1:
        return "over 99 %"
    return f"{share:.0%}".replace("%", " %")


def p_text(p_value: float) -> str:
    """A p-value, to two figures."""
    return f"p = {p_value:.2g}"


def count(amount: int, one: str, many: str = "") -> str:
    """`3 episodes`, `1 episode`."""
    return f"{amount:,} {one if amount == 1 else many or one + 's'}"


def dollars(amount: float | None) -> str:
    """An amount, or that it is unknown."""
    return UNKNOWN if amount is None else f"${amount:,.2f}" if amount >= 0.01 else f"${amount:.4f}"


def price(amount: float | None) -> str:
    """What was paid, in a line of other figures."""
    return "free" if amount == 0 else "price unknown" if amount is None else dollars(amount)


def setting_text(value: object) -> str:
    """As an experiment file writes it."""
    if isinstance(value, list):
        return ", ".join(map(repr, value)) or "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def token_notes(calls: int, thinking_tokens: int, estimated: int) -> str:
    """What more there is to say after a number of tokens, in parentheses; empty for nothing.

    Args:
        thinking_tokens: Those of the tokens out with which models thought.
        estimated: Number of calls whose tokens are estimates.
    """
    thought = f"{thinking_tokens:,} of them thinking" if thinking_tokens else ""
    whose = "estimated" if estimated >= calls else f"estimated for {count(estimated, 'call')}"
    notes = ", ".join(filter(None, [thought, whose if estimated else ""]))
    return f" ({notes})" if notes else ""
