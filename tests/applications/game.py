"""The game."""

from typing import Any


class Count:
    """The game."""

    def __init__(self) -> None:
        self.begin(0)

    def begin(self, first: int) -> dict[str, Any]:
        """Start at a number."""
        self.first = self.at = first
        return self.seen("count up")

    def say(self, number: int) -> tuple[float, bool]:
        """Say the next number; the reward, and whether the game is over."""
        if number < 0:
            raise ValueError("there are no negative numbers here")
        right = number == self.at + 1
        self.at += right
        return float(right), self.at >= self.first + 3

    def step(self, number: int) -> dict[str, Any]:
        """Say the next number; the result in the usual form."""
        reward, done = self.say(number)
        return {"observation": self.seen("go on"), "reward": reward, "done": done}

    def seen(self, told: str) -> dict[str, Any]:
        """The observation."""
        return {"told": told, "last": self.at}

    def state(self) -> dict[str, Any]:
        """The state, with half a point for each right number."""
        return {"graded": {"points": (self.at - self.first) / 2}}
