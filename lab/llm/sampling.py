"""SamplingParams: sampling parameters of a call, and the range of each numeric setting."""

from dataclasses import dataclass

from lab.errors import ConfigError

LIMITS: dict[str, tuple[float, float]] = {
    "temperature": (0.0, 2.0),
    "top_p": (0.01, 1.0),
    "max_tokens": (1, 32_768),
    "presence_penalty": (-2.0, 2.0),
    "frequency_penalty": (-2.0, 2.0),
    "history": (0, 8),
    "demonstrations": (0, 8),
}
"""Range of each numeric setting, both ends included: OpenAI's ranges, and those of the prompt's settings."""


@dataclass(frozen=True)
class SamplingParams:
    """Sampling parameters, named as in the chat completions API.

    Attributes:
        max_tokens: Maximum tokens of one answer.
        stop: Up to 4 strings that end an answer.
    """

    temperature: float = 0.7
    top_p: float = 1.0
    max_tokens: int = 150
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("temperature", "top_p", "presence_penalty", "frequency_penalty"):
            object.__setattr__(self, name, float(check_number(name, getattr(self, name))))
        check_number("max_tokens", self.max_tokens, whole=True)
        object.__setattr__(self, "stop", tuple(self.stop))
        if len(self.stop) > 4 or not all(isinstance(text, str) and text for text in self.stop):
            raise ConfigError("stop must be a list of up to 4 non-empty strings.", where="stop")


def check_number(name: str, value: object, *, whole: bool = False) -> float:
    """Return `value` if it is a number within the limits of the setting `name`.

    Raises:
        ConfigError: It is not.
    """
    low, high = LIMITS[name]
    kinds = int if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
        kind = "a whole number" if whole else "a number"
        raise ConfigError(f"{name} is {value!r}.", where=name, do=f"use {kind} from {low:g} to {high:g}")
    return value
