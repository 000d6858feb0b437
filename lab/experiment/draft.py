"""A Draft: the files of a new experiment, for an environment whose form of actions is known.

It owns their texts. What the environment shows is an Inspection; what it does not publish (its task, the
length of an episode, the return of a full score) is passed in.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lab.experiment.inspection import Inspection, Kind

SCHEMA_FILE = "experiment.schema.json"
"""The JSON Schema of experiment files, beside them."""

_MAX_TOKENS: Mapping[Kind, int] = {"text": 150, "words": 8, "json": 200, "tool": 200, "hook": 200}

_ASK: Mapping[Kind, str] = {
    "text": "Your reply is sent as it is: write only what you want to send, without quotes or comments.",
    "words": "Your reply is exactly one of these words, and nothing else: {schema}",
    "json": "Your reply is one JSON object of this schema, and nothing else:\n{schema}",
    "tool": (
        "Each reply calls one tool: write its name and its arguments as one JSON object of this schema, and"
        " nothing else:\n{schema}"
    ),
    "hook": "Your reply is one JSON object, and nothing else.",
}

_GOAL = (
    "Every step earns a reward, and you want the highest total. Look at what earlier steps earned, and do"
    " more of what paid."
)

_EARLIER = """history = [0, 2, 4]
layout = ["text", "turns"]
show_rewards = [true, false]
"""

HOOKS = '''"""How a model's answer becomes an action, which the environment does not publish."""

import json
from typing import Any


def parse(text: str, schema: dict[str, Any]) -> dict[str, Any]:
    """Return an action's fields: the JSON object in the answer. List its fields in the templates."""
    action = json.loads(text[text.find("{") : text.rfind("}") + 1] or "null")
    if not isinstance(action, dict):
        raise ValueError("write one JSON object")
    return action
'''


def paths_of(name: str) -> tuple[str, str, str, str]:
    """Paths of a new experiment, its two templates and its hooks, relative to the project's folder."""
    place, template = f"experiments/{name}", f"prompts/templates/{name}"
    return f"{place}.toml", f"{template}.toml", f"{template}_goal.toml", f"{place}_hooks.py"


@dataclass(frozen=True)
class Draft:
    """A new experiment.

    Attributes:
        place: Key and value of the environment's location, such as `("url", "http://127.0.0.1:8000")`.
        found: What the environment shows.
        kind: What an answer is: `hook` if the environment does not publish the form of its actions.
        max_return: Sum of rewards that is a full score.
        own_score: The environment's own score, as `[task] score` names it; empty for the sum of rewards.
    """

    name: str
    place: tuple[str, str]
    found: Inspection
    kind: Kind
    about: str
    max_steps: int
    max_return: float
    own_score: str

    @property
    def files(self) -> dict[str, str]:
        """Texts by path, relative to the project's folder."""
        goal = _GOAL if self.max_steps > 1 else "Your reply earns a reward, and you want the highest."
        experiment, first, second, hooks = paths_of(self.name)
        texts = {
            experiment: self._experiment(),
            first: self._template("The task and the form of an answer, and nothing else.", ""),
            second: self._template("States what is maximised.", goal),
        }
        return {**texts, hooks: HOOKS} if self.kind == "hook" else texts

    def _tasks(self) -> str:
        """The tables of the tasks, or an example of one."""
        if not self.found.tasks:
            names = self.found.listed.takes
            takes = f"; its reset takes {', '.join(names)}" if names else ""
            name = names[0] if names else "task"
            return f"""# [[tasks]]           # one for each task of the environment{takes}
# name = "easy"       # evaluators want three tasks
# reset = {{ {name} = "easy" }}"""
        tables = [
            f"[[tasks]]\nname = {_quoted(name)}\nreset = {{ {', '.join(map(_pair, reset.items()))} }}"
            for name, reset in self.found.tasks.items()
        ]
        return "\n\n".join(tables)

    def _whole(self, episodes: int) -> int:
        """The number of episodes, rounded up to a multiple of the number of tasks."""
        tasks = len(self.found.tasks) or 1
        return -(-episodes // tasks) * tasks

    def _template(self, about: str, goal: str) -> str:
        steps = ["An episode has up to {max_steps} steps."] if self.max_steps > 1 else []
        opening = [f"{_began(name)}: {{{name}}}" for name in self.found.opening if self.max_steps > 1]
        described = _literal(self.found.described)
        parts = [_literal(self.about), *steps, *opening, goal, described, _ASK[self.kind]]
        system = "\n\n".join(filter(None, parts))
        fields = [f"{name.rpartition('.')[2]}: {{observation.{name}}}" for name in self.found.shown]
        earlier = ["Last reward: {reward}", "Earlier steps:\n{history}"] if self.max_steps > 1 else []
        turn = "\n\n".join(["{observation}", *fields, *earlier, "Your reply:"])
        return f"about = {_quoted(about)}\n\nsystem = {_block(system)}\n\nturn = {_block(turn)}\n"

    def _experiment(self) -> str:
        key, value = self.place
        tokens, steps = _MAX_TOKENS[self.kind], self.max_steps
        history, earlier = (2, _EARLIER) if steps > 1 else (0, "")  # one step has none before it
        hooks = f'hooks = "{self.name}_hooks.py"' if self.kind == "hook" else '# hooks = "hooks.py"'
        in_flight = 1 if self.found.isolation == "shared" else 16
        score = f"score = {_quoted(self.own_score)}" if self.own_score else '# score = "last"'
        return f"""#:schema ./{SCHEMA_FILE}
# Every key: docs/experiment.md. A line that begins with # shows a key that is not set.
about = {_quoted(self.about)}
seed = 0

[environment]
{key} = {_quoted(value)}
{hooks:<21} # render(observation) writes {{observation}}; parse(text, schema) reads an answer
# text = "FIELD"      # the field that {{observation}} shows; by default all of them
# error = "FIELD"     # the field with the error of the last action
# longest = 2000      # the most characters of a field that are shown
# step_timeout_s = 60.0
# headers = {{ "X-API-Key" = "env:MY_KEY" }}

[task]
name = {_quoted(self.name)}
benchmark = {_quoted(self.name)}
max_steps = {steps}
max_tokens = {tokens}
max_return = {self.max_return:g}        # the sum of rewards (or own score) that is a score of 1
# min_return = 0.0    # the one that is a score of 0
success_score = 0.5
score_bounds = "open" # prints 0.001 to 0.999, which all evaluators accept; "closed" prints 0 and 1 too
{score:<21} # "sum" of the rewards by default, "last", "max", or its own: "metadata.FIELD"
# max_step_reward = 1.0   # bounds of one step's reward, if known: hopeless episodes end early
# min_step_reward = 0.0

{self._tasks()}

[model]               # API_BASE_URL and MODEL_NAME override this
endpoint = "embedded"
name = "SmolLM2-135M-Instruct"

# [models.small]      # several models in place of [model]: then set baseline.model and space.model
# endpoint = "https://host/v1"
# name = "NAME"

[baseline]            # the candidate in use today
template = {_quoted(self.name)}
temperature = 0.7
max_tokens = {tokens}
history = {history}

[space]               # a value is fixed, a list is a choice, {{ low, high }} is a range
template = [{_quoted(self.name)}, {_quoted(f"{self.name}_goal")}]
temperature = {{ low = 0.0, high = 1.0 }}
{earlier}
[budget]              # of the whole study: calls, tokens, dollars; and the minutes of its search
calls = {200 * steps}

[objective]
# maximise = "score"  # by default the return, where task.score is "sum"

[search]
episodes = {self._whole(8):<10} # the most that a candidate plays
{f"in_flight = {in_flight}":<21} # concurrent episodes

# [proposals]         # new templates, written by a model
# proposer = "gepa"

[confirmation]        # the search's best candidates, on fresh seeds
candidates = 4
episodes = {self._whole(8)}

[verdict]             # the best of these against the baseline, on the sealed holdout
episodes = {self._whole(16)}

[tracking]
traces = 1            # episodes of each trial that MLflow shows step by step
"""


def _began(placeholder: str) -> str:
    """What precedes a part of the first observation."""
    field = placeholder.partition(".")[2]
    return f"At the start of the episode, {field}" if field else "At the start of the episode"


def _literal(text: str) -> str:
    """A text for a template, with its braces escaped."""
    return text.replace("{", "{{").replace("}", "}}")


def _quoted(text: str) -> str:
    """A TOML string on one line."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _pair(argument: tuple[str, Any]) -> str:
    """A key and its value, a text or a number, in TOML."""
    name, value = argument
    key = name if re.fullmatch(r"[\w-]+", name, re.ASCII) else _quoted(name)
    return f"{key} = {_quoted(value)}" if isinstance(value, str) else f"{key} = {json.dumps(value)}"


def _block(text: str) -> str:
    """A TOML string of several lines."""
    return '"""\n' + text.replace("\\", "\\\\").replace('"""', '\\"\\"\\"') + '"""'
