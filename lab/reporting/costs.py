"""What the study cost, and how much was played for it."""

from lab.agent.evaluation import BASELINE
from lab.display.screen import PHASES
from lab.experiment.budget import Spending
from lab.reporting.story import Story
from lab.stats.format import count, dollars, number, price, token_notes


def rows(story: Story) -> list[tuple[str, str]]:
    """The study's cost: names and amounts."""
    spent, ended = story.spent, [play.phase for play in story.plays if play.earned is not None]
    notes = token_notes(spent.calls, spent.thinking_tokens, spent.estimated)
    return [
        ("model calls answered", f"{spent.calls:,}"),
        ("tokens in", f"{spent.prompt_tokens:,}"),
        ("tokens out", f"{spent.completion_tokens:,}{notes}"),
        ("cost in dollars", _money(spent)),
        ("working minutes", number(story.minutes)),
        ("whole episodes", f"{len(ended):,}"),
        ("episodes cut or failed", f"{len(story.plays) - len(ended):,}"),
        *((f"whole episodes of the {phase}", f"{ended.count(phase):,}") for phase in PHASES),
    ]


def _money(spent: Spending) -> str:
    if spent.unpriced and spent.dollars:
        return f"{dollars(None)}, at least {dollars(spent.dollars)}"
    return price(0.0) if spent.cost == 0 else dollars(spent.cost)


def counts(story: Story) -> str:
    """The amount of data behind the verdict, in one line."""
    played, spent = sum(play.earned is not None for play in story.plays), story.spent
    candidates = sum(trial.number != BASELINE for trial in story.trials)
    return (
        f"{count(candidates, 'candidate')} and the baseline, {count(played, 'whole episode')},"
        f" {count(spent.calls, 'call')}, {count(spent.prompt_tokens, 'token')} in,"
        f" {spent.completion_tokens:,} out."
    )
