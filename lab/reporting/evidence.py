"""The report's tables and texts: settings, prompt differences, episodes, candidates, cost."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from lab.agent.candidate import Candidate
from lab.agent.episode import Episode
from lab.agent.evaluation import Evaluation, Trial
from lab.reporting.charts import holdout
from lab.reporting.story import PHASES, Story, estimate
from lab.search.trouble_words import troubles_brief
from lab.stats.format import count, dollars, interval, mean, number, p_text, price, setting_text, token_notes


@dataclass(frozen=True)
class Row:
    """A setting, of the baseline and of what was chosen."""

    name: str
    baseline: str
    chosen: str

    @property
    def differs(self) -> bool:
        """Whether the two differ."""
        return self.baseline != self.chosen


@dataclass(frozen=True)
class Line:
    """A line of a difference: `kept`, `added` or `removed`."""

    kind: str
    text: str


def settings(story: Story) -> list[Row]:
    """Every setting, those that differ first."""
    if story.chosen is None:
        return []
    base, own = story.experiment.baseline, story.chosen[1].candidate
    rows = [
        Row(name, setting_text(value), setting_text(own.settings[name]))
        for name, value in ((name, base.settings[name]) for name in {**base.settings, **own.settings})
        if name != "stop"
    ]
    rows.append(Row("stop", setting_text(list(base.sampling.stop)), setting_text(list(own.sampling.stop))))
    return sorted(rows, key=lambda row: not row.differs)


def difference(before: Candidate, after: Candidate) -> list[tuple[str, list[Line]]]:
    """The lines of both of a candidate's texts, and of its demonstrations, against another's."""
    parts = []
    for name in ("system", "turn"):
        old, new = getattr(before.template, name), getattr(after.template, name)
        parts.append((name, list(_lines(old.strip().splitlines(), new.strip().splitlines()))))
    shown = [_demonstrations(one) for one in (before, after)]
    return [*parts, ("demonstrations", list(_lines(*shown)))] if any(shown) else parts


def _demonstrations(candidate: Candidate) -> list[str]:
    return [f"step {one.step}: {one.observation} → {one.action}" for one in candidate.demonstrations]


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
    judged = story.outcome.verdict
    played = {"baseline": judged.baseline, **{one.trial.name: one.unseen for one in judged.finalists}}
    compared = {one.trial.name: one for one in judged.finalists}
    rows = []
    for name, one in holdout(story).items():
        beside, evaluation = compared.get(name), played[name]
        rows.append(
            {
                "name": name,
                "template": evaluation.candidate.template.name,
                "mean": mean(one),
                "interval": interval(one),
                "n": str(one.n),
                "difference": mean(beside.difference, sign=True) if beside else "",
                "difference_interval": interval(beside.difference, sign=True) if beside else "",
                "p": p_text(beside.p_value).removeprefix("p = ") if beside else "",
                "other": _other(evaluation),
                "tokens": evaluation.tokens_text,
                "unusable": troubles_brief(evaluation.troubles),
            }
        )
    return rows


def _other(evaluation: Evaluation) -> str:
    """The mean of the number that is not judged."""
    by_score = evaluation.measure == "score"
    return number(evaluation.mean_return) if by_score else f"{evaluation.mean_score:.3f}"


def candidate_rows(story: Story) -> list[dict[str, str]]:
    """All candidates of the search, best first."""
    return [_candidate_row(trial, list(story.experiment.space.free)) for trial in story.trials]


def _candidate_row(trial: Trial, free: Sequence[str]) -> dict[str, str]:
    one = estimate(trial.evaluation)
    settings = " ".join(
        f"{name}={setting_text(trial.candidate.settings[name])}" for name in free if name != "template"
    )
    return {
        "name": trial.name,
        "template": trial.candidate.template.name,
        "mean": mean(one),
        "interval": interval(one) if one.n > 1 else "none",
        "n": str(one.n),
        "tokens": trial.evaluation.tokens_text,
        "other": _other(trial.evaluation),
        "unusable": troubles_brief(trial.evaluation.troubles),
        "race": f"dropped{f', {trial.cut} cut' if trial.cut else ''}" if trial.dropped else "in the race",
        "settings": settings,
    }


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
        value = number(task.value_of(episode.rewards, measure))
        yield Shown(f"{name}: {measure} {value} (seed {episode.seed})", episode)


def cost_rows(story: Story) -> list[tuple[str, str]]:
    """What the study cost."""
    spent, ended = story.cost.spent, [play for play in story.plays if play.earned is not None]
    broken = len(story.plays) - len(ended)
    noted = (spent.calls, spent.thinking_tokens, spent.estimated)
    rows = [
        ("model calls answered", f"{spent.calls:,}"),
        ("tokens in", f"{spent.prompt_tokens:,}"),
        ("tokens out", f"{spent.completion_tokens:,}{token_notes(*noted)}"),
        ("money", _money(story)),
        ("minutes of work", number(story.cost.minutes)),
        ("whole episodes", f"{len(ended):,}"),
        ("episodes cut or failed", f"{broken:,}"),
    ]
    for phase in PHASES:
        played = sum(play.phase == phase for play in ended)
        rows.append((f"whole episodes of the {phase}", f"{played:,}"))
    return rows


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
