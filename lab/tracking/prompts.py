"""The Registry: baseline and frozen prompt in MLflow's Prompt Registry, under the experiment's name.

It owns the form there: a chat prompt with Jinja's placeholders and conditions, which MLflow fills in one
pass, and the model's configuration. The lab plays the frozen file; this is for people, and for programs that
read prompts from MLflow.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from lab.agent.candidate import Candidate
from lab.agent.task import Task
from lab.agent.template import FIELD, Paragraph, paragraphs
from lab.stats.format import count, number
from lab.submission.frozen import FrozenPrompt
from lab.tracking.metrics import safe_name
from lab.verdict.words import evidence_figures

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import PromptVersion

BASELINE, FROZEN = "baseline", "frozen"
"""Aliases of the versions that were compared last."""

WITHOUT_VALUE = frozenset({"history", "reward", "schema"})
"""Placeholders that may have no value, like observation fields; a paragraph with one is then left out."""

GAP = "\n\n"
"""Separator of paragraphs."""

_BRACE = re.compile(r"\{(?=[{%#]|\Z)")


@dataclass(frozen=True)
class Version:
    """A candidate to register.

    Attributes:
        alias: What refers to the version that was registered last with it.
        message: The commit message.
    """

    candidate: Candidate
    model: str
    task: Task
    alias: str
    message: str
    tags: Mapping[str, str]


class Prompt:
    """A prompt of the registry; the same candidate on the same model is one version of it."""

    def __init__(self, client: "MlflowClient", experiment: str) -> None:
        self._client, self.name = client, safe_name(experiment)

    def register(self, version: Version, runs: Iterable[str]) -> str:
        """Register a version unless it is registered, set its alias, and link it to `runs`.

        Returns:
            `name/version`.
        """
        key = (version.candidate.digest, version.model)
        if key not in self._known:
            self._known[key] = self._new(version)
        registered = self._known[key]
        self._client.set_prompt_alias(self.name, version.alias, registered.version)
        for run in runs:
            self._client.link_prompt_version_to_run(run, registered)
        return f"{self.name}/{registered.version}"

    @cached_property
    def _known(self) -> "dict[tuple[str, str], PromptVersion]":
        """The registered versions by digest and model."""
        known = dict[tuple[str, str], "PromptVersion"]()
        if self._client.get_prompt(self.name) is None:
            return known
        token: str | None = None
        while True:
            page = self._client.search_prompt_versions(self.name, page_token=token)
            for version in page:
                known.setdefault((version.tags.get("digest", ""), version.tags.get("model", "")), version)
            token = page.token
            if not token:
                return known

    def _new(self, version: Version) -> "PromptVersion":
        digest = {"digest": version.candidate.digest, "model": version.model}
        template = {"template": version.candidate.template.name}
        registered: PromptVersion = self._client.register_prompt(
            self.name,
            _messages(version.candidate, version.task),
            commit_message=version.message,
            tags={**digest, **template, **version.tags},
            model_config=_model_config(version),
        )
        return registered


def baseline_version(frozen: FrozenPrompt, baseline: Candidate, model: str) -> Version:
    """The baseline that a frozen prompt is compared with."""
    evidence, study = frozen.evidence, frozen.provenance.study
    mean = f"{evidence.judged} {number(evidence.baseline_mean)}"
    message = f"{study}: the baseline, holdout {mean}, {count(evidence.episodes, 'episode')}"
    return Version(baseline, model, frozen.task, BASELINE, message, {"study": study})


def frozen_version(frozen: FrozenPrompt) -> Version:
    """The frozen prompt."""
    evidence, study = frozen.evidence, frozen.provenance.study
    message = f"{study}: holdout {evidence.judged} {evidence_figures(evidence)}"
    tags = {"outcome": evidence.outcome, "study": study}
    return Version(frozen.candidate, frozen.model.name, frozen.task, FROZEN, message, tags)


def _model_config(version: Version) -> dict[str, object]:
    """The candidate's settings by MLflow's names, or the lab's if MLflow has none."""
    sampling, context = version.candidate.sampling, version.candidate.context
    return {
        "model_name": version.model,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "stop_sequences": list(sampling.stop),
        "history": context.history,
        "layout": context.layout,
        "show_rewards": context.show_rewards,
    }


def _messages(candidate: Candidate, task: Task) -> list[dict[str, str]]:
    """The messages before a step (system, demonstrations, turn), with their placeholders."""
    template, max_steps = candidate.template, str(task.max_steps)
    messages = [{"role": "system", "content": jinja(template.system)}]
    for shown in candidate.demonstrations:
        values = {"step": str(shown.step), "max_steps": max_steps, "observation": shown.observation}
        asked = template.render_turn({**values, "reward": None, "history": None})
        messages.append({"role": "user", "content": _literal(asked)})
        messages.append({"role": "assistant", "content": _literal(shown.action)})
    return [*messages, {"role": "user", "content": jinja(template.turn)}]


def jinja(text: str) -> str:
    """A template's text in the syntax of MLflow's prompts: the same values give the same text.

    A field's name has an underscore in place of its dot. If every paragraph may lack a value, the last one is
    assumed to have it.
    """
    parts = [(_paragraph(part), _conditions(part)) for part in paragraphs(text)]
    always = next((index for index, (_, conditions) in enumerate(parts) if not conditions), len(parts) - 1)
    written = ""
    for index, (part, conditions) in enumerate(parts):
        before, after = ("", GAP) if index < always else (GAP if index > always else "", "")
        inner = before + part + after
        written += f"{{% if {' and '.join(conditions)} %}}{inner}{{% endif %}}" if conditions else inner
    return written


def _paragraph(paragraph: Paragraph) -> str:
    return "".join(_literal(text) + (f"{{{{{variable(name)}}}}}" if name else "") for text, name in paragraph)


def _conditions(paragraph: Paragraph) -> list[str]:
    names = sorted({name for _, name in paragraph if name})
    plain = [name for name in names if name in WITHOUT_VALUE]
    fields = [f"{variable(name)} is not none" for name in names if name.startswith(FIELD)]
    return plain + fields


def variable(placeholder: str) -> str:
    """A placeholder's name in MLflow's syntax."""
    return placeholder.replace(".", "_")


def _literal(text: str) -> str:
    """Literal text, with braces quoted that could start Jinja syntax."""
    return _BRACE.sub("{% raw %}{{% endraw %}", text)
