"""The chat that a candidate sends before a step: the only place where a prompt is assembled."""

from collections.abc import Iterator, Sequence

from lab.agent.candidate import Candidate
from lab.agent.episode import Start
from lab.agent.step import Step
from lab.agent.task import Task
from lab.agent.template import FIELD, OPENING, OPENING_FIELD, PromptTemplate
from lab.environments.action import words_asked
from lab.environments.observation import Fields
from lab.llm.client import Message

ASK = "Answer with one JSON object of this schema, and with nothing else:"
"""Precedes the action schema if a template does not contain {schema}."""

ASK_WORD = "Answer with one of these words, and with nothing else:"
"""Precedes the words of which an action is one, likewise."""


def chat(candidate: Candidate, task: Task, start: Start, steps: Sequence[Step]) -> list[Message]:
    """The messages before step `len(steps) + 1`.

    Args:
        start: The episode's first observation.
        steps: The episode so far.
    """
    messages = [Message("system", _system(candidate, task, start)), *demonstrations(candidate, task)]
    shown, history = range(max(0, len(steps) - candidate.context.history), len(steps)), None
    if candidate.context.layout == "turns":
        for index in shown:
            asked = _turn(candidate, task, start, steps, index, None)
            messages += [asked, Message("assistant", steps[index].action)]
    else:
        history = "\n".join(_history_line(candidate, steps[index]) for index in shown) or None
    return [*messages, _turn(candidate, task, start, steps, len(steps), history)]


def _system(candidate: Candidate, task: Task, start: Start) -> str:
    template, words = candidate.template, words_asked(start.schema)
    asked = ", ".join(words) or start.schema
    values = {"max_steps": str(task.max_steps), "schema": asked or None, **_opening(template, start)}
    text = template.render_system(values)
    return text if not asked or template.names_schema else f"{text}\n\n{ASK_WORD if words else ASK}\n{asked}"


def demonstrations(candidate: Candidate, task: Task) -> Iterator[Message]:
    """Return the demonstrations as messages, the same in every step, for the endpoint's prefix cache."""
    template = candidate.template
    for shown in candidate.demonstrations:
        values = {"step": str(shown.step), "max_steps": str(task.max_steps), "observation": shown.observation}
        fields = _named({**dict.fromkeys(template.fields), **dict(shown.fields)})
        fields |= dict.fromkeys(_opening(template, Start("")))
        yield Message("user", template.render_turn({**values, **fields, "reward": None, "history": None}))
        yield Message("assistant", shown.action)


def _turn(
    candidate: Candidate, task: Task, start: Start, steps: Sequence[Step], index: int, history: str | None
) -> Message:
    """The user message before step `index + 1`, with the same text in every later prompt."""
    last = steps[index - 1] if index else None
    # Reset may show fewer fields than steps; a field that neither shows is an error in the template, but
    # for names in an object: metadata differs from step to step.
    named = candidate.template.fields
    expected = dict.fromkeys([*start.fields, *(name for name in named if "." in name)] if last else named)
    reward = f"{last.reward:.2f}" if last and candidate.context.show_rewards else None
    opening = _opening(candidate.template, start)
    text = candidate.template.render_turn(
        {
            "step": str(index + 1),
            "max_steps": str(task.max_steps),
            "observation": last.observation if last else start.text,
            **_named({**expected, **(last or start).fields}),
            **(opening if last else dict.fromkeys(opening)),  # at first, it is what {observation} shows
            "reward": reward,
            "history": history,
        }
    )
    return Message("user", text)


def _opening(template: PromptTemplate, start: Start) -> dict[str, str | None]:
    """The first observation's values; a name in an object has none where the object does not hold it."""
    absent = (name for name in template.opening_fields if "." in name or not start.fields)
    fields = {**dict.fromkeys(absent), **start.fields}
    return {OPENING: start.text, **{OPENING_FIELD + name: value for name, value in fields.items()}}


def _named(fields: Fields) -> dict[str, str | None]:
    return {FIELD + name: value for name, value in fields.items()}


def _history_line(candidate: Candidate, step: Step) -> str:
    reward = f" (reward {step.reward:.2f})" if candidate.context.show_rewards else ""
    return f"Step {step.number}{reward}: {step.action}"
