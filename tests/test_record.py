"""A record keeps an episode's tally in memory, and reads its texts from the store."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.agent.candidate import Candidate
from lab.agent.episode import CutEpisode, Episode, FailedEpisode, Tally
from lab.agent.step import Step
from lab.agent.template import PromptTemplate
from lab.errors import CallError
from lab.llm.client import Completion
from lab.storage.database import Store, episodes
from lab.storage.record import Record

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
any_episode = st.builds(
    Episode, st.integers(0, 99), texts, st.lists(steps).map(tuple), began=st.none() | seconds
)


@given(any_episode)
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
    store, count = Store(tmp_path / "calls.db"), 50
    study = store.begin("test", "")
    ours = Record(store, study, "")
    for seed in range(count):
        ours.keep_episode(DIGEST, ended(seed, f"number {seed}"))
    theirs = Record(store, study, "")
    assert theirs.keep_episode(DIGEST, ended(3, "once more")) == ended(3).tally
    theirs.keep_episode(DIGEST, ended(count, f"number {count}"))
    assert ours.refresh()
    assert not ours.refresh()
    for record in (ours, theirs, Record(store, study, "")):
        assert record.ended[DIGEST, 3] == ended(3).tally
        assert record.episode(DIGEST, 3) == ended(3, "number 3")
        both = [ended(seed, f"number {seed}") for seed in (count, 0)]
        assert record.episodes_of(DIGEST, [count, 0]) == both
        assert record.episodes == count + 1
        assert "number 3" not in repr(vars(record))


def test_a_failure_is_kept_and_gives_way_to_a_later_end(tmp_path: Path) -> None:
    store = Store(tmp_path / "calls.db")
    study = store.begin("test", "")
    failed = FailedEpisode(7, CallError("gone", where="there", why="asleep", do="wake it"))
    cut = CutEpisode(8, 1.5)
    for one in (failed, cut):
        Record(store, study, "").keep_episode(DIGEST, one)
    record = Record(store, study, "")
    kept = record.ended[DIGEST, 7]
    assert isinstance(kept, FailedEpisode)
    assert str(kept.error) == str(failed.error)
    assert record.ended[DIGEST, 8] == cut
    record.keep_episode(DIGEST, ended(7))
    assert Record(store, study, "").ended[DIGEST, 7] == ended(7).tally


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1000), st.integers(0, 50)), max_size=20))
def test_the_time_of_work_is_that_in_which_anybody_worked(
    spans: list[tuple[int, int, int]],
) -> None:
    """From each worker's first episode to its last; time shared by several workers counts once."""
    store = Store(Path(":memory:"))
    study = store.begin("test", "")
    ends = dict[int, tuple[int, int]]()
    for number, (worker, began, lasted) in enumerate(spans):
        low, high = ends.get(worker, (began, began))
        ends[worker] = (min(low, began), max(high, began + lasted))
        for at in (began, began + lasted):
            row = {"study": study, "digest": f"{number}", "seed": at, "at": at, "worker": str(worker)}
            store.insert(episodes, {**row, "kind": "cut", "ending": '{"seed": 0, "bound": 0}', "episode": ""})
    worked = {second for low, high in ends.values() for second in range(low, high)}
    assert Record(store, study, "").earlier_minutes * 60 == pytest.approx(len(worked))


def test_studies_that_start_at_once_in_a_new_folder_share_one_store(tmp_path: Path) -> None:
    together = threading.Barrier(6)

    def begin(number: int) -> str:
        together.wait()
        store = Store(tmp_path / ".lab/calls.db")
        name = store.begin(f"experiment-{number}", "{}")
        store.close()
        return name

    with ThreadPoolExecutor(6) as threads:
        begun = list(threads.map(begin, range(6)))
    assert set(Store(tmp_path / ".lab/calls.db").names()) == set(begun)
