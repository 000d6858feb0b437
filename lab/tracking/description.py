"""The Description of a study's run in MLflow, in Markdown: the verdict, and where to look next.

It shows the frozen prompt's figures and computes none; a model's words are shown unchanged, in a code block.
"""

import re

from lab.agent.evaluation import trial_name
from lab.errors import plain
from lab.experiment.experiment import Experiment
from lab.stats.format import price, token_notes
from lab.submission.frozen import FrozenPrompt
from lab.tracking.metrics import cut
from lab.verdict.words import claim, evidence_rows

SHOWN = 1_900
"""Characters shown of one text: MLflow takes 8,000 of a description."""


def unfinished(experiment: Experiment) -> str:
    """The description before there is a verdict."""
    return f"{experiment.about}\n\nNo verdict yet.\n"


def description(experiment: Experiment, frozen: FrozenPrompt, prompt: str, view: str) -> str:
    """The description after the verdict.

    Args:
        prompt: The registered prompt, as `name/version`; empty if MLflow rejected it.
        view: URL of the study's table of runs.
    """
    parts = [
        f"**{claim(frozen)}**",
        cut(experiment.about, SHOWN),
        _figures(frozen),
        "### Frozen prompt",
        _settings(experiment, frozen),
        _block(
            f"{cut(frozen.candidate.template.system.strip(), SHOWN)}"
            f"\n\n---\n\n{cut(frozen.candidate.template.turn.strip(), SHOWN)}"
        ),
        "### Cost",
        _cost(experiment, frozen),
        "### Where to look next",
        _next(prompt, view),
    ]
    return "\n\n".join(parts) + "\n"


def _figures(frozen: FrozenPrompt) -> str:
    evidence = frozen.evidence
    rows = [
        f"| | frozen, {_name(frozen)} | baseline |",
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


def _next(prompt: str, view: str) -> str:
    lines = [
        "- **Artifacts**: `report.html`, all results; `best.toml`, which `python inference.py` plays;"
        " `experiment.toml`. Each child run has `prompt.txt` and `episodes.json`.",
        f"- **[Child runs]({view})**, best first: `kind` is search, confirmation or holdout. The best of many"
        " is overestimated in the search, but not on the holdout.",
        "- **Traces** of a run: its episodes step by step, with messages, tokens and rewards.",
    ]
    if prompt:
        lines.append(
            f"- **Prompts**: `{prompt}`, alias `frozen`, is the frozen prompt with its model configuration."
        )
    return "\n".join(lines)


def _block(text: str) -> str:
    """A code block that nothing in the text can end."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{plain(text)}\n{fence}"


def _name(frozen: FrozenPrompt) -> str:
    return f"{trial_name(frozen.provenance.trial)} ({frozen.candidate.template.name})"
