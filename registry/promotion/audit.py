"""The append-only record of promotions in Postgres, the pins, and the locks that let one promotion happen at a time.

The locks belong to the transaction that writes the record, so they survive neither a crash nor a lost connection, and
work through a transaction-pooling PgBouncer. There are two: one for giving orders, one for moving stages in MLflow. Who
promotes holds both, who rolls back only the first, who observes only the second; so a rollback never waits for somebody
whom MLflow keeps waiting, and nobody who gives an order is refused because of somebody who only watches.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal, Protocol

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb
from pydantic import JsonValue

from registry.contracts import (
    ARCHIVED,
    MODEL_NAMES,
    NO_STAGE,
    PRODUCTION,
    ArtifactKind,
    ReleaseIdentity,
    ReleaseVersions,
)
from registry.errors import AuditUnavailable, PromotionConflict

Way = Literal["cli", "ui", "automation"]
ROLLED_BACK_FROM: Final = "rolled_back_from"
# Any constants will do as long as nobody else uses them: "duet" in ASCII, then a number.
_ORDERS_LOCK: Final = 0x64756574_00000001
_STAGES_LOCK: Final = 0x64756574_00000002
_PATIENCE_S: Final = 10.0
_UNDER_WAY: Final = "Another promotion or rollback is under way: look at `duet releases`, then retry."
_KINDS: Final = {name: kind for kind, name in MODEL_NAMES.items()}

ORDERS: Final = sql.SQL(
    "select coalesce((select max(promotion_id) from duet.promotions), 0), pin_id, release, digests, actor"
    "  from (select 1) as once left join duet.release_pins on stage = 'Production' and closed_at is null"
)
"""What serving asks every second: the newest row of the audit, and the open pin; its rows go to `read_orders`."""


@dataclass(frozen=True)
class Promotion:
    """One release entering one stage, or leaving one by hand; None where nobody saw where a version came from."""

    versions: ReleaseVersions
    stage: str
    actor: str
    way: Way
    reason: str = ""
    gates: Mapping[str, JsonValue] = field(default_factory=dict)
    from_stages: Mapping[ArtifactKind, str | None] = field(default_factory=dict)
    at: datetime | None = None
    digests: Mapping[ArtifactKind, str] = field(default_factory=dict)

    @property
    def identity(self) -> ReleaseIdentity:
        """Return which release this is, with the digests that were known."""
        return ReleaseIdentity(self.versions, self.digests)

    @property
    def rolled_back_from(self) -> str | None:
        """Return the release that a rollback left, None for a promotion."""
        value = self.gates.get(ROLLED_BACK_FROM)
        return value if isinstance(value, str) else None

    @property
    def is_departure(self) -> bool:
        """Say whether this release left a stage that is empty since."""
        return self.stage in {ARCHIVED, NO_STAGE}


@dataclass(frozen=True)
class Pin:
    """The release that serves whatever the stages say, because MLflow could not be told of a rollback yet."""

    versions: ReleaseVersions
    digests: Mapping[ArtifactKind, str]
    actor: str
    way: Way
    reason: str = ""
    pin_id: int | None = None
    at: datetime | None = None

    @property
    def identity(self) -> ReleaseIdentity:
        """Return which release this is."""
        return ReleaseIdentity(self.versions, self.digests)


class PromotionLog(Protocol):
    """What promotion needs of the audit."""

    def exclusively(self) -> contextlib.AbstractContextManager[None]:
        """Hold both locks for a promotion; what is written in the block is kept only if it ends well.

        Raises PromotionConflict if another promotion or rollback is under way; who only observes is waited for.
        """

    def ordering(self) -> contextlib.AbstractContextManager[None]:
        """Hold the lock of orders for a rollback, which moves no stage; raises PromotionConflict as above."""

    def observing(self, *, patiently: bool = False) -> contextlib.AbstractContextManager[None]:
        """Hold the lock of stages; raises PromotionConflict if somebody else does, at once or after a while."""

    def record(self, promotion: Promotion) -> None:
        """Append a promotion, at an instant after all others; only inside a lock."""

    def history(self, stage: str = PRODUCTION, limit: int = 1_000, until: datetime | None = None) -> list[Promotion]:
        """Return the last promotions to a stage, and departures from it, oldest first; none after `until`."""

    def pin(self, pin: Pin) -> None:
        """Open a pin in place of the open one; only inside `ordering`."""

    def close_pin(self, by: str, pin: Pin | None = None) -> None:
        """Close the open pin, or only that very pin if it is still open, and say why; only inside a lock."""

    def open_pin(self) -> Pin | None:
        """Return the open pin."""


class PostgresPromotionLog:
    """The table `duet.promotions`: one row per model, three rows per promotion, written in one transaction."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    @contextlib.contextmanager
    def exclusively(self) -> Iterator[None]:
        """Hold both locks in a transaction; commit at the end, or leave no trace."""
        with _plainly(), self._connection.transaction():
            self._try(_ORDERS_LOCK)
            self._wait(_STAGES_LOCK)
            yield

    @contextlib.contextmanager
    def ordering(self) -> Iterator[None]:
        """Hold the lock of orders in a transaction; commit at the end, or leave no trace."""
        with _plainly(), self._connection.transaction():
            self._try(_ORDERS_LOCK)
            yield

    @contextlib.contextmanager
    def observing(self, *, patiently: bool = False) -> Iterator[None]:
        """Hold the lock of stages in a transaction; commit at the end, or leave no trace."""
        with _plainly(), self._connection.transaction():
            if patiently:
                self._wait(_STAGES_LOCK)
            else:
                self._try(_STAGES_LOCK)
            yield

    def _try(self, lock: int) -> None:
        row = self._connection.execute("select pg_try_advisory_xact_lock(%s)", (lock,)).fetchone()
        if row is None or not row[0]:
            raise PromotionConflict(_UNDER_WAY)

    def _wait(self, lock: int) -> None:
        self._connection.execute("select set_config('lock_timeout', %s, true)", (f"{round(_PATIENCE_S * 1000)}ms",))
        try:
            self._connection.execute("select pg_advisory_xact_lock(%s)", (lock,))
        except psycopg.errors.LockNotAvailable as error:
            raise PromotionConflict(_UNDER_WAY) from error

    def record(self, promotion: Promotion) -> None:
        """Append three rows with one common instant.

        Instants only grow, even when MLflow's clock, which dates moves by hand, differs from that of Postgres.
        """
        with _plainly(), self._connection.cursor() as cursor:
            at = cursor.execute(
                "select greatest(coalesce(%s::timestamptz, clock_timestamp()),"
                "                (select max(at) + interval '1 microsecond' from duet.promotions))",
                (promotion.at,),
            ).fetchone()
            cursor.executemany(
                "insert into duet.promotions"
                " (release, model, version, from_stage, to_stage, actor, way, reason, gates, at, digest)"
                " values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
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
                        at[0] if at else None,
                        promotion.digests.get(kind),
                    )
                    for kind in ArtifactKind
                ],
            )

    def history(self, stage: str = PRODUCTION, limit: int = 1_000, until: datetime | None = None) -> list[Promotion]:
        """Return the last promotions to a stage, and departures from it, oldest first; none after `until`."""
        with _plainly(), self._connection.transaction():
            rows = self._connection.execute(
                "select release, to_stage, actor, way, coalesce(max(reason), ''),"
                "       coalesce((array_agg(gates))[1], '{}'::jsonb), at, array_agg(model order by model),"
                "       array_agg(from_stage order by model), array_agg(digest order by model)"
                "  from duet.promotions"
                " where (to_stage = %(stage)s or (from_stage = %(stage)s and to_stage = any(%(nowhere)s)))"
                "   and at <= coalesce(%(until)s::timestamptz, 'infinity')"
                " group by release, to_stage, actor, way, at order by max(promotion_id) desc limit %(limit)s",
                {"stage": stage, "nowhere": [ARCHIVED, NO_STAGE], "until": until, "limit": limit},
            ).fetchall()
        return [_promotion(row) for row in reversed(rows)]

    def pin(self, pin: Pin) -> None:
        """Open a pin in place of the open one."""
        self.close_pin(f"{pin.versions.release_id} was pinned instead")
        with _plainly():
            self._connection.execute(
                "insert into duet.release_pins (release, digests, actor, way, reason) values (%s, %s, %s, %s, %s)",
                (
                    pin.versions.release_id,
                    Jsonb({kind.value: digest for kind, digest in pin.digests.items()}),
                    pin.actor,
                    pin.way,
                    pin.reason,
                ),
            )

    def close_pin(self, by: str, pin: Pin | None = None) -> None:
        """Close the open pin, or only that very pin if it is still open, and say why."""
        with _plainly():
            self._connection.execute(
                "update duet.release_pins set closed_at = clock_timestamp(), closed_by = %(by)s"
                " where stage = 'Production' and closed_at is null"
                "   and pin_id = coalesce(%(pin_id)s::bigint, pin_id)",
                {"by": by, "pin_id": None if pin is None else pin.pin_id},
            )

    def open_pin(self) -> Pin | None:
        """Return the open pin."""
        with _plainly(), self._connection.transaction():
            row = self._connection.execute(
                "select release, digests, actor, way, reason, pin_id, pinned_at from duet.release_pins"
                " where stage = 'Production' and closed_at is null"
            ).fetchone()
        return None if row is None else Pin(ReleaseVersions.parse(row[0]), _digests(row[1]), *row[2:])


def read_orders(row: Sequence[Any]) -> tuple[int, Pin | None]:
    """Return the newest id of the audit and the open pin, from the row that `ORDERS` gave."""
    newest, pin_id, release, digests, actor = row
    if pin_id is None:
        return int(newest), None
    return int(newest), Pin(ReleaseVersions.parse(release), _digests(digests), actor, "cli", pin_id=pin_id)


def _digests(stored: Mapping[str, str]) -> dict[ArtifactKind, str]:
    return {ArtifactKind(kind): digest for kind, digest in stored.items()}


def _promotion(row: Sequence[Any]) -> Promotion:
    release, to_stage, actor, way, reason, gates, at, models, origins, digests = row
    kinds = [_KINDS[model] for model in models]
    return Promotion(
        versions=ReleaseVersions.parse(release),
        stage=to_stage,
        actor=actor,
        way=way,
        reason=reason,
        gates=gates,
        from_stages=dict(zip(kinds, origins, strict=True)),
        at=at,
        digests={kind: digest for kind, digest in zip(kinds, digests, strict=True) if digest},
    )


@contextlib.contextmanager
def _plainly() -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        first = " ".join(str(error).split())[:200]
        raise AuditUnavailable(f"The record of promotions in Postgres cannot be used: {first}") from error
