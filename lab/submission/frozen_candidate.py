"""The table [candidate] of a frozen file, with every mistake in it.

The file is read before START is printed, so only the standard library is used.
"""

from dataclasses import fields

from lab.agent.candidate import Candidate, ContextSettings, Demonstration
from lab.agent.template import PromptTemplate
from lab.errors import ConfigError
from lab.llm.sampling import SamplingParams
from lab.submission.records import Records

_RIGHT = Candidate(PromptTemplate("name", "system", "turn"))
"""Settings on which others are tried."""


def read_candidate(table: object, records: Records) -> Candidate | None:
    """The candidate of its table; None if it has mistakes, which `records` notes."""
    if not isinstance(table, dict):
        return records.read(Candidate, table, "candidate")
    own = Records()  # a name that is unknown here explains no missing table elsewhere
    own.check_names(table, [one.name for one in fields(Candidate)], "candidate.")
    own.read(PromptTemplate, table.get("template"), "candidate.template", _RIGHT.template)
    own.read(SamplingParams, table.get("sampling"), "candidate.sampling", _RIGHT.sampling)
    own.read(ContextSettings, table.get("context"), "candidate.context", _RIGHT.context)
    shown, model = table.get("demonstrations", ()), table.get("model", "")
    own.made(lambda: [Demonstration.from_table(one) for one in shown], "candidate.demonstrations")
    if not isinstance(model, str):
        what = f"model is {model!r}, but must be of type str."
        own.found.append(ConfigError(what, where="candidate.model"))
    records.found += own.found
    return None if own.found else records.made(lambda: Candidate.from_table(table), "candidate")
