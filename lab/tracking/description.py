"""The Descriptions of runs in MLflow, in Markdown: a study's links and verdict, a trial's prompt.

They show the frozen prompt's figures and compute none; a model's words are shown unchanged, in a code block.
"""

import re
from collections.abc import Mapping

from lab.agent.candidate import Candidate
from lab.agent.evaluation import trial_name
from lab.errors import plain
from lab.experiment.experiment import Experiment
from lab.stats.format import price, token_notes
from lab.submission.frozen import FrozenPrompt
from lab.tracking.metrics import cut
from lab.verdict.words import claim, evidence_rows

SHOWN = 1_900
"""Characters shown of one text: MLflow takes 8,000 of a description."""

Links = Mapping[str, str]
"""URLs by what they show, relative to MLflow's page."""


def unfinished(experiment: Experiment, links: Links) -> str:
    """A study's description before there is a verdict."""
    return f"{_linked(links)}\n\n{experiment.about}\n\nNo verdict yet.\n"


def description(experiment: Experiment, frozen: FrozenPrompt, prompt: str, links: Links) -> str:
    """A study's description after the verdict.

    Args:
        prompt: The registered prompt, as `name/version`; empty if MLflow rejected it.
    """
    parts = [
        _linked(links),
        f"**{claim(frozen)}**",
        cut(experiment.about, SHOWN),
        _figures(frozen),
        "### Frozen prompt",
        _settings(experiment, frozen),
        prompt_note(frozen.candidate),
        "### Cost",
        _cost(experiment, frozen),
        "### Where to look next",
        _next(prompt),
    ]
    return "\n\n".join(parts) + "\n"


def prompt_note(candidate: Candidate) -> str:
    """A trial's description: its prompt, with placeholders."""
    template = candidate.template
    return _block(f"{cut(template.system.strip(), SHOWN)}\n\n---\n\n{cut(template.turn.strip(), SHOWN)}")


def _linked(links: Links) -> str:
    return " · ".join(f"[{text}]({url})" for text, url in links.items())


def _figures(frozen: FrozenPrompt) -> str:
    evidence, trial = frozen.evidence, trial_name(frozen.provenance.trial)
    rows = [
        f"| | frozen, {trial} ({frozen.candidate.template.name}) | baseline |",
        "|---|---|---|",
        *(f"| {' | '.join(row)} |" for row in evidence_rows(frozen)),
    ]
    troubles = {"frozen": evidence.frozen_troubles, "baseline": evidence.baseline_troubles}
    told = [_block(f"{name}: {text}") for name, text in troubles.items() if text]
    return "\n\n".join(["\n".join(rows), *told])


def _settings(experiment: Experiment, frozen: FrozenPrompt) -> str:
    """The settings, those that differ from the baseline's first."""
    ours, theirs = frozen.candidate.settings, experiment.baseline.settings
    names = {**ours, **theirs}
    changed = [name for name in names if ours[name] != theirs[name]]
    same = ", ".join(f"{name} {ours[name]}" for name in names if name not in changed)
    rows = [f"| {name} | {ours[name]} | {theirs[name]} |" for name in changed]
    table = ["| setting | frozen | baseline |", "|---|---|---|", *rows, ""] if rows else []
    return "\n".join([*table, f"As in the baseline: {same}."])


def _cost(experiment: Experiment, frozen: FrozenPrompt) -> str:
    cost = frozen.provenance
    notes = token_notes(cost.calls, cost.thinking_tokens or 0, cost.estimated_calls or 0)
    where = f"{plain(frozen.model.name)} at {plain(frozen.model.endpoint)}"
    return (
        f"{cost.calls:,} calls, {cost.prompt_tokens:,} tokens in, {cost.completion_tokens:,} out{notes},"
        f" {price(cost.dollars)}, {cost.minutes:.1f} minutes,"
        f" on {'several models' if experiment.others else where}."
    )


def _next(prompt: str) -> str:
    lines = [
        "- **Artifacts**: `report.html`, all results; `best.toml`, which `python inference.py` plays;"
        " `experiment.toml`. Each child run has `prompt.txt` and `episodes.json`.",
        "- **Trials** are the search's: the best of many is overestimated there, but not on the holdout.",
        "- **Traces** of a run: its episodes step by step, with messages, tokens and rewards.",
    ]
    if prompt:
        lines.append(
            f"- **Prompts**: `{prompt}`, alias `frozen`, is the frozen prompt with its model configuration."
            " Alias `baseline` is what it is compared with."
        )
    return "\n".join(lines)


def _block(text: str) -> str:
    """A code block that nothing in the text can end."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{plain(text)}\n{fence}"
