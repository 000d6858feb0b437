"""The chat that a candidate sends before a step: the one place where a prompt is put together."""

from collections.abc import Iterator, Sequence

from lab.candidate import Candidate
from lab.endpoint import Message
from lab.episode import Step
from lab.task import Task


def chat(candidate: Candidate, task: Task, opening: str, steps: Sequence[Step]) -> list[Message]:
    """The messages before step `len(steps) + 1`.

    Args:
        opening: the text that the environment's `reset` showed.
        steps: the episode so far.
    """
    system = Message("system", candidate.template.render_system({"max_steps": str(task.max_steps)}))
    head = [system, *_demonstrations(candidate, task)]
    shown = range(max(0, len(steps) - candidate.context.history), len(steps))
    if candidate.context.layout == "turns":
        earlier = [
            message for index in shown for message in _exchange(candidate, task, opening, steps, index)
        ]
        return [*head, *earlier, _turn(candidate, task, opening, steps, len(steps), None)]
    block = "\n".join(_history_line(candidate, steps[index]) for index in shown) or None
    return [*head, _turn(candidate, task, opening, steps, len(steps), block)]


def _demonstrations(candidate: Candidate, task: Task) -> Iterator[Message]:
    """The same for every step of every episode, so that an endpoint's prefix cache holds them."""
    for shown in candidate.demonstrations:
        values = {"step": str(shown.step), "max_steps": str(task.max_steps), "observation": shown.observation}
        yield Message("user", candidate.template.render_turn({**values, "reward": None, "history": None}))
        yield Message("assistant", shown.action)


def _exchange(
    candidate: Candidate, task: Task, opening: str, steps: Sequence[Step], index: int
) -> Iterator[Message]:
    yield _turn(candidate, task, opening, steps, index, None)
    yield Message("assistant", steps[index].action)


def _turn(
    candidate: Candidate, task: Task, opening: str, steps: Sequence[Step], index: int, history: str | None
) -> Message:
    """The user message before step `index + 1`: the same text whenever it is asked for again."""
    last = steps[index - 1] if index else None
    reward = f"{last.reward:.2f}" if last and candidate.context.show_rewards else None
    text = candidate.template.render_turn(
        {
            "step": str(index + 1),
            "max_steps": str(task.max_steps),
            "observation": last.observation if last else opening,
            "reward": reward,
            "history": history,
        }
    )
    return Message("user", text)


def _history_line(candidate: Candidate, step: Step) -> str:
    reward = f" (reward {step.reward:.2f})" if candidate.context.show_rewards else ""
    return f"Step {step.number}{reward}: {step.action}"
