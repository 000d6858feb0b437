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
    "lab.agent.candidate": ("Candidate",),
    "lab.agent.episode": ("Episode",),
    "lab.agent.evaluation": ("Trial",),
    "lab.agent.step": ("Step",),
    "lab.agent.template": ("PromptTemplate",),
    "lab.errors": ("LabError",),
    "lab.experiment.experiment": ("Experiment",),
    "lab.library.agent": ("Agent", "load_frozen"),
    "lab.library.mlflow_optimizer": ("LabOptimizer",),
    "lab.library.run": ("run_study", "run_study_async"),
    "lab.library.study": ("Study", "load_study"),
    "lab.submission.frozen": ("FrozenPrompt",),
    "lab.verdict.verdict": ("Verdict",),
}
"""The public names by the module that has them."""

__all__ = sorted(name for names in _HOMES.values() for name in names)


def __getattr__(name: str) -> object:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
