"""The Registry: the frozen prompt in MLflow's Prompt Registry, under the experiment's name.

It owns the form there: a chat prompt with Jinja's placeholders and conditions, which MLflow fills in one
pass, and the model's configuration. The lab plays the frozen file; this is for people, and for programs that
read prompts from MLflow.
"""

import re
from typing import TYPE_CHECKING

from lab.agent.template import FIELD, Paragraph, paragraphs
from lab.submission.frozen import FrozenPrompt
from lab.tracking.metrics import safe_name

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import PromptVersion

ALIAS = "frozen"
"""Alias of the version that was frozen last."""

WITHOUT_VALUE = frozenset({"history", "reward", "schema"})
"""Placeholders that may have no value, like observation fields; a paragraph with one is then left out."""

GAP = "\n\n"
"""Separator of paragraphs."""

_BRACE = re.compile(r"\{(?=[{%#]|\Z)")


def register(client: "MlflowClient", frozen: FrozenPrompt, run: str) -> str:
    """Register `frozen` unless it is registered, set the alias, and link it to `run`.

    Returns:
        `name/version`.
    """
    name = prompt_name(frozen.provenance.experiment)
    version = _registered(client, name, frozen) or _new(client, name, frozen)
    client.set_prompt_alias(name, ALIAS, version.version)
    client.link_prompt_version_to_run(run, version)
    return f"{name}/{version.version}"


def prompt_name(experiment: str) -> str:
    """The experiment's name, in characters that a prompt's name allows."""
    return safe_name(experiment)


def _registered(client: "MlflowClient", name: str, frozen: FrozenPrompt) -> "PromptVersion | None":
    """The version with this candidate and model; None if it does not exist."""
    if client.get_prompt(name) is None:
        return None
    digest, token = frozen.candidate.digest, None
    while True:
        page = client.search_prompt_versions(name, page_token=token)
        for version in page:
            if (version.tags.get("digest"), version.tags.get("model")) == (digest, frozen.model.name):
                found: PromptVersion = version
                return found
        token = page.token
        if not token:
            return None


def _new(client: "MlflowClient", name: str, frozen: FrozenPrompt) -> "PromptVersion":
    evidence, provenance = frozen.evidence, frozen.provenance
    version: PromptVersion = client.register_prompt(
        name,
        _messages(frozen),
        commit_message=(
            f"{provenance.study}: holdout return {evidence.frozen_return:g},"
            f" baseline {evidence.baseline_return:g}, {evidence.episodes} episodes each"
        ),
        tags={
            "digest": frozen.candidate.digest,
            "model": frozen.model.name,
            "template": frozen.candidate.template.name,
            "outcome": evidence.outcome,
            "study": provenance.study,
        },
        model_config=_model_config(frozen),
    )
    return version


def _model_config(frozen: FrozenPrompt) -> dict[str, object]:
    """The candidate's settings by MLflow's names, or the lab's if MLflow has none."""
    sampling, context = frozen.candidate.sampling, frozen.candidate.context
    return {
        "model_name": frozen.model.name,
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


def _messages(frozen: FrozenPrompt) -> list[dict[str, str]]:
    """The messages before a step (system, demonstrations, turn), with their placeholders."""
    template, max_steps = frozen.candidate.template, str(frozen.task.max_steps)
    messages = [{"role": "system", "content": jinja(template.system)}]
    for shown in frozen.candidate.demonstrations:
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
