"""The Description that a study's run opens with in MLflow, in Markdown: the verdict, and where to look next.

It takes what the frozen prompt says and computes nothing; a model's words are shown as they are, in a block.
"""

import re

from lab.agent.evaluation import BASELINE
from lab.errors import plain
from lab.experiment.experiment import Experiment
from lab.stats.format import MORE, number, p_text, price, recorded, token_notes
from lab.submission.frozen import FrozenPrompt
from lab.tracking.metrics import cut

SHOWN = 1_900
"""Characters of one text: MLflow takes 8,000 of a description."""


def unfinished(experiment: Experiment) -> str:
    """Before there is a verdict."""
    return f"{experiment.about}\n\nNo verdict yet.\n"


def description(experiment: Experiment, frozen: FrozenPrompt, prompt: str, view: str) -> str:
    """After the verdict.

    Args:
        prompt: in the registry, as `name/version`; empty where MLflow did not take it.
        view: the address of the study's table of runs.
    """
    parts = [
        f"**{_claim(frozen)}** {frozen.evidence.episodes} unseen episodes each; {frozen.evidence.method}.",
        cut(experiment.about, SHOWN),
        _figures(frozen),
        "### What was frozen",
        _settings(experiment, frozen),
        _block(
            f"{cut(frozen.candidate.template.system.strip(), SHOWN)}"
            f"\n\n---\n\n{cut(frozen.candidate.template.turn.strip(), SHOWN)}"
        ),
        "### Cost",
        _cost(frozen),
        "### Look next",
        _next(prompt, view),
    ]
    return "\n\n".join(parts) + "\n"


def _claim(frozen: FrozenPrompt) -> str:
    evidence = frozen.evidence
    gain = recorded(evidence.difference, evidence.difference_interval, evidence.episodes, sign=True)
    caution = f"{evidence.caution} " if evidence.caution else ""
    if evidence.outcome == "baseline":
        told = "The baseline was kept." if caution else ""
        return caution + (told or "No candidate beat the baseline on unseen episodes: the baseline was kept.")
    if evidence.outcome == "cheaper":
        return (
            f"{caution}{_name(frozen)} costs {evidence.frozen_tokens:,.0f} tokens an episode, the baseline"
            f" {evidence.baseline_tokens:,.0f}; its {evidence.judged} differs by {gain}."
        )
    verb, more = f"{evidence.judged}s", MORE[evidence.judged]
    return f"{caution}{_name(frozen)} {verb} {gain} {more} than the baseline ({p_text(evidence.p_value)})."


def _figures(frozen: FrozenPrompt) -> str:
    evidence = frozen.evidence
    level = f"{evidence.confidence:.0%}"
    ours = recorded(evidence.frozen_mean, evidence.frozen_interval, evidence.episodes)
    theirs = recorded(evidence.baseline_mean, evidence.baseline_interval, evidence.episodes)
    if evidence.judged == "score":
        other = "return"
        others = [number(evidence.frozen_return), number(evidence.baseline_return)]
    else:
        other, others = "score", [f"{evidence.frozen_score:.3f}", f"{evidence.baseline_score:.3f}"]
    mark = " (estimated)" if frozen.provenance.estimated_calls else ""
    rows = [
        f"| | mean episode {evidence.judged}, {level} interval | {other} | tokens an episode{mark} |",
        "|---|---|---|---|",
        f"| frozen, {_name(frozen)} | {ours} | {others[0]} | {evidence.frozen_tokens:,.0f} |",
        f"| baseline | {theirs} | {others[1]} | {evidence.baseline_tokens:,.0f} |",
    ]
    troubles = {"frozen": evidence.frozen_troubles, "baseline": evidence.baseline_troubles}
    told = [_block(f"{name}: {text}") for name, text in troubles.items() if text]
    return "\n\n".join(["\n".join(rows), *told])


def _settings(experiment: Experiment, frozen: FrozenPrompt) -> str:
    """What differs from the baseline, first."""
    ours, theirs = frozen.candidate.settings, experiment.baseline.settings
    names = {**ours, **theirs}
    changed = [name for name in names if ours[name] != theirs[name]]
    same = ", ".join(f"{name} {ours[name]}" for name in names if name not in changed)
    rows = [f"| {name} | {ours[name]} | {theirs[name]} |" for name in changed]
    table = ["| setting | frozen | baseline |", "|---|---|---|", *rows, ""] if rows else []
    return "\n".join([*table, f"As in the baseline: {same}."])


def _cost(frozen: FrozenPrompt) -> str:
    cost = frozen.provenance
    notes = token_notes(cost.calls, cost.thinking_tokens or 0, cost.estimated_calls or 0)
    return (
        f"{cost.calls:,} calls, {cost.prompt_tokens:,} tokens in, {cost.completion_tokens:,} out{notes},"
        f" {price(cost.dollars)}, {cost.minutes:.1f} minutes,"
        f" on {plain(frozen.model.name)} at {plain(frozen.model.endpoint)}."
    )


def _next(prompt: str, view: str) -> str:
    lines = [
        "- **Artifacts**: `report.html`, the whole story; `best.toml`, which `python inference.py` plays;"
        " `experiment.toml`. Each child run has its `prompt.txt` and `episodes.json`.",
        f"- **[Child runs]({view})**, best first: `kind` is search, confirmation or holdout. The search's"
        " returns are optimistic for the best of many; the holdout's are not.",
        "- **Traces** of a run: its episodes step by step, with messages, tokens and rewards.",
    ]
    if prompt:
        lines.append(
            f"- **Prompts**: `{prompt}`, alias `frozen`, is this prompt with its model configuration."
        )
    return "\n".join(lines)


def _block(text: str) -> str:
    """A code block that the text cannot end, whatever it holds."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{plain(text)}\n{fence}"


def _name(frozen: FrozenPrompt) -> str:
    trial = frozen.provenance.trial
    own = "baseline" if trial == BASELINE else f"trial-{trial:03d}"
    return f"{own} ({frozen.candidate.template.name})"
