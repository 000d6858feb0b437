"""prompt-lab: tunes an LLM agent's prompt and sampling for episode reward, and proves the gain.

The names below are the public API; `docs/library.md` describes them. Each is imported when it is first used,
so `import lab` is light. The commands are modules beside them: `python -m lab.tune`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lab.agent.candidate import Candidate
    from lab.agent.episode import Episode
    from lab.agent.evaluation import Trial
    from lab.agent.step import Step
    from lab.agent.template import PromptTemplate
    from lab.errors import LabError
    from lab.experiment.experiment import Experiment
    from lab.library.agent import Agent, load_frozen
    from lab.library.mlflow_optimizer import LabOptimizer
    from lab.library.run import run_study, run_study_async
    from lab.library.study import Study, load_study
    from lab.submission.frozen import FrozenPrompt
    from lab.verdict.verdict import Verdict

__all__ = [
    "Agent",
    "Candidate",
    "Episode",
    "Experiment",
    "FrozenPrompt",
    "LabError",
    "LabOptimizer",
    "PromptTemplate",
    "Step",
    "Study",
    "Trial",
    "Verdict",
    "load_frozen",
    "load_study",
    "run_study",
    "run_study_async",
]

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


def __getattr__(name: str) -> object:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
