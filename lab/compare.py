"""The command `python -m lab.compare`: two candidates head to head, on seeds that no study plays.

It owns the flags and the playing; the table and the claim are `lab.cli.head_to_head`'s, and studies side by
side are `lab.cli.side_by_side`'s.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from lab.cli.command import Debug, EndpointUrl, ExperimentOrNone, Version, command_line, manners, say, who
from lab.cli.side_by_side import side_by_side
from lab.errors import plain
from lab.submission.stdout import print_result

if TYPE_CHECKING:
    from rich.text import Text

    from lab.agent.evaluation import Evaluation
    from lab.cli.contenders import Stage
    from lab.experiment.budget import Spending
    from lab.experiment.experiment import Experiment

app = command_line()

StudyNames = Annotated[
    list[str] | None,
    typer.Option(
        "--study",
        metavar="NAME",
        help="Name of the candidates' study; two or more are shown side by side. `lab studies` lists them.",
        show_default="the experiment's last one",
    ),
]


@app.command()
def compare(
    a: Annotated[str, who("A")] = "",
    b: Annotated[str, who("B")] = "",
    experiment: ExperimentOrNone = None,
    study: StudyNames = None,
    model: Annotated[
        str,
        typer.Option(
            metavar="NAME[,NAME]",
            help="Models that play both candidates: NAMEs of the experiment's tables models.NAME, or models"
            " at its endpoint.",
            show_default="the study's",
        ),
    ] = "",
    episodes: Annotated[
        int | None,
        typer.Option(
            min=2, help="Episodes of each candidate.", show_default="verdict.episodes of the experiment"
        ),
    ] = None,
    endpoint: EndpointUrl = "",
    as_json: Annotated[
        bool, typer.Option("--json", help="With several studies, print one JSON document, for programs.")
    ] = False,
    debug: Debug = False,
    _version: Version = False,
) -> None:
    """Play two candidates head to head on fresh episodes, paired by seed, and print what the test shows.

    With two or more --study and no candidates: show these studies side by side, from their records.

    A and B are frozen, baseline, the number or name of a trial of the experiment's last study (or of
    --study), or the path of a frozen file.
    The test is the study's own: paired t interval and paired sign-flip test of the difference in return, or
    in score if the experiment maximises that.
    With several models, the intervals and tests hold for all of them together.
    Exit code 0 means that both were played, whatever the result.

    Examples:

        python -m lab.compare frozen baseline

        python -m lab.compare 12 7 experiments/smoke.toml --episodes 8

        python -m lab.compare 12 baseline --study smoke-20261126-003509

        python -m lab.compare frozen baseline --model small,large

        python -m lab.compare --study A --study B
    """
    studies = list(dict.fromkeys(study or []))
    if len(studies) > 1 and (a or experiment or model or episodes or endpoint):
        raise typer.BadParameter("with several --study, only --json may be given: nothing is played")
    if len(studies) < 2 and (as_json or not b):
        one = "--json requires" if as_json else "name two candidates, A and B, or use"
        raise typer.BadParameter(f"{one} two or more --study; python -m lab.studies lists them")
    with manners(debug=debug):
        if len(studies) > 1:
            print_result(side_by_side(studies, as_json=as_json))
            return
        from lab.cli.contenders import set_stage

        names = list(dict.fromkeys(name.strip() for name in model.split(","))) if model else []
        stage = set_stage((a, b), experiment, "".join(studies), endpoint, need_experiment=True)
        asyncio.run(_compare(stage, names, episodes))


async def _compare(stage: "Stage", models: Sequence[str], episodes: int | None) -> None:
    from lab.agent.evaluation import Trial
    from lab.cli.contenders import on_models
    from lab.cli.head_to_head import Round, told
    from lab.experiment.objective import Objective
    from lab.verdict.verdict import judge

    assert stage.experiment is not None
    table, objective = stage.experiment.verdict, Objective(maximise=stage.experiment.objective.maximise)
    stages = on_models(stage, models) if models else {"": stage}
    confidence = 1 - (1 - table.confidence) / len(stages)  # Bonferroni
    rounds = list[Round]()
    for name, each in stages.items():
        one, other = await _play(each, stage.experiment, episodes or table.episodes)
        verdict = judge((), other, [(Trial(0, one), one)], objective, confidence)
        if not verdict.finalists:
            raise (*one.failed, *other.failed)[0].error
        rounds.append(Round(f"{name}: " if name else "", each, verdict))
    print_result("\n".join(plain(line) for line in told(rounds, table.confidence)))


async def _play(stage: "Stage", experiment: "Experiment", count: int) -> "tuple[Evaluation, Evaluation]":
    from rich.console import Console

    from lab.agent.evaluation import Evaluation
    from lab.experiment.budget import Spending
    from lab.experiment.metered import Metered
    from lab.search.player import Player
    from lab.storage.keys import COMPARISON

    first = experiment.seed + COMPARISON
    seeds = range(first, first + count)
    most = 2 * count * stage.task.max_steps
    (one, here), (other, there) = (
        (each.name, f" on {each.model.choice.name} at {each.model.choice.shown}") for each in stage.contenders
    )
    told = f"Playing {one}{here if here != there else ''} and {other}{there}, {count} episodes each"
    typer.echo(f"{told}: at most {most} calls.", err=True)
    spending = Spending()
    async with stage.opened(say) as (endpoints, environment):
        models = {
            contender.candidate.model: Metered(endpoint, spending, contender.model.prices)
            for contender, endpoint in zip(stage.contenders, endpoints, strict=True)
        }
        first_model, in_flight = next(iter(models.values())), experiment.search.in_flight
        player = Player(first_model, environment, stage.task, in_flight, spending, others=models)
        with Console(stderr=True).status(_Calls(spending, most)):  # shown on a terminal only
            # Pair by pair: a slow or failing endpoint affects both.
            async with asyncio.TaskGroup() as group:
                pairs = [
                    [group.create_task(player.episode(each.candidate, seed)) for each in stage.contenders]
                    for seed in seeds
                ]
    first_played, second_played = (
        Evaluation.of(
            each.candidate, stage.task, [task.result() for task in tasks], experiment.objective.maximise
        )
        for each, tasks in zip(stage.contenders, zip(*pairs, strict=True), strict=True)
    )
    return first_played, second_played


@dataclass(frozen=True)
class _Calls:
    """The number of calls, which Rich reads each time that it draws."""

    spending: "Spending"
    most: int

    def __rich__(self) -> "Text":
        from rich.text import Text

        return Text(f"{self.spending.calls} of {self.most} calls")


if __name__ == "__main__":
    app()
