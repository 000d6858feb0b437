"""The prompts of an experiment, as they are sent: one for each template, and which messages are empty.

A paragraph whose placeholder has no value at a step is left out, so a text can be left without any.
"""

from collections.abc import Iterator, Sequence

from lab.agent.candidate import Candidate
from lab.agent.episode import Start
from lab.agent.messages import chat
from lab.agent.step import Step
from lab.agent.template import placeholders
from lab.errors import ConfigError, plain
from lab.experiment.experiment import Experiment
from lab.experiment.space import with_settings


def candidates(experiment: Experiment) -> dict[str, Candidate]:
    """The baseline, and a candidate for each other template, by their names."""
    space, own = experiment.space, experiment.baseline.template.name
    allowed = space.free["template"].ends if "template" in space.free else (space.start.template.name,)
    others = {
        f"template {name}": with_settings(space.start, {"template": name}, space.templates)
        for name in allowed
        if name != own
    }
    return {f"baseline, template {own}": experiment.baseline, **others}


def prompt(experiment: Experiment, name: str, start: Start) -> str:
    """The messages of the first step of one of `candidates`."""
    messages = chat(candidates(experiment)[name], experiment.task, start, ())
    text = "\n".join(f"--- {message.role}\n{message.content}" for message in messages)
    return plain(f"===== {name}: the first step\n{text}")


def empty_messages(experiment: Experiment, start: Start, steps: Sequence[Step] = ()) -> dict[str, str]:
    """Warnings about empty messages in an episode, by the names of `candidates`.

    Raises:
        ConfigError: A template names a field that the observation does not have.
    """
    found = {name: list(_empty(experiment, name, start, steps)) for name in candidates(experiment)}
    return {name: "; ".join(said) for name, said in found.items() if said}


def _empty(experiment: Experiment, name: str, start: Start, steps: Sequence[Step]) -> Iterator[str]:
    candidate, told = candidates(experiment)[name], set[str]()
    for number in range(len(steps) + 1):
        try:
            system, *_, turn = chat(candidate, experiment.task, start, steps[:number])
        except ConfigError as error:
            raise ConfigError(error.what, where=f"{name}, turn", why=error.why, do=error.do) from None
        for key, message in (("system", system), ("turn", turn)):
            if not message.content.strip() and key not in told:
                told.add(key)
                named = ", ".join(f"{{{one}}}" for one in placeholders(getattr(candidate.template, key)))
                step = f" at step {number + 1}" if key == "turn" else ""
                yield f"its {key} message is empty{step}: every paragraph names {named} without a value"
