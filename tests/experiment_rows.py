"""Rows of answers, showings and likes as serving would have written them, for tests of the read-out and the guard."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg

from serving.logs.impressions import Answered, Impression

RELEASE, NEXT = "e1-i1-r1", "e2-i2-r2"
TARGETS = 100_000
"""People from this id on are shown, those below it ask."""


@dataclass
class Diary:
    """Collects what happened and writes it; every request has an id of its own."""

    connection: psycopg.Connection[Any]
    answers: list[Answered] = field(default_factory=list)
    impressions: list[Impression] = field(default_factory=list)
    likes: list[tuple[int, int, datetime]] = field(default_factory=list)
    ended: list[tuple[int, int, datetime, str]] = field(default_factory=list)
    """Passes, blocks and reports: actor, target, when, kind."""

    def answer(
        self,
        user_id: int,
        at: datetime,
        *,
        arm: str = "champion",
        experiment: str | None = "taste",
        shown: Sequence[int] = (),
        liked: Sequence[int] = (),
        liked_back: Sequence[int] = (),
        after: timedelta = timedelta(seconds=20),
        **changes: Any,
    ) -> Answered:
        """Note an answer that showed people, whom of them the requester liked `after` it, and who liked back."""
        row = Answered(
            request_id=UUID(int=len(self.answers) + 1),
            user_id=user_id,
            experiment=experiment,
            arm=arm,
            variant=arm,
            release=NEXT if arm == "challenger" else RELEASE,
            level=1,
            reason=None,
            shown=len(shown),
            took_ms=10.0,
            cached=False,
            failed=False,
            answered_at=at,
        )._replace(**changes)
        self.answers.append(row)
        self.impressions += [
            Impression(row.request_id, user_id, target, place, 0.5, 1.0, "retrieval", row.release, row.variant, 1, at)
            for place, target in enumerate(shown, 1)
        ]
        self.likes += [(user_id, target, at + after) for target in liked]
        self.likes += [(target, user_id, at + after) for target in liked_back]
        return row

    def write(self) -> None:
        """Store everything that was noted, and the people it is about."""
        people = {row.user_id for row in self.answers} | {row.target_id for row in self.impressions}
        people |= {person for actor, target, _ in self.likes for person in (actor, target)}
        with self.connection.cursor() as cursor:
            with cursor.copy("copy duet.users (user_id) from stdin") as copy:
                for person in sorted(people):
                    copy.write_row((person,))
            for table, rows in (("answers", self.answers), ("impressions", self.impressions)):
                with cursor.copy(f"copy duet.{table} from stdin") as copy:
                    for row in rows:
                        copy.write_row(row)
            with cursor.copy(
                "copy duet.interactions (event_id, actor_id, target_id, kind, occurred_at) from stdin"
            ) as copy:
                did = [*((*like, "like") for like in self.likes), *self.ended]
                for number, (actor, target, at, kind) in enumerate(did, 1):
                    copy.write_row((UUID(int=number), actor, target, kind, at))
        self.connection.commit()


def begin(connection: psycopg.Connection[Any], at: datetime, share: float = 0.5, name: str = "taste") -> None:
    """Start an experiment at an instant of the past."""
    event(connection, at, "start", share, name=name)
    connection.execute(
        "insert into duet.experiments (name, salt, challenger_share, state, started_at, updated_at)"
        " values (%s, 'pepper', %s, 'running', %s, %s)",
        (name, share, at, at),
    )
    connection.commit()


def event(
    connection: psycopg.Connection[Any],
    at: datetime,
    kind: str,
    share: float = 0.5,
    *,
    name: str = "taste",
    state: str = "running",
) -> None:
    """Note a change of an experiment at an instant of the past."""
    connection.execute(
        "insert into duet.experiment_events (name, kind, state, challenger_share, actor, way, at)"
        " values (%s, %s, %s, %s, 'anna', 'cli', %s)",
        (name, kind, state, share, at),
    )
    connection.commit()
