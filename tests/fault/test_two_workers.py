"""A block, a hidden or a deleted profile is felt by everybody on every worker; an interaction by whoever did it."""

from collections.abc import Iterator
from uuid import uuid4

import httpx
import psycopg
import pytest

from infra.db.postgres import connect
from infra.endpoints import Endpoints
from tests.fault.crowd import Crowd
from tests.fault.stage import ASKERS, WRITERS, Stage, staged

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def stage(endpoints: Endpoints, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    root = tmp_path_factory.mktemp("workers")
    kept = {"SERVING__CACHE__ENABLED": "true", "SERVING__CACHE__REDIS": "true"}
    with staged(endpoints, root, SERVING__WORKERS="2", SERVING__SNAPSHOT_REFRESH_S="30", **kept) as stage:
        assert len(stage.service.workers()) == 2
        yield stage


@pytest.fixture
def database(stage: Stage) -> Iterator[psycopg.Connection[tuple[int]]]:
    with connect(stage.endpoints.database_url, autocommit=True) as connection:
        yield connection


def pair(stage: Stage, turn: int) -> tuple[int, int, list[int]]:
    """Return somebody, one whom they are shown, and everybody who is shown that one."""
    asks = ASKERS[turn * 24]
    shown = min(stage.rules.everybody(asks))
    return asks, shown, [user_id for user_id in ASKERS if stage.rules.eligible(user_id, shown)]


def never_again(stage: Stage, who: list[int], gone: int) -> None:
    """Ask for everybody of `who` over many connections, so on every worker, and look for `gone`."""
    with Crowd(stage.service.port, who, askers=8, pause_s=0.0) as crowd:
        crowd.watch(1.5, at_least=8 * len(who))
    assert all(answer.status == 200 for answer in crowd.answers)
    assert not [answer for answer in crowd.answers if gone in answer.people], f"{gone} was shown by a next answer"


def warm(stage: Stage, who: list[int], shown: int) -> None:
    """Have every worker answer everybody of `who`, so that what is kept is kept."""
    with Crowd(stage.service.port, who, askers=8, pause_s=0.0) as crowd:
        crowd.watch(0.5, at_least=6 * len(who))
    assert all(shown in answer.people for answer in crowd.answers if answer.level == 1)


def test_a_hidden_profile_is_gone_from_everybodys_next_answer_on_all_workers(
    stage: Stage, database: psycopg.Connection[tuple[int]]
) -> None:
    _, shown, who = pair(stage, 0)
    warm(stage, who, shown)
    database.execute("update duet.users set visible = false where user_id = %s", (shown,))
    never_again(stage, who, shown)


def test_a_deleted_profile_is_gone_from_everybodys_next_answer_on_all_workers(
    stage: Stage, database: psycopg.Connection[tuple[int]]
) -> None:
    _, shown, who = pair(stage, 1)
    warm(stage, who, shown)
    with database.transaction():
        database.execute("delete from duet.interactions where %s in (actor_id, target_id)", (shown,))
        database.execute("delete from duet.users where user_id = %s", (shown,))
    never_again(stage, who, shown)


def test_a_block_is_felt_by_both_in_their_next_answers_on_all_workers(stage: Stage) -> None:
    asks, shown, _ = pair(stage, 2)
    warm(stage, [asks], shown)
    assert post(stage, shown, asks, "block") == 201
    never_again(stage, [asks], shown)
    never_again(stage, [shown], asks)


def test_changed_preferences_are_felt_by_everybodys_next_answer_on_all_workers(
    stage: Stage, database: psycopg.Connection[tuple[int]]
) -> None:
    _, shown, who = pair(stage, 3)
    warm(stage, who, shown)
    database.execute("update duet.users set seeking = '{nobody}' where user_id = %s", (shown,))
    never_again(stage, who, shown)


@pytest.mark.parametrize("kind", ["pass", "like"])
def test_an_interaction_is_felt_by_the_next_answer_of_that_person_on_every_worker(stage: Stage, kind: str) -> None:
    for actor in WRITERS[: 6 if kind == "pass" else 12][-6:]:
        target = min(stage.rules.everybody(actor))
        warm(stage, [actor], target)
        assert post(stage, actor, target, kind) == 201
        with Crowd(stage.service.port, [actor], askers=6, pause_s=0.0) as crowd:
            crowd.watch(0.1, at_least=12)
        assert not [answer for answer in crowd.answers if target in answer.people]


def post(stage: Stage, actor: int, target: int, kind: str) -> int:
    body = {"event_id": str(uuid4()), "actor_id": actor, "target_id": target, "kind": kind}
    with httpx.Client(trust_env=False, timeout=20) as client:
        return client.post(f"{stage.service.url}/v1/interactions", json=body).status_code
