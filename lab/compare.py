"""The command `python -m lab.compare`: two candidates head to head, on seeds that no study plays.

It owns the table and the claim; the test is `lab.verdict.verdict`'s, the figures are `lab.verdict.words`'.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

import typer

from lab.cli.command import Debug, EndpointUrl, ExperimentOrNone, command_line, manners, say, who
from lab.cli.contenders import Asked
from lab.cli.side_by_side import side_by_side
from lab.errors import plain
from lab.search.trouble_words import troubles_brief, troubles_text
from lab.stats.format import count, estimate_text, percent, price
from lab.submission.stdout import print_result

if TYPE_CHECKING:
    from lab.agent.evaluation import Evaluation
    from lab.cli.contenders import Contender, Stage
    from lab.experiment.budget import Spending
    from lab.experiment.experiment import Experiment
    from lab.verdict.verdict import Compared, Verdict

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

LOOK_S = 0.25
"""Seconds between two updates of the progress."""


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

        python -m lab.compare --study smoke-20261126-003509 --study smoke-20261125-101500
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
        names = list(dict.fromkeys(name.strip() for name in model.split(","))) if model else []
        asyncio.run(_compare(Asked((a, b), experiment, "".join(studies)), names, episodes, endpoint))


@dataclass(frozen=True)
class _Round:
    """What both candidates did on one model.

    Attributes:
        label: Name of the model and a colon, if the user chose it; else empty.
    """

    label: str
    stage: "Stage"
    verdict: "Verdict"

    @property
    def played(self) -> "tuple[tuple[Contender, Evaluation], ...]":
        """The contenders with their episodes."""
        one, other = self.stage.contenders
        return (one, self.verdict.finalists[0].unseen), (other, self.verdict.baseline)


async def _compare(asked: Asked, models: Sequence[str], episodes: int | None, endpoint: str) -> None:
    # Here and not above, so that --help answers at once.
    from lab.agent.evaluation import Trial
    from lab.cli.contenders import on_models, set_stage
    from lab.experiment.objective import Objective
    from lab.verdict.verdict import judge

    stage = await set_stage(asked, need_experiment=True, endpoint=endpoint)
    assert stage.experiment is not None
    table, objective = stage.experiment.verdict, Objective(maximise=stage.experiment.objective.maximise)
    stages = on_models(stage, models) if models else {"": stage}
    confidence = 1 - (1 - table.confidence) / len(stages)  # Bonferroni
    rounds = list[_Round]()
    for name, each in stages.items():
        one, other = await _play(each, stage.experiment, episodes or table.episodes)
        verdict = judge((), other, [(Trial(0, one), one)], objective, confidence)
        if not verdict.finalists:
            raise (*one.failed, *other.failed)[0].error
        rounds.append(_Round(f"{name}: " if name else "", each, verdict))
    print_result("\n".join(plain(line) for line in _told(rounds, table.confidence)))


async def _play(stage: "Stage", experiment: "Experiment", count: int) -> "tuple[Evaluation, Evaluation]":
    from lab.experiment.budget import Metered, Spending
    from lab.search.player import Player
    from lab.storage.record import COMPARISON

    first = experiment.seed + COMPARISON
    seeds = range(first, first + count)
    most = 2 * count * stage.task.max_steps
    (one, here), (other, there) = (
        (each.name, f" on {each.model.choice.name} at {each.model.choice.shown}") for each in stage.contenders
    )
    told = f"Playing {one}{here if here != there else ''} and {other}{there}, {count} episodes each"
    typer.echo(f"{told}: at most {most} calls.", err=True)
    spending = Spending()
    async with stage.opened(say) as (endpoints, environment), _watched(spending, most):
        models = {
            contender.candidate.model: Metered(endpoint, spending, contender.model.prices)
            for contender, endpoint in zip(stage.contenders, endpoints, strict=True)
        }
        measure = experiment.objective.maximise
        player = Player(
            *(next(iter(models.values())), environment, stage.task, experiment.search.in_flight, spending),
            measure=measure,
            others=models,
        )
        async with asyncio.TaskGroup() as group:  # pair by pair: a slow or failing endpoint affects both
            pairs = [
                [
                    group.create_task(player.evaluate(contender.candidate, [seed]))
                    for contender in stage.contenders
                ]
                for seed in seeds
            ]
    first_played, second_played = zip(*pairs, strict=True)
    return _together(first_played), _together(second_played)


def _together(tasks: "Sequence[asyncio.Task[Evaluation]]") -> "Evaluation":
    """Merge several evaluations of the same candidate."""
    parts = [task.result() for task in tasks]
    return replace(
        parts[0],
        episodes=tuple(episode for part in parts for episode in part.episodes),
        failed=tuple(failed for part in parts for failed in part.failed),
    )


@asynccontextmanager
async def _watched(spending: "Spending", most: int) -> AsyncIterator[None]:
    """Show the number of calls if stderr is a terminal."""
    from rich.console import Console

    with Console(stderr=True).status("") as status:

        async def look() -> None:
            while True:
                status.update(f"{spending.calls} of {most} calls")
                await asyncio.sleep(LOOK_S)

        looking = asyncio.create_task(look())
        try:
            yield
        finally:
            looking.cancel()


def _told(rounds: Sequence[_Round], confidence: float) -> Iterator[str]:
    yield from _table(rounds)
    if len(rounds) > 1:
        level = percent(confidence)
        yield f"The intervals hold for all {len(rounds)} models together, at {level} confidence."
    for one in rounds:
        yield from (f"{one.label}{line}" for line in _told_of(one))


def _told_of(played: _Round) -> Iterator[str]:
    from lab.verdict.words import at_limit

    (compared,), confidence = played.verdict.finalists, played.verdict.confidence
    for contender, its in played.played:
        if its.failed:
            why = its.failed[0].error.one_line
            yield f"{contender.name}: {count(len(its.failed), 'episode')} failed, the first with: {why}"
        if told := troubles_text(its.troubles):
            yield f"{contender.name}: {told}."
    one, other = played.stage.contenders
    if one.candidate == other.candidate:
        noise = _figures(other.name, compared, confidence)
        yield f"Both are the same candidate, so this is noise: {noise}."
    else:
        yield claim(one.name, other.name, compared, confidence)
        yield from _other(one.name, other.name, compared, confidence)
    scores = (*compared.unseen.scores, *played.verdict.baseline.scores)
    yield from at_limit(scores, compared.unseen.measure, "episode")


def _other(one: str, other: str, compared: "Compared", confidence: float) -> Iterator[str]:
    """A line on the number that is not judged, if it shows the opposite."""
    from lab.verdict.words import better, figures

    gap, unseen = compared.other, compared.unseen.other
    if compared.difference.mean > 0 > gap.high or compared.difference.mean < 0 < gap.low:
        told = figures(unseen.mean, gap, confidence, versus=other)
        yield f"However: {one} {better(unseen.measure, gap.mean)} than {other}: {told}."


Row = tuple[str, str, str]


def _table(rounds: Sequence[_Round]) -> Iterator[str]:
    """The settings that differ, and the results on each model."""
    first, second = rounds[0].stage.contenders
    rows: list[Row] = [("", first.name, second.name), *_settings(first, second)]
    for one in rounds:
        rows += [(f"{one.label}{name}", mine, its) for name, mine, its in _results(one)]
    wide, middle = (max(len(row[place]) for row in rows) for place in (0, 1))
    yield from (f"{name:<{wide}}  {mine:<{middle}}  {its}".rstrip() for name, mine, its in rows)


def _results(played: _Round) -> Iterator[Row]:
    from lab.verdict.verdict import estimate
    from lab.verdict.words import other_mean

    (first, one), (second, other) = played.played
    mine, its = (estimate(each, played.verdict.confidence) for each in (one, other))
    yield one.measure, f"{estimate_text(mine)}, n = {mine.n}", f"{estimate_text(its)}, n = {its.n}"
    yield one.other.measure, other_mean(one), other_mean(other)
    yield "tokens per episode", one.tokens_text, other.tokens_text
    yield "dollars per episode", _dollars(first, one), _dollars(second, other)
    yield "seconds per call", f"{one.latency_s:.2f}", f"{other.latency_s:.2f}"
    troubles = [troubles_brief(each.troubles) or "none" for each in (one, other)]
    if troubles != ["none", "none"]:
        yield "unusable answers", troubles[0], troubles[1]


def _settings(first: "Contender", second: "Contender") -> Iterator[Row]:
    from lab.display.diff import differing, text_diff

    pairs = differing(first.candidate, second.candidate)
    for name, (mine, its) in pairs.items():
        yield name, str(mine), str(its)
    if "template" not in pairs and text_diff(first.candidate, second.candidate, ("", "")):
        yield "texts", "differ", "from these"


def _dollars(contender: "Contender", played: "Evaluation") -> str:
    prices = contender.model.prices
    tokens_in = sum(episode.prompt_tokens for episode in played.episodes)
    tokens_out = sum(episode.completion_tokens for episode in played.episodes)
    return price(prices.dollars(tokens_in, tokens_out) / len(played.episodes) if prices.known else None)


def claim(one: str, other: str, compared: "Compared", confidence: float) -> str:
    """What the test shows about two candidates, in a sentence.

    Args:
        compared: `one` against `other`; a difference is claimed only if interval and test agree.
    """
    from lab.verdict.words import better

    gap, told = compared.difference, _figures(other, compared, confidence)
    if compared.p_value <= 1 - confidence and (gap.low > 0 or gap.high < 0):
        return f"{one} {better(compared.unseen.measure, gap.mean)} than {other}: {told}."
    few = least_pairs(confidence)
    more = f" Fewer than {few} pairs cannot show one: use --episodes {few} or more." if gap.n < few else ""
    return f"No difference between {one} and {other} is shown: {told}.{more}"


def _figures(other: str, compared: "Compared", confidence: float) -> str:
    from lab.verdict.words import figures

    return figures(compared.unseen.mean, compared.difference, confidence, compared.p_value, other)


def least_pairs(confidence: float) -> int:
    """Minimum number of pairs for a significant sign-flip test: 2 of 2^n patterns are the most extreme."""
    pairs = 2
    while 2 / 2**pairs > 1 - confidence:
        pairs += 1
    return pairs


if __name__ == "__main__":
    app()
