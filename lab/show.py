"""The command `python -m lab.show`: a frozen prompt and its evidence, for people.

It owns the page: texts, settings, evidence, provenance, differences from the baseline. It makes no calls.
With `--study` it shows a study's result as `lab.tune` printed it.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lab.agent.candidate import Candidate
from lab.agent.evaluation import trial_name
from lab.cli.command import Debug, Version, command_line, manners, say
from lab.cli.contenders import DEFAULT, experiment_path
from lab.cli.side_by_side import aligned
from lab.display.diff import demonstrations, differing, settings_of, text_diff
from lab.errors import ConfigError, plain
from lab.stats.format import price, token_notes
from lab.submission.frozen import BEST, FrozenPrompt, read_frozen
from lab.submission.stdout import print_result

if TYPE_CHECKING:
    from lab.experiment.experiment import Experiment

app = command_line()


@app.command()
def show(
    file: Annotated[Path | None, typer.Argument(help="The frozen prompt.", show_default=str(BEST))] = None,
    study: Annotated[
        str, typer.Option(metavar="NAME", help="Show a study's result instead: `lab studies` lists them.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")] = False,
    debug: Debug = False,
    _version: Version = False,
) -> None:
    """Show a frozen prompt: its texts and settings, its evidence, and what differs from the baseline.

    The baseline is read from the experiment file that the frozen prompt names.
    With --study, show the study's result instead, as lab.tune printed it.

    Examples:

        python -m lab.show

        python -m lab.show prompts/best.toml --json

        python -m lab.show --study smoke-20261126-003509
    """
    if study and file:
        raise typer.BadParameter("--study cannot be combined with FILE")
    with manners(debug=debug):
        if study:
            print_result(_result(study, as_json=as_json))
            return
        file = file or BEST
        frozen = read_frozen(file)
        experiment = _experiment(frozen)
        if as_json:
            print_result(json.dumps(_table(frozen, experiment), indent=2))
        else:
            print_result("\n".join(plain(line) for line in _page(file, frozen, experiment)))


def _result(study: str, *, as_json: bool) -> str:
    from lab.proposers.rounds import proposals_of
    from lab.study.past_study import Which, reading
    from lab.verdict.result_json import result
    from lab.verdict.summary import summary

    with reading(Which(DEFAULT, study), say) as past:
        outcome = past.finished()
        if as_json:
            return result(outcome, None, None, {})
        return "\n".join([summary(outcome, None, None), *map(plain, proposals_of(past.search))])


def _experiment(frozen: FrozenPrompt) -> "Experiment | ConfigError":
    """The experiment that froze it, from its current file, or the error of reading that."""
    from lab.experiment.experiment import load_experiment

    try:
        return load_experiment(experiment_path(frozen.provenance.experiment))
    except ConfigError as error:
        return error


def _table(frozen: FrozenPrompt, experiment: "Experiment | ConfigError") -> dict[str, object]:
    table = frozen.as_table()
    table["provenance"].setdefault("dollars", None)
    if isinstance(experiment, ConfigError):
        return {**table, "baseline": None, "differs": None, "note": experiment.one_line}
    baseline = experiment.baseline
    pairs = differing(baseline, frozen.candidate).items()
    differs = {name: {"baseline": before, "frozen": now} for name, (before, now) in pairs}
    return {**table, "baseline": baseline.as_table(), "differs": differs}


def _page(path: Path, frozen: FrozenPrompt, experiment: "Experiment | ConfigError") -> Iterator[str]:
    candidate = frozen.candidate
    model, task = frozen.model, frozen.task
    yield f"{path}: template {candidate.template.name}, tuned on {model.name} at {model.endpoint},"
    yield f"for task {task.name} (environment {frozen.environment.shown})."
    yield from _section("Evidence", _evidence(frozen))
    if isinstance(experiment, ConfigError):
        yield from _section("Against the baseline", [f"The baseline is unknown: {experiment.one_line}"])
    else:
        yield from _section("Against the baseline", _against(experiment, candidate))
    yield from _section("System text", candidate.template.system.strip().splitlines())
    yield from _section("Turn text", candidate.template.turn.strip().splitlines())
    if shown := demonstrations(candidate):
        yield from _section("Demonstrations", shown)
    yield from _section("Settings", [f"{name} = {value}" for name, value in settings_of(candidate).items()])
    yield from _section("Provenance", _provenance(frozen))


def _section(title: str, lines: "Iterator[str] | list[str]") -> Iterator[str]:
    yield ""
    yield title
    yield from (f"  {line}".rstrip() for line in lines)


def _evidence(frozen: FrozenPrompt) -> Iterator[str]:
    from lab.verdict.words import claim, evidence_rows

    evidence = frozen.evidence
    yield claim(frozen)
    yield from aligned([("", "frozen", "baseline"), *evidence_rows(frozen)], words=3)
    for name, troubles in (("frozen", evidence.frozen_troubles), ("baseline", evidence.baseline_troubles)):
        if troubles:
            yield f"{name}: {troubles}"


def _against(experiment: "Experiment", candidate: Candidate) -> Iterator[str]:
    baseline = experiment.baseline
    yield f"from the current {experiment_path(experiment.name)}:"
    pairs = differing(baseline, candidate)
    if not pairs and baseline == candidate:
        yield "Nothing differs."
        return
    yield from aligned([(name, f"{before} -> {now}") for name, (before, now) in pairs.items()], words=2)
    yield from text_diff(baseline, candidate, ("baseline", "frozen"))


def _provenance(frozen: FrozenPrompt) -> Iterator[str]:
    provenance = frozen.provenance
    origin = f"{trial_name(provenance.trial)} of study {provenance.study}"
    thinking, estimated = provenance.thinking_tokens or 0, provenance.estimated_calls or 0
    notes = token_notes(provenance.calls, thinking, estimated)
    yield f"{origin}, experiment {provenance.experiment}, {provenance.created}"
    yield (
        f"{provenance.calls:,} calls, {provenance.prompt_tokens:,} tokens in,"
        f" {provenance.completion_tokens:,} out{notes}, {price(provenance.dollars)},"
        f" {provenance.minutes:.1f} minutes"
    )
    yield ", ".join(provenance.versions)
    yield frozen.candidate.digest


if __name__ == "__main__":
    app()
