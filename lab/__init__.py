"""prompt-lab: tunes an LLM agent's prompt and sampling for episode reward, and proves the gain.

The names below are the public API; `docs/library.md` describes them. Each is imported when it is first used,
so `import lab` is light. The commands are modules beside them: `python -m lab.tune`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lab.agent.candidate import Candidate as Candidate
    from lab.agent.episode import Episode as Episode
    from lab.agent.evaluation import Trial as Trial
    from lab.agent.step import Step as Step
    from lab.agent.template import PromptTemplate as PromptTemplate
    from lab.errors import LabError as LabError
    from lab.experiment.experiment import Experiment as Experiment
    from lab.library.agent import Agent as Agent
    from lab.library.agent import load_frozen as load_frozen
    from lab.library.mlflow_optimizer import LabOptimizer as LabOptimizer
    from lab.library.run import run_study as run_study
    from lab.library.run import run_study_async as run_study_async
    from lab.library.study import Study as Study
    from lab.library.study import load_study as load_study
    from lab.submission.frozen import FrozenPrompt as FrozenPrompt
    from lab.verdict.verdict import Verdict as Verdict

_HOMES = {
    "Agent": "lab.library.agent",
    "Candidate": "lab.agent.candidate",
    "Episode": "lab.agent.episode",
    "Experiment": "lab.experiment.experiment",
    "FrozenPrompt": "lab.submission.frozen",
    "LabError": "lab.errors",
    "LabOptimizer": "lab.library.mlflow_optimizer",
    "PromptTemplate": "lab.agent.template",
    "Step": "lab.agent.step",
    "Study": "lab.library.study",
    "Trial": "lab.agent.evaluation",
    "Verdict": "lab.verdict.verdict",
    "load_frozen": "lab.library.agent",
    "load_study": "lab.library.study",
    "run_study": "lab.library.run",
    "run_study_async": "lab.library.run",
}
"""The module that has each public name."""

__all__ = [*_HOMES]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
