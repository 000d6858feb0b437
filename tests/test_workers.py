"""Several workers on one study, on a real PostgreSQL server."""

import asyncio
import re
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import optuna
import pytest
import sqlalchemy as sql
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.trial import TrialState

from benchmarks.machines_worker import COMPLETION, IN_FLIGHT, Sleeping, Still
from lab.agent.episode import CutEpisode, FailedEpisode
from lab.agent.evaluation import BASELINE, Evaluation, Trial
from lab.errors import CallError
from lab.experiment.budget import FREE, Budget, Calls, Spending
from lab.experiment.experiment import load_experiment
from lab.experiment.metered import Metered
from lab.llm.client import Completion
from lab.search.player import Player
from lab.storage.database import Store
from lab.storage.keys import HOLDOUT, CallKey, scope_of
from lab.storage.record import Record
from lab.storage.storage import Storage
from lab.storage.study_trials import StudyTrials
from lab.storage.trials import Trials
from lab.study.listing import listing
from lab.study.phase import Phase
from lab.study.unseen import Unseen
from lab.submission.frozen import read_frozen
from tests.fake_endpoint import Body, FakeEndpoint, Reply, fake_endpoint
from tests.postgres import Postgres, change, postgres, rows
from tests.project import TIMEOUT_S, Project
from tests.test_resume import (
    EXPERIMENT,
    UNUSED,
    a_project,
    but_for_mlflow,
    by_the_request,
    holding_after,
    settings,
)

COMMAND = ("-m", "lab.tune", "experiments/known.toml")
NOWHERE = {"API_BASE_URL": "http://127.0.0.1:9/v1", "MODEL_NAME": "fake"}
WORKERS = 4
LATE_NOTE = sql.text("insert into public.trial_user_attributes values (default, 1, 'late', '1')")
LATE_EPISODE = sql.text(
    "insert into lab.episodes values (default, :study, 'd', 1, 0, 'w', 'cut', :ending, '')"
)


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres() as running:
        yield running


@dataclass(frozen=True)
class Shared:
    """A project whose study is on a server; each worker is started in it, as if on a shared disk.

    Attributes:
        address: URL of the database.
    """

    project: Project
    endpoint: FakeEndpoint
    address: str

    def start(self, *flags: str) -> "subprocess.Popen[str]":
        environ = {**settings(self.endpoint), "LAB_STORAGE": self.address}
        return self.project.start(*COMMAND, *flags, **environ)

    def run(self, *flags: str) -> "subprocess.CompletedProcess[str]":
        return told(self.start(*flags))

    def count(self, table: str, where: str = "true") -> int:
        return int(str(rows(self.address, f"select count(*) from {table} where {where}")[0][0]))

    def wait_for_calls(self, calls: int) -> None:
        wait_until(lambda: len(self.endpoint.requests) >= calls)

    def wait_for_workers(self, table: str) -> None:
        """Wait until all of them have written to a table."""
        wait_until(lambda: len(rows(self.address, f"select distinct worker from {table}")) == WORKERS)


def wait_until(there: Callable[[], bool]) -> None:
    until_s = time.monotonic() + TIMEOUT_S
    while not there():
        assert time.monotonic() < until_s
        time.sleep(0.01)


def told(process: "subprocess.Popen[str]") -> "subprocess.CompletedProcess[str]":
    out, err = process.communicate(timeout=TIMEOUT_S)
    assert "Traceback" not in err, err
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@pytest.fixture
def shared(server: Postgres, tmp_path: Path) -> Iterator[Shared]:
    with fake_endpoint(by_the_request) as endpoint:
        yield Shared(a_project(tmp_path / "project"), endpoint, server.database())


def test_four_workers_do_one_study_though_one_is_killed(shared: Shared) -> None:
    """Nothing is played twice, the verdict's share of the budget is kept, all print the one verdict."""
    all_there = threading.Event()

    def waiting(body: Body) -> Reply:
        all_there.wait(TIMEOUT_S)
        return by_the_request(body)

    shared.endpoint.script = waiting
    processes = [shared.start("--worker") for _ in range(WORKERS)]  # at once: one makes the tables
    shared.wait_for_calls(WORKERS * 6)  # each has as many in flight as it may
    all_there.set()
    shared.wait_for_workers("lab.calls")
    processes[0].send_signal(signal.SIGKILL)
    processes[0].communicate()
    done = [told(process) for process in processes[1:]]
    assert [one.returncode for one in done] == [0, 0, 0], [one.stdout + one.stderr for one in done]
    first, *others = (but_for_mlflow(one.stdout) for one in done)
    assert others == [first, first]
    frozen = read_frozen(shared.project.folder / "prompts/best.toml")
    assert (frozen.candidate.template.name, frozen.evidence.shortfall) == ("storyteller", "")
    calls = shared.count("lab.calls")
    assert 150 < calls <= 240
    assert calls <= len(shared.endpoint.requests) <= calls + 6  # what the killed one had in flight
    assert f"Cost: {calls} calls" in done[0].stdout
    ended = rows(shared.address, "select digest, seed from lab.episodes where kind = 'ended'")
    assert len(ended) == len(set(ended)) > 30
    assert shared.count("public.study_user_attributes", "key = 'judged'") == 1
    assert shared.count("public.trial_system_attributes", "key = 'failed_trial'") > 0
    assert len(rows(shared.address, "select distinct worker from lab.calls")) == WORKERS
    assert shared.count("public.studies") == 3  # Optuna's: search, confirmation, holdout
    with closing(sqlite3.connect(shared.project.folder / "mlflow.db")) as database:
        runs = database.execute("select status from runs where name like 'known-%'").fetchall()
    assert runs == [("FINISHED",)]


def test_a_worker_that_comes_last_to_a_phase_has_the_episodes_of_the_others(
    server: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It finds them all ended, before its heartbeat has read one."""
    monkeypatch.setattr("benchmarks.machines_worker.CALL_S", 0.0)
    address = server.database()
    a_project(tmp_path / "project")
    one = load_experiment(tmp_path / "project/experiments/known.toml")
    with closing(Storage.at(address)) as first, closing(Storage.at(address)) as second:
        name = first.store.begin("known", "")
        studies = [Trials(each.optuna, "holdout") for each in (first, second)]
        records = [Record(each.store, name, "") for each in (first, second)]
        players = [Player(Sleeping(), Still(), one.task, 32, Spending(), record) for record in records]
        phases = [
            Phase(HOLDOUT, 2, one, player, record, study)
            for player, record, study in zip(players, records, studies, strict=True)
        ]
        seeds = phases[0].seeds
        failed = FailedEpisode(seeds[0], CallError("No."))
        records[0].keep_episode(one.baseline.digest, failed)
        evaluations = list[Evaluation]()
        for phase in phases:
            asyncio.run(phase.play({BASELINE: one.baseline}, lambda _: Calls()))
            evaluations.append(phase.evaluation(one.baseline))
        begun = len(studies[0].read())
    assert len(evaluations[0].episodes) == len(evaluations[1].episodes) == begun == one.verdict.episodes - 1
    assert evaluations[1].returns == evaluations[0].returns


@pytest.mark.parametrize("whole", [6, 5])
def test_no_room_is_kept_for_what_the_finalist_has_played(
    server: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: int
) -> None:
    """It plays while this worker waits for a killed one's; the budget has room for exactly the rest."""
    monkeypatch.setattr("benchmarks.machines_worker.CALL_S", 0.0)
    a_project(tmp_path / "project")
    one = load_experiment(tmp_path / "project/experiments/known.toml")
    finalist = replace(one.baseline, template=one.space.templates["storyteller"])
    with closing(Storage.at(server.database())) as storage:
        name = storage.store.begin("known", "")
        record = Record(storage.store, name, "")
        trials = StudyTrials.opened(storage.optuna, name, None, None)
        spending = Spending(Budget(calls=12 * 4))
        model, environment = Metered(Sleeping(), spending, FREE), Still(opened=IN_FLIGHT)
        player = Player(model, environment, one.task, 6, spending, record, one.baseline)
        unseen = Unseen(one, player, record, trials, lambda *_: None)
        seeds = unseen.holdout.seeds

        async def played() -> Evaluation:
            for seed in seeds[:whole]:
                await player.episode(finalist, seed)
            for seed in seeds[whole:]:  # an unfinished one
                for place in range(3):
                    await record.keep_call(
                        CallKey(scope_of(finalist.digest, seed), "", place), "", COMPLETION
                    )
                    spending.count(1, 0, 0, FREE)
            return await unseen.baseline([Trial(1, Evaluation(finalist, one.task, ()))])

        assert len(asyncio.run(played()).episodes) == len(seeds)


def test_what_a_killed_worker_left_as_the_search_ran_out_is_finished_within_the_budget(
    shared: Shared,
) -> None:
    with holding_after(shared.endpoint, 170) as reached:
        process = shared.start()
        assert reached.wait(TIMEOUT_S)
        wait_until(lambda: shared.count("lab.calls") == 170)  # no whole number of episodes of four
        process.send_signal(signal.SIGKILL)
        process.communicate()
    unused = UNUSED.replace("seed from episodes", "seed from lab.episodes")
    assert shared.count("lab.calls", unused) > 0
    done = shared.run()
    assert done.returncode == 0, done.stderr
    assert shared.count("lab.calls", unused) == 0
    assert 240 - 4 < shared.count("lab.calls") <= 240


def test_what_a_worker_leaves_to_another_one_is_finished(shared: Shared) -> None:
    """Of its rungs, of which some episodes have calls on record, and others have not."""
    longer = ("= 240", "= 600"), ("\nepisodes = 4", "\nepisodes = 8"), ("max_steps = 4", "max_steps = 12")
    text = EXPERIMENT.replace("max_return = 120.0", "max_return = 360.0")
    for before, now in longer:
        text = text.replace(before, now)
    shared.project.write("experiments/known.toml", text)
    with holding_after(shared.endpoint, 280) as reached:
        leaver, other = shared.start("--worker"), shared.start("--worker")
        assert reached.wait(TIMEOUT_S)
        leaver.send_signal(signal.SIGKILL)
        leaver.communicate()
    done = told(other)
    assert done.returncode == 0, done.stderr
    assert shared.count("lab.calls", UNUSED.replace("seed from episodes", "seed from lab.episodes")) == 0


def test_a_wider_space_is_searched_though_a_worker_was_killed(shared: Shared) -> None:
    """Nobody's heartbeat is missed on a copied trial, so it must not be taken for one that plays."""
    with holding_after(shared.endpoint, 60) as reached:
        process = shared.start("--worker")
        assert reached.wait(TIMEOUT_S)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    wider = EXPERIMENT.replace('"storyteller", "lecturer"]', '"storyteller", "lecturer", "manual"]')
    shared.project.write("experiments/known.toml", wider)
    done = shared.run("--worker")
    assert done.returncode == 0, done.stderr
    assert shared.count("public.trials", "state in ('RUNNING', 'WAITING')") == 0


def test_a_study_prints_its_result_again_from_any_machine(shared: Shared) -> None:
    done = shared.run()
    assert done.returncode == 0, done.stderr
    asked = len(shared.endpoint.requests)
    for flags in ((), ("--worker",), ("--replay",)):
        again = shared.run(*flags)
        assert again.returncode == 0, again.stderr
        assert but_for_mlflow(again.stdout) == but_for_mlflow(done.stdout)
    assert len(shared.endpoint.requests) == asked


def test_workers_continue_a_finished_study_whose_limit_is_raised(shared: Shared) -> None:
    assert shared.run().returncode == 0
    shared.project.write("experiments/known.toml", EXPERIMENT.replace("calls = 240", "calls = 480"))
    done = [told(process) for process in [shared.start("--worker") for _ in range(2)]]
    assert [one.returncode for one in done] == [0, 0], [one.stdout + one.stderr for one in done]
    assert but_for_mlflow(done[0].stdout) == but_for_mlflow(done[1].stdout)
    assert "verdict 2 of the study" in done[0].stdout
    assert shared.count("lab.studies") == 1
    assert 480 - 72 < shared.count("lab.calls") <= 480
    assert shared.count("public.study_user_attributes", "key = 'judged'") == 1


def test_a_change_for_which_trials_are_copied_waits_for_the_workers(shared: Shared) -> None:
    with holding_after(shared.endpoint, 20) as reached:
        first = shared.start("--worker")
        assert reached.wait(TIMEOUT_S)
        wider = EXPERIMENT.replace('"storyteller", "lecturer"]', '"storyteller", "lecturer", "manual"]')
        shared.project.write("experiments/known.toml", wider)
        refused = shared.run("--worker")
    done = told(first)
    assert refused.returncode == 2
    assert "The experiment has changed, and workers are working on its study." in refused.stderr
    assert done.returncode == 0, done.stderr


def test_a_trial_whose_worker_died_as_it_began_is_played_by_another(shared: Shared) -> None:
    first = shared.start("--worker")
    shared.wait_for_calls(60)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    newest = "select trial_id, number from public.trials where state = 'RUNNING' order by 1 desc"
    trial, number = rows(shared.address, newest)[0]
    # It was stored, and the worker had neither sent its first heartbeat nor begun an episode.
    change(
        shared.address,
        f"delete from public.trial_heartbeats where trial_id = {trial}",
        f"delete from public.trial_intermediate_values where trial_id = {trial}",
        f"delete from public.trial_user_attributes where trial_id = {trial} and key = 'begun'",
    )
    done = shared.run("--worker")
    assert done.returncode == 0, done.stderr
    assert rows(shared.address, f"select state from public.trials where trial_id = {trial}") == [("FAIL",)]
    handed_on = f"key = 'failed_trial' and value_json = '{number}'"
    assert shared.count("public.trial_system_attributes", handed_on) == 1


def test_a_worker_that_leaves_leaves_its_work_to_the_others(shared: Shared) -> None:
    with holding_after(shared.endpoint, 20) as reached:
        first = shared.start("--worker")
        assert reached.wait(TIMEOUT_S)
        refused = shared.run()
        first.send_signal(signal.SIGINT)
        left = told(first)
    done = shared.run("--worker")
    assert refused.returncode == 2
    assert "Another process is working on this experiment's study." in refused.stderr
    assert "use --worker to join it" in refused.stderr
    assert left.returncode == 130
    assert done.returncode == 0, done.stderr
    assert len(shared.endpoint.requests) <= shared.count("lab.calls") + 6


def test_a_database_of_an_earlier_version_is_migrated_by_the_first_worker(server: Postgres) -> None:
    """Its calls are read as before, and new ones with thinking and a model are stored."""
    address = server.database()
    key, old = CallKey("scope", "k", 0), Completion("text", "stop", 1, 2, 0.5)
    with closing(Store(address)) as store:
        record = Record(store, store.begin("known", ""), "")
        asyncio.run(record.keep_call(key, "{}", old))
        empty = CallError("The answer is empty.")
        empty.answered = (3, 4)
        record.keep_failure(empty)
    columns = ("calls drop thinking", "calls drop thinking_tokens", "calls drop estimated")
    models = ("calls drop model", "unusable drop model")
    change(address, *(f"alter table lab.{one}" for one in (*columns, *models)))
    with closing(Store(address)) as first, closing(Store(address)):  # the second finds them there
        record = Record(first, record.name, "")
        assert record.calls_of("scope") == {key: old}
        new = replace(old, thinking="Hm.", thinking_tokens=1, estimated=True)
        asyncio.run(record.keep_call(CallKey("scope", "k", 1), "{}", new, "small"))
        assert record.calls_of("scope")[CallKey("scope", "k", 1)] == new
        spent = [
            record.spent_elsewhere(FREE, proposals=False, model=name, everywhere=True)
            for name in ("", "small")
        ]
    assert [(one.calls, one.tokens, one.useless, one.estimated) for one in spent] == [
        (2, 10, 1, 0),
        (1, 3, 0, 1),
    ]


def test_a_call_that_two_workers_made_costs_both_and_all_know(server: Postgres) -> None:
    """As after a worker that only seemed dead: its answer comes when another's is on record."""
    with closing(Store(server.database())) as store:
        name = store.begin("known", "")
        records = [Record(store, name, "") for _ in range(3)]
        key = CallKey("scope", "k", 0)
        for record, tokens in zip(records, (1, 10), strict=False):
            asyncio.run(record.keep_call(key, "{}", Completion("text", "stop", tokens, tokens, 0.5)))
        spent = [
            record.spent_elsewhere(FREE, proposals=False, everywhere=record is not records[2])
            for record in records
        ]
        assert records[2].calls_of("scope")[key].prompt_tokens == 1
    assert [(one.calls, one.tokens) for one in spent] == [(2, 22)] * 3


def test_a_worker_reads_what_others_change_though_a_transaction_ends_late(server: Postgres) -> None:
    """Its trials are those that Optuna reads afresh, and it misses no episode that was numbered earlier."""
    address = server.database()
    space: dict[str, BaseDistribution] = {"x": FloatDistribution(0, 1)}
    engine = sql.create_engine(sql.make_url(address).set(drivername="postgresql+psycopg"))
    with closing(Storage.at(address)) as first, closing(Storage.at(address)) as second:
        mine, others = (Trials(one.optuna, "study") for one in (first, second))
        afresh = optuna.storages.RDBStorage(first.store.trials_url)
        name = first.store.begin("known", "")
        record, other = Record(first.store, name, ""), Record(second.store, name, "")
        trial = others.ask(space)
        with engine.connect() as late:
            late.execute(LATE_NOTE)
            late.execute(LATE_EPISODE, {"study": name, "ending": '{"seed": 1, "bound": 1.0}'})
            changes = (
                lambda: others.report(trial, 0.5, 0),
                lambda: others.note(trial, "begun", 1),
                lambda: others.note(trial, "begun", 2),
                lambda: others.enqueue({"x": 0.5}, digest="d"),
                lambda: others.claim(others.known[1]),
                lambda: other.keep_episode("d", CutEpisode(2, 1.0)),
                late.commit,
                lambda: others.tell(trial, TrialState.COMPLETE, 0.5),
            )
            new = list[bool]()
            for change_it in changes:
                change_it()
                assert mine.read() == afresh.get_all_trials(others.study._study_id)
                new.append(record.refresh())
        engine.dispose()
    assert new == [False] * 5 + [True] * 2 + [False]
    assert mine.known[0].user_attrs == {"begun": 2, "late": 1}
    assert set(record.ended) == {("d", 1), ("d", 2)}


def test_a_study_is_listed_as_at_work_while_a_worker_is(server: Postgres) -> None:
    address = server.database()
    with closing(Storage.at(address)) as storage:
        name = storage.store.begin("known", "")
        states = [listing(storage)[0].state]
        with closing(Store(address)) as worker:
            assert worker.lead(name)
            states.append(listing(storage)[0].state)
        states += [listing(storage)[0].state for _ in range(2)]
    assert states == ["unfinished", "searching", "unfinished", "unfinished"]


@pytest.mark.parametrize(
    ("flags", "storage", "code", "said"),
    [
        (("--worker",), "", 2, "use --storage postgresql://"),
        (("--worker", "--fresh"), "postgresql://u:canary@127.0.0.1/none", 2, "leave out --fresh"),
        ((), "mysql://u:canary@127.0.0.1/none", 2, "install the package that this database needs"),
        ((), "mysql+pymysql://u:canary@127.0.0.1:9/none", 1, "check that it runs and accepts this user"),
        ((), "none://u:canary@127.0.0.1/none", 2, "use postgresql://"),
        ((), "not an address canary", 2, "use postgresql://"),
        (("--worker",), "sqlite:///canary.db", 2, "--worker requires --storage postgresql://"),
        ((), "postgresql://u:canary@127.0.0.1:9/none", 1, "The study's record cannot be read or written."),
    ],
)
def test_an_unusable_storage_is_an_error_that_says_what_to_do(
    tmp_path: Path, flags: tuple[str, ...], storage: str, code: int, said: str
) -> None:
    project = a_project(tmp_path / "project")
    done = project.run(*COMMAND, *flags, LAB_STORAGE=storage, **NOWHERE)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert not re.search("canary|Traceback", done.stdout + done.stderr)
