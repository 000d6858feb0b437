"""What a record keeps of an episode in memory, and what it reads again in its store."""

from dataclasses import fields
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from lab.agent.candidate import Candidate
from lab.agent.episode import Episode, Tally
from lab.agent.step import Step
from lab.agent.template import PromptTemplate
from lab.llm.client import Completion
from lab.storage.database import Store
from lab.storage.journal import Begun, Ended, Over
from lab.storage.record import PAGE, Record

CANDIDATE = Candidate(PromptTemplate("plain", "Speak.", "{observation}"))
DIGEST = CANDIDATE.digest

numbers = st.floats(-1e6, 1e6)
seconds = st.floats(0, 100)
tokens = st.integers(0, 10_000)
texts = st.text(st.characters(codec="utf-8"))
completions = st.builds(Completion, texts, st.just("stop"), tokens, tokens, seconds)
steps = st.builds(
    Step,
    st.just(1),
    texts,
    texts,
    numbers,
    st.booleans(),
    completion=st.none() | completions,
    environment_s=st.none() | seconds,
)
episodes = st.builds(
    Episode, st.integers(0, 99), texts, st.lists(steps).map(tuple), began=st.none() | seconds
)


@given(episodes)
def test_a_tally_counts_what_the_episode_counts(episode: Episode) -> None:
    tally = episode.tally
    for name in (*(field.name for field in fields(Tally) if field.name != "times"), "troubles"):
        assert getattr(tally, name) == getattr(episode, name), name
    assert tally.episode_return == episode.episode_return


def ended(seed: int, text: str = "words") -> Episode:
    answer = Completion(text, "stop", 10, 5, 0.2)
    return Episode(seed, "Ready.", (Step(1, text, text, 1.5, True, None, answer),))


def test_texts_are_in_the_store_and_not_in_memory_and_the_first_end_of_an_episode_counts(
    tmp_path: Path,
) -> None:
    store = Store(tmp_path / "calls.db")
    study = store.begin("test", "")
    ours, count = Record(store, study, ""), PAGE + 7
    ours.append(Begun(CANDIDATE, 0, count))
    for seed in range(count):
        ours.append(Ended(DIGEST, ended(seed, f"number {seed}")))
    theirs = Record(store, study, "")
    theirs.append(Ended(DIGEST, ended(3, "once more")))
    ours.read()
    for record in (ours, theirs, Record(store, study, "")):
        assert record.ended[DIGEST, 3] == ended(3).tally
        assert record.episode(DIGEST, 3) == ended(3, "number 3")
        both = [ended(seed, f"number {seed}") for seed in (count - 1, 0)]
        assert record.episodes_of(DIGEST, [count - 1, 0]) == both
        assert record.episodes == count
        assert record.events[-1] == Over(DIGEST, 3)
        assert "number 3" not in repr(vars(record))
