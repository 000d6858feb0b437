"""The report's tables and texts: settings, prompt differences, episodes, candidates, cost."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from lab.agent.candidate import Candidate
from lab.agent.episode import Episode
from lab.agent.evaluation import Trial
from lab.display.diff import settings_of, text_lines
from lab.reporting.story import PHASES, Story, expected_of
from lab.search.trouble_words import troubles_brief
from lab.stats.format import (
    count,
    dollars,
    estimate_text,
    interval,
    mean,
    number,
    p_text,
    price,
    setting_text,
    token_notes,
)
from lab.verdict.model_cost import ModelCost
from lab.verdict.verdict import estimate
from lab.verdict.words import other_mean


@dataclass(frozen=True)
class Row:
    """A setting of the baseline and of the chosen candidate."""

    name: str
    baseline: str
    chosen: str

    @property
    def differs(self) -> bool:
        """Whether the two differ."""
        return self.baseline != self.chosen


@dataclass(frozen=True)
class Line:
    """A line of a diff; its kind is `kept`, `added` or `removed`."""

    kind: str
    text: str


def settings(story: Story) -> list[Row]:
    """Every setting, those that differ first."""
    if story.chosen is None:
        return []
    base, own = (settings_of(one) for one in (story.experiment.baseline, story.chosen[1].candidate))
    rows = [Row(name, setting_text(base[name]), setting_text(own[name])) for name in {**base, **own}]
    return sorted(rows, key=lambda row: not row.differs)


def difference(before: Candidate, after: Candidate) -> list[tuple[str, list[Line]]]:
    """The differences between two candidates' texts and demonstrations, line by line, by part."""
    old, new = text_lines(before), text_lines(after)
    return [(part, list(_lines(old[part], new[part]))) for part in old if old[part] or new[part]]


def _lines(before: list[str], after: list[str]) -> Iterable[Line]:
    for tag, i1, i2, j1, j2 in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if tag == "equal":
            yield from (Line("kept", text) for text in after[j1:j2])
            continue
        yield from (Line("removed", text) for text in before[i1:i2])
        yield from (Line("added", text) for text in after[j1:j2])


def holdout_rows(story: Story) -> list[dict[str, str]]:
    """The candidates that played the holdout, with all figures; the baseline first."""
    if story.outcome is None:
        return []
    verdict = story.outcome.verdict
    compared = {one.trial.name: one for one in verdict.finalists}
    rows = []
    for name, evaluation in verdict.holdout.items():
        one = estimate(evaluation, verdict.confidence)
        row = {
            "name": name,
            "template": evaluation.candidate.template.name,
            "mean": mean(one),
            "interval": interval(one) if one.n > 1 else "none",
            "n": str(one.n),
            "other": other_mean(evaluation),
            "tokens": evaluation.tokens_text,
            "unusable": troubles_brief(evaluation.troubles),
            "difference": "",
            "p": "",
        }
        if beside := compared.get(name):
            row["difference"] = estimate_text(beside.difference, sign=True)
            row["p"] = p_text(beside.p_value).removeprefix("p = ")
        rows.append(row)
    return rows


def candidate_rows(story: Story) -> list[dict[str, str]]:
    """All candidates of the search, best first; without their settings."""
    return [_candidate_row(trial) for trial in story.trials]


def _candidate_row(trial: Trial) -> dict[str, str]:
    played, one = trial.evaluation, expected_of(trial)
    return {
        "place": str(trial.place),
        "name": trial.name,
        "expected": mean(one),
        "interval": interval(one) if one.bounded else "none",
        "mean": number(played.mean),
        "n": str(len(played.episodes)),
        "other": other_mean(played),
        "tokens": played.tokens_text,
        "unusable": troubles_brief(played.troubles),
        "race": f"dropped{f', {trial.cut} cut' if trial.cut else ''}" if trial.dropped else "in the race",
    }


def setting_cells(story: Story) -> list[list[str]]:
    """The free settings of each candidate, in the order of `candidate_rows` and of the space."""
    free, tried = story.experiment.space.free, (trial.candidate.settings for trial in story.trials)
    return [[setting_text(values[name]) for name in free] for values in tried]


@dataclass(frozen=True)
class Shown:
    """An episode to read, with its title."""

    title: str
    episode: Episode


def extremes(story: Story) -> list[tuple[str, list[Shown]]]:
    """The best and the worst episode of each shown candidate."""
    return [(name, list(_titled(episodes, story))) for name, episodes in story.extremes.items()]


def _titled(episodes: Sequence[Episode], story: Story) -> Iterable[Shown]:
    task, measure = story.experiment.task, story.measure
    names = ("Best", "Worst") if len(episodes) > 1 else ("Only",)
    for name, episode in zip(names, episodes, strict=True):
        value = number(task.value_of(episode.rewards, measure, episode.own_score))
        yield Shown(f"{name}: {measure} {value} (seed {episode.seed})", episode)


def cost_rows(story: Story) -> list[tuple[str, str]]:
    """The study's cost: names and amounts."""
    spent, ended = story.cost.spent, [play for play in story.plays if play.earned is not None]
    broken = len(story.plays) - len(ended)
    noted = (spent.calls, spent.thinking_tokens, spent.estimated)
    rows = [
        ("model calls answered", f"{spent.calls:,}"),
        ("tokens in", f"{spent.prompt_tokens:,}"),
        ("tokens out", f"{spent.completion_tokens:,}{token_notes(*noted)}"),
        ("cost in dollars", _money(story)),
        ("working minutes", number(story.cost.minutes)),
        ("whole episodes", f"{len(ended):,}"),
        ("episodes cut or failed", f"{broken:,}"),
    ]
    for phase in PHASES:
        played = sum(play.phase == phase for play in ended)
        rows.append((f"whole episodes of the {phase}", f"{played:,}"))
    return rows


def model_rows(story: Story) -> list[dict[str, str]]:
    """The cost of the episodes by model; empty if all candidates play on one."""
    return [_model_row(one) for one in story.models]


def _model_row(one: ModelCost) -> dict[str, str]:
    return {
        "name": one.name,
        "model": f"{one.model.choice.name} at {one.model.choice.shown}",
        "candidates": f"{one.candidates:,}",
        "episodes": f"{len(one.episodes):,}",
        "calls": f"{one.spent.calls:,}",
        "tokens_in": f"{one.spent.prompt_tokens:,}",
        "tokens_out": f"{one.spent.completion_tokens:,}",
        "dollars": price(one.dollars),
        "each": price(one.dollars_per_episode) if one.episodes else "",
    }


def _money(story: Story) -> str:
    known, whole = story.cost.spent.dollars, story.cost.dollars
    if whole == 0:
        return price(whole)
    return f"{dollars(whole)}, at least {dollars(known)}" if whole is None and known else dollars(whole)


def counts(story: Story) -> str:
    """The amount of data behind the verdict, in one line."""
    played = sum(play.earned is not None for play in story.plays)
    return (
        f"{count(len(story.candidates), 'candidate')} and the baseline, {count(played, 'whole episode')},"
        f" {count(story.cost.spent.calls, 'call')}, {count(story.cost.spent.prompt_tokens, 'token')} in,"
        f" {story.cost.spent.completion_tokens:,} out."
    )
