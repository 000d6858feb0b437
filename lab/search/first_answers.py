"""The first answers of a study: if none can be used, the study stops before it spends its budget.

It owns that rule and its error. The error is stored as a fact of the study: the same command prints it again
without a call, and every worker stops.
"""

from collections.abc import Callable
from math import isclose

from lab.agent.episode import FailedEpisode
from lab.agent.step import STILL_THINKING, Step, Troubles, total, troubles_of
from lab.environments.config import EnvironmentConfig
from lab.errors import LabError
from lab.llm.settings import ModelChoice
from lab.search.trouble_words import TROUBLES, troubles_text
from lab.stats.format import number
from lab.storage.record import Record
from lab.storage.trials import Trials

FIRST = 24
"""Number of answers after which a study stops if none could be used."""

CANDIDATES = 2
"""Minimum number of candidates that gave them: a single candidate may be at fault itself."""

FEW = 8
"""Number of unusable answers after which it stops if all first episodes also returned the same."""

_SEE = "python -m lab.play baseline shows each answer"

_DO = {
    "length": "raise task.max_tokens and baseline.max_tokens, or use a model that needs fewer tokens",
    "thinking": 'raise max_tokens (of the task and of candidates), or set reasoning_effort = "low"',
    "empty": f"use another model or prompt; {_SEE}",
    "no_action": f"use a prompt or a model that writes the requested action; {_SEE}",
    "refused": f"change the prompt or [environment] to the actions that the environment accepts; {_SEE}",
}
"""What to do, by kind of trouble; `length` if the answers are empty because the tokens ran out."""

_FRESH = "if the cause was elsewhere, use --fresh to start a new study"


class UnusableError(LabError):
    """None of the model's first answers could be used."""

    exit_code = 3


class RefusedError(LabError):
    """The environment refused all first actions."""

    exit_code = 4


class FirstAnswers:
    """Watches a study's first steps, whether they are played or looked up."""

    def __init__(
        self,
        record: Record,
        trials: Trials,
        model: ModelChoice,
        environment: EnvironmentConfig,
        say: Callable[[str], None],
    ) -> None:
        self._record, self._trials, self._say = record, trials, say
        self._opening, self._told = 0, False
        self._model, self._environment = model, environment
        self._stopped = read_stopped(trials)
        self._troubles = record.troubles
        self._candidates = {
            digest for (digest, _), one in record.ended.items() if not isinstance(one, FailedEpisode)
        }

    @property
    def useless(self) -> bool:
        """Whether there were answers and none of them could be used."""
        return self._troubles.unusable

    def step(self, digest: str, step: Step) -> None:
        """Count a candidate's step.

        Raises:
            LabError: The study stops here, or was stopped.
        """
        self.check()
        if self._troubles.steps and not self.useless:
            return
        self._troubles = total((self._troubles, troubles_of([step])))
        self._candidates.add(digest)
        if self.useless and self._troubles.steps >= FIRST and len(self._candidates) >= CANDIDATES:
            self._stop()

    def look(self) -> None:
        """Check the first episodes; call it when an episode has ended here or in another process.

        Raises:
            LabError: As `step`; or all returned the same, and no answer could be used: the study stops here.
        """
        self.check()
        if self._told and not self.useless:
            return
        self._opening = self._opening or self._trials.fact("opening") or 0  # a query, until it is known
        opening = self._trials.known[: self._opening]
        played = [list(trial.intermediate_values.values())[:1] for trial in opening]
        if played and all(played):
            returns = [value for (value,) in played]
            same = all(isclose(one, returns[0], abs_tol=1e-9) for one in returns)
            alike = same and len(returns) >= CANDIDATES
            if alike and self.useless and self._troubles.steps >= FEW:
                self._stop()
            if alike and not self._told:
                told = f"All {len(returns)} initial candidates returned {number(returns[0])}"
                self._say(
                    f"{told} in their first episode: nothing tells them apart so far. {_SEE} and its reward."
                )
            self._told = True

    def check(self) -> None:
        """Check that the study was not stopped.

        Raises:
            LabError: It was.
        """
        if self._stopped is not None:
            raise self._stopped

    def refresh(self) -> None:
        """Read again whether the study was stopped, because another process may have stopped it."""
        self._stopped = read_stopped(self._trials)

    def _stop(self) -> None:
        """Stop, unless an episode played in another process had a usable answer."""
        ended = self._record.troubles
        if ended.steps and not ended.unusable:
            self._troubles = ended
            return
        error = unusable(self._troubles, self._model, self._environment)
        texts = {"what": error.what, "where": error.where, "why": error.why, "do": f"{error.do}; {_FRESH}"}
        self._trials.state_fact("stopped", {**texts, "refused": isinstance(error, RefusedError)})
        self.refresh()
        self.check()


def unusable(troubles: Troubles, model: ModelChoice, environment: EnvironmentConfig) -> LabError:
    """The error for steps without a usable answer."""
    kind, n = troubles.kinds[0], troubles.steps
    if len(troubles.kinds) == 1:
        first = "The first answer was" if n == 1 else f"All of the first {n} answers were"
        what, why = f"{first} {TROUBLES.get(kind, kind)}.", troubles.reason(kind)
    else:
        what, why = f"None of the first {n} answers could be used.", troubles_text(troubles)
    if kind == "refused":
        return RefusedError(what, where=environment.shown, why=why, do=_DO[kind])
    do = _DO["length"] if why == "finish_reason=length" else _DO.get(kind, _DO["empty"])
    do = _DO["thinking"] if STILL_THINKING in why else do
    return UnusableError(what, where=f"{model.name} at {model.shown}", why=why, do=do)


def read_stopped(trials: Trials) -> LabError | None:
    """Return the error that stopped a study for good; None if it was not stopped."""
    fact = trials.fact("stopped")
    if fact is None:
        return None
    kind = RefusedError if fact["refused"] else UnusableError
    return kind(fact["what"], where=fact["where"], why=fact["why"], do=fact["do"])
