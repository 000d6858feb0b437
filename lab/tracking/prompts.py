"""The Registry: baseline and frozen prompt in MLflow's Prompt Registry, under the experiment's name.

It owns the form there: a chat prompt with Jinja's placeholders and conditions, which MLflow fills in one
pass, and the model's configuration. The lab plays the frozen file; this is for people, and for programs that
read prompts from MLflow.
"""

import re
from collections.abc import Iterable, Mapping
from functools import cached_property, partial
from typing import TYPE_CHECKING

from lab.agent.candidate import Candidate
from lab.agent.messages import demonstrations
from lab.agent.task import Task
from lab.agent.template import FIELD, OPENING, Paragraph, paragraphs
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


class Prompt:
    """The registry's prompt of an experiment; the same candidate on the same model is one version of it."""

    def __init__(self, client: "MlflowClient", frozen: FrozenPrompt) -> None:
        self._client, self._frozen = client, frozen
        self.name = safe_name(frozen.provenance.experiment)

    def register_baseline(self, baseline: Candidate, model: str, runs: Iterable[str]) -> str:
        """Register the baseline that the frozen prompt is compared with, as `register_frozen`."""
        evidence = self._frozen.evidence
        mean = f"{evidence.judged} {number(evidence.baseline_value.mean)}"
        message = f"the baseline, holdout {mean}, {count(evidence.episodes, 'episode')}"
        return self._register(baseline, model, BASELINE, message, {}, runs)

    def register_frozen(self, runs: Iterable[str]) -> str:
        """Register the frozen prompt unless it is registered, set its alias, and link it to `runs`.

        Returns:
            `name/version`.
        """
        frozen, evidence = self._frozen, self._frozen.evidence
        message = f"holdout {evidence.judged} {evidence_figures(evidence)}"
        tags = {"outcome": evidence.outcome}
        return self._register(frozen.candidate, frozen.model.name, FROZEN, message, tags, runs)

    def _register(
        self,
        candidate: Candidate,
        model: str,
        alias: str,
        message: str,
        tags: Mapping[str, str],
        runs: Iterable[str],
    ) -> str:
        key, study = (candidate.digest, model), self._frozen.provenance.study
        if key not in self._known:
            own = {"digest": candidate.digest, "model": model, "template": candidate.template.name}
            self._known[key] = self._client.register_prompt(
                self.name,
                _messages(candidate, self._frozen.task),
                commit_message=f"{study}: {message}",
                tags={**own, "study": study, **tags},
                model_config=_model_config(candidate, model),
            )
        registered = self._known[key]
        self._client.set_prompt_alias(self.name, alias, registered.version)
        for run in runs:
            self._client.link_prompt_version_to_run(run, registered)
        return f"{self.name}/{registered.version}"

    @cached_property
    def _known(self) -> "dict[tuple[str, str], PromptVersion]":
        """The registered versions by digest and model."""
        from mlflow.utils import get_results_from_paginated_fn

        if self._client.get_prompt(self.name) is None:
            return {}
        find = partial(self._client.search_prompt_versions, self.name)
        found: list[PromptVersion] = get_results_from_paginated_fn(find, 100)  # type: ignore[no-untyped-call]
        tagged = [(version.tags.get("digest", ""), version.tags.get("model", "")) for version in found]
        return dict(zip(reversed(tagged), reversed(found), strict=True))  # of equal ones the first


def _model_config(candidate: Candidate, model: str) -> dict[str, object]:
    """The candidate's settings by MLflow's names, or the lab's if MLflow has none."""
    sampling, context = candidate.sampling, candidate.context
    return {
        "model_name": model,
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
    template, shown = candidate.template, demonstrations(candidate, task)
    return [
        {"role": "system", "content": jinja(template.system)},
        *({"role": one.role, "content": _literal(one.content)} for one in shown),
        {"role": "user", "content": jinja(template.turn)},
    ]


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
    fields = [f"{variable(name)} is not none" for name in names if name.startswith((FIELD, OPENING))]
    return plain + fields


def variable(placeholder: str) -> str:
    """A placeholder's name in MLflow's syntax."""
    return placeholder.replace(".", "_")


def _literal(text: str) -> str:
    """Literal text, with braces quoted that could start Jinja syntax."""
    return _BRACE.sub("{% raw %}{{% endraw %}", text)
