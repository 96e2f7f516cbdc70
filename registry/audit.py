"""The append-only record of promotions in Postgres, and the lock that lets one promotion happen at a time.

The lock belongs to the transaction that writes the record, so it survives neither a crash nor a lost connection, and
it works through a transaction-pooling PgBouncer.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal, Protocol

import psycopg
from psycopg.types.json import Jsonb
from pydantic import JsonValue

from registry.contracts import MODEL_NAMES, PRODUCTION, ArtifactKind, ReleaseVersions
from registry.errors import AuditUnavailable, PromotionConflict

Way = Literal["cli", "ui", "automation"]
ROLLED_BACK_FROM: Final = "rolled_back_from"
# Any constant will do as long as nobody else uses it: "duet" in ASCII, then 1.
_LOCK_KEY: Final = 0x64756574_00000001


@dataclass(frozen=True)
class Promotion:
    """One release entering one stage; `from_stages` tells where each version came from, None where nobody saw it."""

    versions: ReleaseVersions
    stage: str
    actor: str
    way: Way
    reason: str = ""
    gates: Mapping[str, JsonValue] = field(default_factory=dict)
    from_stages: Mapping[ArtifactKind, str | None] = field(default_factory=dict)
    at: datetime | None = None

    @property
    def rolled_back_from(self) -> str | None:
        """Return the release that a rollback left, None for a promotion."""
        value = self.gates.get(ROLLED_BACK_FROM)
        return value if isinstance(value, str) else None


class PromotionLog(Protocol):
    """What promotion needs of the audit."""

    def exclusively(self) -> contextlib.AbstractContextManager[None]:
        """Hold the lock for the block; what is recorded in it is kept only if the block ends well.

        Raises PromotionConflict if somebody else holds the lock.
        """

    def record(self, promotion: Promotion) -> None:
        """Append a promotion; only inside `exclusively`."""

    def history(self, stage: str = PRODUCTION, limit: int = 1_000) -> Sequence[Promotion]:
        """Return the last promotions to a stage, oldest first."""


class PostgresPromotionLog:
    """The table `duet.promotions`: one row per model, three rows per promotion, written in one transaction."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    @contextlib.contextmanager
    def exclusively(self) -> Iterator[None]:
        """Hold the advisory lock in a transaction; commit at the end, or leave no trace."""
        with _plainly(), self._connection.transaction():
            row = self._connection.execute("select pg_try_advisory_xact_lock(%s)", (_LOCK_KEY,)).fetchone()
            if row is None or not row[0]:
                raise PromotionConflict(
                    "Another promotion or rollback is under way: look at `duet releases`, then retry."
                )
            yield

    def record(self, promotion: Promotion) -> None:
        """Append three rows with one common instant."""
        with _plainly(), self._connection.cursor() as cursor:
            now = cursor.execute("select clock_timestamp()").fetchone()
            at = promotion.at or (now[0] if now else None)
            cursor.executemany(
                "insert into duet.promotions"
                " (release, model, version, from_stage, to_stage, actor, way, reason, gates, at)"
                " values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
                [
                    (
                        promotion.versions.release_id,
                        MODEL_NAMES[kind],
                        promotion.versions[kind],
                        promotion.from_stages.get(kind),
                        promotion.stage,
                        promotion.actor,
                        promotion.way,
                        promotion.reason,
                        Jsonb(dict(promotion.gates)),
                        at,
                    )
                    for kind in ArtifactKind
                ],
            )

    def history(self, stage: str = PRODUCTION, limit: int = 1_000) -> list[Promotion]:
        """Return the last promotions to a stage, oldest first."""
        with _plainly(), self._connection.transaction():
            rows = self._connection.execute(
                "select release, to_stage, actor, way, coalesce(max(reason), ''),"
                "       coalesce((array_agg(gates))[1], '{}'::jsonb), at,"
                "       array_agg(model order by model), array_agg(from_stage order by model)"
                "  from duet.promotions where to_stage = %s"
                " group by release, to_stage, actor, way, at order by max(promotion_id) desc limit %s",
                (stage, limit),
            ).fetchall()
        kinds = {name: kind for kind, name in MODEL_NAMES.items()}
        return [
            Promotion(
                versions=ReleaseVersions.parse(release),
                stage=to_stage,
                actor=actor,
                way=way,
                reason=reason,
                gates=gates,
                from_stages={kinds[model]: origin for model, origin in zip(models, origins, strict=True)},
                at=at,
            )
            for release, to_stage, actor, way, reason, gates, at, models, origins in reversed(rows)
        ]


@contextlib.contextmanager
def _plainly() -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        first = " ".join(str(error).split())[:200]
        raise AuditUnavailable(f"The record of promotions in Postgres cannot be used: {first}") from error


def release_at(log: PromotionLog, at: datetime, stage: str = PRODUCTION) -> Promotion | None:
    """Return the promotion whose release stood in a stage at an instant, None before the first."""
    earlier = [promotion for promotion in log.history(stage) if promotion.at is not None and promotion.at <= at]
    return earlier[-1] if earlier else None


def standing_releases(history: Sequence[Promotion]) -> list[ReleaseVersions]:
    """Return the releases that a rollback can go back through, the current one last.

    A rollback takes away the release that it left, so rolling back twice goes two releases back instead of returning
    to the one that was bad.
    """
    stack: list[ReleaseVersions] = []
    for promotion in history:
        if promotion.rolled_back_from is not None and promotion.versions in stack:
            last = len(stack) - 1 - stack[::-1].index(promotion.versions)
            del stack[last + 1 :]
        elif not stack or stack[-1] != promotion.versions:
            stack.append(promotion.versions)
    return stack
