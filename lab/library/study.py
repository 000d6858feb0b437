"""A Study: what a study has found, as a value for Python programs and notebooks.

It is read from the study's record, finished or not, and does not change; reading again shows more. It owns
the views of it; the reading is `lab.study.past_study`'s.
"""

from contextlib import closing
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from lab.agent.episode import Episode, Tally
from lab.agent.evaluation import Trial
from lab.experiment.experiment import Experiment
from lab.study.past_study import PastStudy, Which, reading
from lab.submission.freeze import freeze
from lab.submission.frozen import BEST, FrozenPrompt
from lab.verdict.rows import trial_rows
from lab.verdict.summary import summary
from lab.verdict.verdict import Verdict
from lab.verdict.words import claim

if TYPE_CHECKING:
    from pandas import DataFrame

SHOWN = 10
"""Trials in a notebook's table."""


@dataclass(frozen=True, repr=False)
class Study:
    """A study, finished or not, as it was when it was read; `load_study` and `run_study` return it."""

    _past: PastStudy = field(compare=False)
    name: str

    @property
    def experiment(self) -> Experiment:
        """The experiment, as the study ran it."""
        return self._past.experiment

    @property
    def trials(self) -> list[Trial]:
        """The trials of the search with the baseline, best first."""
        return list(self._past.trials)

    @property
    def verdict(self) -> Verdict | None:
        """The comparison on the holdout; None if the study has no verdict yet."""
        return self._past.verdict

    @property
    def claim(self) -> str:
        """The verdict in one sentence; before the verdict, a sentence that says so."""
        if self._past.outcome is None:
            return f"The study {self.name} has no verdict yet."
        return claim(self._past.outcome.frozen_prompt())

    @property
    def best(self) -> Trial:
        """The trial that `freeze` writes, which may be the baseline; without a verdict, the search's leader.

        Raises:
            ConfigError: No trial has played yet.
        """
        outcome = self._past.outcome
        return self.trial(outcome.chosen[0]) if outcome else self.trial(next(iter(self.trials), "baseline"))

    def trial(self, which: Trial | str | int) -> Trial:
        """The trial of this name or number, such as `trial-012`, 12 or `baseline`.

        Raises:
            ConfigError: The study has no such trial.
        """
        return self._past.trial(which.number if isinstance(which, Trial) else which)

    def episodes(self, which: Trial | str | int) -> list[Episode]:
        """A trial's whole episodes with their texts, by seed: those of the search, then the unseen ones.

        Raises:
            ConfigError: The study has no such trial.
        """
        digest, record = self.trial(which).candidate.digest, self._past.record
        ended = record.ended.items()
        seeds = sorted(seed for (of, seed), one in ended if of == digest and isinstance(one, Tally))
        with closing(record.store):
            return record.episodes_of(digest, seeds)

    def to_pandas(self) -> "DataFrame":
        """A table with one row for each trial, best first; its columns are those of `lab export`."""
        from pandas import DataFrame

        return DataFrame(trial_rows(self.trials, self.verdict))

    def freeze(self, path: Path | str = BEST) -> FrozenPrompt:
        """Write the verdict's prompt to a file that `inference.py` plays, and return it.

        Raises:
            LabError: The study has no verdict yet, or the file cannot be written.
        """
        frozen = self._past.finished().frozen_prompt()
        freeze(frozen, Path(path))
        return frozen

    def __str__(self) -> str:
        outcome = self._past.outcome
        return summary(outcome, None, None) if outcome else self.claim

    def __repr__(self) -> str:
        return f"<Study {self.name}: {self.claim}>"

    def _repr_html_(self) -> str:
        """The claim and the leading trials, for notebooks."""
        shown = self.to_pandas().head(SHOWN).astype(object).fillna("")
        table = shown.to_html(index=False, float_format="{:.4g}".format)
        return f"<p><b>{escape(self.name)}</b>: {escape(self.claim)}</p>{table}"


def load_study(name: Path | str, *, storage: str = "") -> Study:
    """Read a study from its record, finished or not, without a call.

    Args:
        name: A study's name, as `lab studies` lists it; or an experiment file's path, for its last study.
        storage: Address of the storage, such as `postgresql://...`; by default that of `LAB_STORAGE`, or the
            file `.lab/calls.db`.

    Raises:
        ConfigError: There is no such study, or it was written by another version of the lab.
    """
    of_file = Path(name).suffix == ".toml"
    with reading(Which(Path(name), "" if of_file else str(name), storage)) as past:
        return Study(past, past.record.name)
