"""The command `python -m lab.export`: a study's trials or episodes as a CSV table, for spreadsheets and R.

It owns the columns of episodes; those of trials are `lab.verdict.rows`'s. It makes no calls.
"""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab.cli.command import Debug, Experiment, Storage, StudyName, Version, command_line, manners, say
from lab.submission.stdout import print_result

if TYPE_CHECKING:
    from lab.study.past_study import PastStudy

app = command_line()


@app.command()
def export(
    experiment: Experiment = Path("experiments/echo.toml"),
    as_csv: Annotated[  # noqa: ARG001  # a name for the only format
        bool, typer.Option("--csv", help="Print CSV, the only format so far.", show_default=False)
    ] = True,
    episodes: Annotated[
        bool, typer.Option("--episodes", help="Print a row for each whole episode, not for each trial.")
    ] = False,
    study: StudyName = "",
    storage: Storage = "",
    debug: Debug = False,
    _version: Version = False,
) -> None:
    """Print a study's trials as a table, by default those of the experiment's last study.

    A row has a trial's figures in the search and its settings, best first. With --episodes, a row has a whole
    episode of the search, the confirmation or the holdout.

    Examples:

        python -m lab.export --csv

        python -m lab.export experiments/smoke.toml --csv --episodes
    """
    with manners(debug=debug):
        from lab.study.past_study import Which, reading
        from lab.verdict.rows import trial_rows

        with reading(Which(experiment, study, storage), say) as past:
            rows = list(_episodes(past)) if episodes else trial_rows(past.trials, past.verdict)
        print_result(_csv(rows))


def _episodes(past: "PastStudy") -> Iterator[dict[str, Any]]:
    from lab.agent.episode import Tally
    from lab.agent.evaluation import trial_name
    from lab.reporting.story import phase_of
    from lab.search.trials import numbers_of

    names = {digest: trial_name(number) for digest, number in numbers_of(past.search.known).items()}
    task = past.experiment.task
    for (digest, seed), played in past.record.ended.items():
        if isinstance(played, Tally):
            yield {
                "trial": names.get(digest),
                "phase": phase_of(seed, past.experiment),
                "seed": seed,
                "task": task.setup(seed)[0].name,
                "return": played.episode_return,
                "score": task.score_of(played.rewards, played.own_score),
                "steps": len(played.rewards),
                "calls": played.calls,
                "prompt_tokens": played.prompt_tokens,
                "completion_tokens": played.completion_tokens,
                "duration_s": played.duration_s,
                "unusable": played.troubles.share,
            }


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys() if rows else (), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().removesuffix("\n")


if __name__ == "__main__":
    app()
