"""Numbers as text, the same on the terminal, in the report and in MLflow; an unknown one is never 0."""

from math import inf, isfinite, isnan

from lab.stats.intervals import Estimate

UNKNOWN = "unknown"

MORE = {"return": "more", "score": "higher"}
"""Comparative by measure: it returns more, it scores higher."""

LESS = {"return": "less", "score": "lower"}


def number(value: float, size: float | None = None) -> str:
    """A number with as many decimals as its size, or the `size` of the figures beside it, calls for."""
    if not isfinite(value):
        return UNKNOWN if isnan(value) else "-∞" if value < 0 else "∞"
    size = abs(value) if size is None else size
    decimals = next((places for least, places in ((10, 1), (1, 2), (0.1, 3)) if size >= least), 4)
    return f"{value:,.{decimals}f}" if round(value, decimals) else "0"


def signed(value: float, size: float | None = None) -> str:
    """A number with its sign."""
    shown = number(value, size)
    return f"+{shown}" if value > 0 and shown != "0" else shown


def interval(estimate: Estimate, *, sign: bool = False) -> str:
    """The two ends of an interval; a single value has none."""
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


def estimate_with_n(estimate: Estimate) -> str:
    """Mean, interval, and number of values."""
    return f"{estimate_text(estimate)}, n = {estimate.n}"


def _size(estimate: Estimate) -> float:
    """The largest of an estimate's figures, which sets the decimals of all."""
    return max(abs(one) for one in (estimate.mean, estimate.low, estimate.high) if isfinite(one))


def percent(share: float) -> str:
    """A share as a percent without decimals; 0 % and 100 % only if exact."""
    if 0 < share < 0.01:
        return "under 1 %"
    if 0.99 < share < 1:
        return "over 99 %"
    return f"{share:.0%}".replace("%", " %")


def p_text(p_value: float) -> str:
    """A p-value with two significant digits."""
    return f"p = {p_value:.2g}"


def count(amount: int, one: str, many: str = "") -> str:
    """A number of things: `3 episodes`, `1 episode`."""
    return f"{amount:,} {one if amount == 1 else many or one + 's'}"


def dollars(amount: float | None) -> str:
    """An amount in dollars, or that it is unknown."""
    return UNKNOWN if amount is None else f"${amount:,.2f}" if amount >= 0.01 else f"${amount:.4f}"


def price(amount: float | None) -> str:
    """A price in a line of other figures."""
    return "free" if amount == 0 else "price unknown" if amount is None else dollars(amount)


def setting_text(value: object) -> str:
    """A setting's value as in an experiment file."""
    if isinstance(value, list):
        return ", ".join(map(repr, value)) or "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def token_notes(calls: int, thinking_tokens: int, estimated: int) -> str:
    """Notes on a number of tokens, in parentheses; empty if there are none.

    Args:
        thinking_tokens: Number of the completion tokens that are thinking.
        estimated: Number of calls whose tokens are estimates.
    """
    thought = f"{thinking_tokens:,} of them thinking" if thinking_tokens else ""
    whose = "estimated" if estimated >= calls else f"estimated for {count(estimated, 'call')}"
    notes = ", ".join(filter(None, [thought, whose if estimated else ""]))
    return f" ({notes})" if notes else ""
