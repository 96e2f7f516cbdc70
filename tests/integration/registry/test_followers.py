"""`duet promote` and `duet rollback` end when the workers serve the release, or name those that do not and why."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from infra.endpoints import Endpoints
from registry.contracts import PRODUCTION, STAGING, ArtifactKind, mark_of
from registry.experiments.table import By, ExperimentState, start_experiment, stop_experiment
from registry.promotion import followers
from registry.promotion.followers import PROMOTION_S, refusals, wait_until_challenging, wait_until_served
from registry.promotion.release_cache import ReleaseCache
from registry.promotion.workers import REPORT, Worker, live_workers
from serving.releases.heartbeat import Heartbeat
from tests.fakes import MemoryRegistry
from tests.follower import follower
from tests.releases import register_release
from tests.serving_world import write_artifacts


class Watch:
    """A clock that only sleeping moves, and what happens during each sleep."""

    def __init__(self, during: Callable[[int], None]) -> None:
        self.now_s = 0.0
        self.slept = 0
        self._during = during

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        self.slept += 1
        self._during(self.slept)


def worker(
    connection: psycopg.Connection[Any],
    pid: int,
    release: str | None,
    refused: str | None = None,
    *,
    challenger: str | None = None,
    challenger_refused: str | None = None,
    mark: str | None = None,
    challenger_mark: str | None = None,
) -> None:
    connection.execute("delete from duet.serving_workers where pid = %s", (pid,))
    connection.execute(
        "insert into duet.serving_workers"
        " (worker_id, host, pid, release, refused, challenger, challenger_refused, mark, challenger_mark)"
        " values (gen_random_uuid(), 'ghent', %s, %s, %s, %s, %s, %s, %s)",
        (pid, release, refused, challenger, challenger_refused, mark, challenger_mark),
    )


def waited(
    connection: psycopg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    during: Callable[[int], None],
    *,
    stage: str = PRODUCTION,
    mark: str | None = None,
) -> tuple[str, Watch]:
    watch = Watch(during)
    with monkeypatch.context() as patch:
        patch.setenv("COLUMNS", "250")
        patch.setattr(followers, "time", watch)
        before = refusals(connection, stage)
        if stage == STAGING:
            wait_until_challenging(connection, "e2-i2-r2", before, mark=mark)
        else:
            wait_until_served(connection, "e2-i2-r2", PROMOTION_S, before, mark=mark)
    captured = capsys.readouterr()
    return captured.out + captured.err, watch


def test_the_wait_ends_when_the_last_worker_serves_the_release(
    connection: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    worker(connection, 1, "e1-i1-r1")
    worker(connection, 2, None)

    def during(n: int) -> None:
        if n in {3, 90}:
            worker(connection, {3: 1, 90: 2}[n], "e2-i2-r2")

    said, watch = waited(connection, monkeypatch, capsys, during)
    assert "served by 2 of 2 workers after 18.0 s" in said
    assert watch.slept == 90


def test_workers_that_do_not_follow_are_named_with_their_reason_when_the_time_is_up(
    connection: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    worker(connection, 1, "e2-i2-r2")
    worker(connection, 2, "e1-i1-r1", "refused for long")
    said, watch = waited(connection, monkeypatch, capsys, lambda _: None)
    assert "served by 1 of 2 workers" in said
    assert "ghent:2 still serves e1-i1-r1: refused for long" in said
    assert "ghent:1" not in said
    assert PROMOTION_S <= watch.now_s < PROMOTION_S + 1


def test_a_refusal_that_stays_ends_the_wait_and_one_that_passes_does_not(
    connection: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    worker(connection, 1, "e1-i1-r1")

    def during(n: int) -> None:
        changes = {1: "half moved", 10: None, 20: "The model ends its reader."}
        if n in changes:
            worker(connection, 1, "e1-i1-r1", changes[n])

    said, watch = waited(connection, monkeypatch, capsys, during)
    assert "ghent:1 still serves e1-i1-r1: The model ends its reader." in said
    assert 4 + followers._REFUSED_S <= watch.now_s < 10


def test_a_worker_with_other_bytes_of_the_same_numbers_is_late(
    connection: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    worker(connection, 1, "e2-i2-r2", mark="aaaaaaaaaaaa")
    worker(connection, 2, "e2-i2-r2", mark="bbbbbbbbbbbb")

    def during(n: int) -> None:
        if n == 5:
            worker(connection, 2, "e2-i2-r2", mark="aaaaaaaaaaaa")

    said, watch = waited(connection, monkeypatch, capsys, during, mark="aaaaaaaaaaaa")
    assert "served by 2 of 2 workers after 1.0 s" in said
    assert watch.slept == 5


def test_a_worker_that_stays_with_other_bytes_is_named_with_their_mark(
    connection: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    worker(connection, 1, "e2-i2-r2", mark="bbbbbbbbbbbb")
    said, _ = waited(connection, monkeypatch, capsys, lambda _: None, mark="aaaaaaaaaaaa")
    assert "served by 0 of 1 workers" in said
    assert "ghent:1 still serves e2-i2-r2@bbbbbbbbbbbb: no reason said" in said


def test_a_challenger_of_other_bytes_is_late(
    connection: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    start_experiment(connection, "taste", share=0.5, state=ExperimentState.RUNNING, by=By("ada"))
    worker(connection, 1, "e1-i1-r1", challenger="e2-i2-r2", mark="aaaaaaaaaaaa", challenger_mark="bbbbbbbbbbbb")
    said, _ = waited(connection, monkeypatch, capsys, lambda _: None, stage=STAGING, mark="aaaaaaaaaaaa")
    assert "ghent:1 still serves e2-i2-r2@bbbbbbbbbbbb as challenger" in said


@pytest.mark.parametrize(("told", "wanted"), [(None, "aaaaaaaaaaaa"), ("aaaaaaaaaaaa", None)])
def test_where_a_worker_or_the_audit_knows_no_mark_the_numbers_decide(
    connection: psycopg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    told: str | None,
    wanted: str | None,
) -> None:
    worker(connection, 1, "e2-i2-r2", mark=told)
    said, watch = waited(connection, monkeypatch, capsys, lambda _: None, mark=wanted)
    assert "served by 1 of 1 workers" in said
    assert watch.slept == 0


def test_a_worker_tells_the_mark_of_the_bytes_that_it_serves(
    connection: psycopg.Connection[Any], endpoints: Endpoints, tmp_path: Path
) -> None:
    registry = MemoryRegistry()
    versions = register_release(registry, write_artifacts(tmp_path / "a", range(1, 21)))
    for kind in ArtifactKind:
        registry.transition_stage(kind, versions[kind], PRODUCTION)
    told: list[Worker] = []

    async def story() -> None:
        said = asyncio.Event()

        async def write(statement: sql.SQL, values: Any) -> None:
            connection.execute(statement, values)
            if statement is REPORT:
                told.extend(live_workers(connection))
                said.set()

        with follower(tmp_path, registry, endpoints.database_url, prove=False) as watcher:
            await watcher.step()
            task = asyncio.create_task(Heartbeat(watcher, ReleaseCache(tmp_path / "releases"), write).run())
            await asyncio.wait_for(said.wait(), 60)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(story())
    mark = mark_of(registry.identify_stage(PRODUCTION).digests)
    assert [(one.release, one.mark, one.challenger_mark) for one in told] == [("e1-i1-r1", mark, None)]


def test_without_a_worker_there_is_nobody_to_wait_for(
    connection: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said, watch = waited(connection, monkeypatch, capsys, lambda _: None)
    assert "no serving worker has reported" in said
    assert watch.slept == 0


@pytest.mark.parametrize("state", [ExperimentState.RUNNING, ExperimentState.SHADOW])
def test_a_challenger_of_an_active_experiment_is_waited_for_like_a_champion(
    connection: psycopg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    state: ExperimentState,
) -> None:
    start_experiment(connection, "taste", share=0.5, state=state, by=By("ada"))
    worker(connection, 1, "e2-i2-r2", challenger="e2-i2-r2")  # its champion does not count
    worker(connection, 2, "e2-i2-r2")

    def during(n: int) -> None:
        if n == 5:
            worker(connection, 2, "e1-i1-r1", challenger="e2-i2-r2")

    said, watch = waited(connection, monkeypatch, capsys, during, stage=STAGING)
    assert "served by 2 of 2 workers as challenger after 1.0 s" in said
    assert watch.slept == 5


def test_a_challenger_that_the_workers_refuse_is_named_with_their_reason(
    connection: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    start_experiment(connection, "taste", share=0.5, state=ExperimentState.RUNNING, by=By("ada"))
    worker(connection, 1, "e1-i1-r1", "about the champion")

    def during(n: int) -> None:
        if n == 1:
            worker(connection, 1, "e1-i1-r1", challenger_refused="The model ends its reader.")

    said, watch = waited(connection, monkeypatch, capsys, during, stage=STAGING)
    assert "served by 0 of 1 workers as challenger" in said
    assert "ghent:1 still serves no release as challenger: The model ends its reader." in said
    assert watch.now_s < 10


def test_a_challenger_without_an_active_experiment_is_said_to_be_staged_and_not_waited_for(
    connection: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    start_experiment(connection, "taste", share=0.5, state=ExperimentState.RUNNING, by=By("ada"))
    stop_experiment(connection, "taste", by=By("ada"))
    worker(connection, 1, "e1-i1-r1")
    said, watch = waited(connection, monkeypatch, capsys, lambda _: None, stage=STAGING)
    assert "e2-i2-r2 is staged, and served once an experiment starts: run `duet experiment start NAME`" in said
    assert "served by" not in said
    assert watch.slept == 0
