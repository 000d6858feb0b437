"""A ModelCheck: whether one model of an experiment takes the calls that a study makes, for the doctor.

It owns the order of the checks and their findings. The calls are `lab.study.rehearsal`'s.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from lab.agent.step import Step
from lab.cli.finding import Finding, looked
from lab.environments.environment import Session
from lab.errors import ConfigError, LabError, NoKeyError, OutageError, UnreachableError
from lab.experiment.experiment import Experiment
from lab.experiment.model_schema import PricedModel
from lab.llm.dialect import Dialect
from lab.llm.settings import ModelChoice, choose_model, hosted_endpoint
from lab.local_model.weights import check_runtime, find_model
from lab.study.rehearsal import described, rehearse, try_ends, without_effect


class ModelCheck:
    """The checks of one model.

    Attributes:
        answers: Whether it has passed `calls`, so that it can play.
        steps: The steps that it has played.
    """

    def __init__(self, experiment: Experiment, model: PricedModel) -> None:
        self.answers, self.steps = False, list[Step]()
        self._experiment, self._model, self._of = experiment, model, model.choice.table

    async def calls(self) -> Sequence[Finding]:
        """Check endpoint, key and model with the calls of `lab.study.rehearsal.try_ends`."""
        findings = [replace(one, of=self._of) for one in await self._calls()]
        self.answers = not any(one.wrong for one in findings)
        return findings

    async def play(self, session: Session) -> Finding:
        """Check the steps, with the calls of `lab.study.rehearsal.rehearse`."""
        if not self.answers:
            return Finding("steps", "skipped", looked=False, of=self._of)
        try:
            self.steps += await rehearse(self._experiment, self._model, session, self._on_dialect)
        except LabError as error:
            return Finding("steps", "", error, of=self._of)
        return Finding("steps", "; ".join(map(described, self.steps)), of=self._of)

    def dialect(self, left_out: Sequence[str]) -> Finding:
        """What requests may hold, and what the study leaves out of its space for that."""
        dialect = self._model.choice.dialect
        out = [name for name in dialect.omit if name in left_out]
        more = f"; the study leaves {', '.join(out)} out of [space]" if out else ""
        return Finding("dialect", f"{dialect}{more}", of=self._of)

    def lacks(self, name: str) -> bool:
        """Whether its endpoint does not accept a setting, or no candidate of the study plays on it."""
        usual = self._experiment.baseline.model
        return self._of not in (usual, *self._experiment.others) or name in self._model.choice.dialect.omit

    async def _calls(self) -> list[Finding]:
        try:
            model = choose_model(self._model.choice)
        except ConfigError as error:
            wrong = "model" if error.where == "MODEL_NAME" else "endpoint"
            return [
                Finding(name, "", error) if name == wrong else Finding(name, "skipped", looked=False)
                for name in ("endpoint", "key", "model")
            ]
        self._model = replace(self._model, choice=model)
        if model.embedded:
            return _embedded(model)
        endpoint = Finding("endpoint", model.shown)
        unasked = Finding("model", f"{model.name}, skipped", looked=False)
        present = False
        try:
            present = hosted_endpoint(model).api_key != "none"
            key = Finding("key", "present" if present else "none, and not needed on this machine")
            taken_s = await try_ends(self._experiment, self._model, self._on_dialect)
            answers = Finding("model", f"{model.name} answers in {taken_s:.1f} s")
            return [endpoint, key, answers, *await self._settings()]
        except NoKeyError as error:
            return [endpoint, Finding("key", "", error), unasked]
        except (UnreachableError, OutageError) as error:
            untried = Finding("key", f"{key.said}, not tested" if present else key.said, looked=False)
            return [Finding("endpoint", "", error), untried, unasked]
        except LabError as error:
            return [endpoint, key, Finding("model", "", error)]

    async def _settings(self) -> list[Finding]:
        """A warning if free settings change nothing."""
        dropped = await without_effect(self._experiment, self._model)
        why = "the server may drop it, have another name for it, or sample only with another setting"
        said = f"{', '.join(dropped)} changed no answer: {why}"
        return [Finding("settings", said, warned=True)] if dropped else []

    def _on_dialect(self, dialect: Dialect, _: str) -> None:
        self._model = replace(self._model, choice=replace(self._model.choice, dialect=dialect))


def checks_of(experiment: Experiment) -> Iterator[ModelCheck]:
    """The checks of the baseline's model, and of the other tables `[models.NAME]`."""
    yield ModelCheck(experiment, experiment.priced(experiment.model))
    for name, model in experiment.models.items():
        if name != experiment.baseline.model:
            yield ModelCheck(experiment, model)


def _embedded(model: ModelChoice) -> list[Finding]:
    def installed() -> str:
        check_runtime()
        found = find_model()
        once = ", to be converted once" if found.converts else ""
        return f"{model.name}, weights in {found.path}{once}"

    return [
        Finding("endpoint", "embedded, started by each command"),
        Finding("key", "not needed"),
        looked("model", installed),
    ]
