"""An upgrade interrupts nobody: the former release's statements hold before, during and after the migration.

`statements_of_0014.sql` is what serving of that revision sends. When a release is made, its statements are added as
another file, and the oldest one goes once no installation can be upgraded from it directly any more.
"""

import re
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from infra.db.migrate import HEAD, MIGRATIONS, current, downgrade, upgrade
from infra.db.postgres import connect
from infra.endpoints import Endpoints
from tests.conftest import with_own_database
from tests.serving_world import insert_people, interact
from tests.waiting import until

FORMER = "0014"
FILE = Path(__file__).with_name(f"statements_of_{FORMER}.sql")
NOW = datetime(2026, 6, 1, tzinfo=UTC)
WORKER = uuid4()
DESTRUCTIVE = re.compile(
    r"drop table|drop column|drop schema|rename (?:to|column)|alter column \S+ (?:set data )?type|set not null",
    re.IGNORECASE,
)
EXPAND_FROM = "0015"
"""From this revision on, an upgrade only adds: what the former release uses stays until the release after next."""


def parameters() -> dict[str, list[Any]]:
    """Return what each statement is sent with, of people 1 to 20."""
    some = [2, 4, 6]
    one = [uuid4()]
    return {
        "requesters": [[1, 2], None],
        "requesters_without_pending_likes": [[1], NOW],
        "standings": [[1], [1], [3], some, None],
        "standings_with_interests": [[1], [1], [3], some, NOW, ["jazz"]],
        "profiles": [some],
        "some_visible": [0.4, 5],
        "names": [some],
        "by_name": [["anna"]],
        "matches": [1, datetime.max.replace(tzinfo=UTC), 2**62, 10],
        "likes": [1, datetime.max.replace(tzinfo=UTC), 2**62, 10],
        "store_interaction": [uuid4(), 1, 2, "like", None, None, "5s"],
        "store_interactions": [f'[{{"event_id": "{uuid4()}", "actor_id": 3, "target_id": 4, "kind": "pass"}}]', "5s"],
        "store_people": ['[{"user_id": 5, "bio": "hello"}]', False, True],
        "read_person": [5],
        "insert_impressions": [
            *(one, [1], [2], [0], [0.5], [1.0], ["retrieval"], ["e1-i1-r1"], ["champion"], [1], [NOW]),
        ],
        "insert_answers": [
            *(one, [1], [None], ["champion"], ["champion"], ["e1-i1-r1"], [1], [None]),
            *([5], [4.0], [False], [False], [NOW]),
        ],
        "heartbeat": [WORKER, "host", 1, "e1-i1-r1", None, None, None, None, []],
    }


def statements() -> dict[str, str]:
    blocks = re.split(r"^-- name: (\w+)\n", FILE.read_text(), flags=re.MULTILINE)[1:]
    return dict(zip(blocks[::2], blocks[1::2], strict=True))


class FormerRelease(threading.Thread):
    """Serving of the former release: sends all of its statements, over and over, as its pool would."""

    def __init__(self, database_url: str) -> None:
        super().__init__(daemon=True)
        self.rounds = 0
        self.failed: Counter[str] = Counter()
        self.ending = threading.Event()
        self._url = database_url

    def run(self) -> None:
        # As the pool of serving: each prepared at once, and given up after its time.
        with connect(self._url, autocommit=True, statement_timeout_s=10) as connection:
            connection.prepare_threshold = 0
            cursor = psycopg.RawCursor(connection)
            while not self.ending.is_set():
                for name, values in parameters().items():
                    try:
                        cursor.execute(STATEMENTS[name].encode(), values)
                    except psycopg.Error as error:
                        self.failed[f"{name}: {error.diag.message_primary or error}"] += 1
                self.rounds += 1


STATEMENTS = statements()


@pytest.fixture
def former(endpoints: Endpoints) -> Iterator[tuple[str, FormerRelease]]:
    """A database of the former revision with twenty people, and its release at work."""
    url = with_own_database(endpoints, "duet_upgraded").database_url
    downgrade(url, FORMER)
    with connect(url) as connection:
        insert_people(connection, 20)
        interact(connection, 2, [1, 3])
    serving = FormerRelease(url)
    serving.start()
    yield url, serving
    serving.ending.set()
    serving.join(30)


def test_the_former_release_gets_no_error_before_during_and_after_the_migration(
    former: tuple[str, FormerRelease],
) -> None:
    url, serving = former
    until(lambda: serving.rounds >= 2)
    upgrade(url)
    migrated = serving.rounds
    assert current(url) == HEAD
    until(lambda: serving.rounds >= migrated + 3)
    assert not serving.failed, serving.failed
    with connect(url) as connection:
        stored = connection.execute("select count(*) from duet.interactions where actor_id = 1").fetchall()[0][0]
    assert stored >= migrated + 3, "each round stored a like"


def test_every_statement_has_its_parameters() -> None:
    assert STATEMENTS.keys() == parameters().keys()


def test_revisions_since_then_only_add() -> None:
    for path in sorted((MIGRATIONS / "versions").glob("r[0-9]*.py")):
        if path.name[1:5] >= EXPAND_FROM:
            forward = re.split(r"^(?:DROPS|def downgrade)", path.read_text(), flags=re.MULTILINE)[0]
            found = DESTRUCTIVE.findall(forward)
            assert not found, f"{path.name}: {found} waits for a release in which nobody uses it any more"
