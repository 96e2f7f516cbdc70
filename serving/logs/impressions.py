"""What is logged of every answer, as rows of two tables: who was shown, and how the answer came about."""

import asyncio
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

from infra.db.connection_pool import ConnectionPool
from infra.metrics import ServingMetrics
from serving.logs.row_log import FATES, RowLog

INSERT_IMPRESSIONS: Final = b"""
INSERT INTO duet.impressions
    (request_id, user_id, target_id, position, score, propensity, source, release, variant, level, shown_at)
SELECT * FROM unnest(
    %s::uuid[], %s::bigint[], %s::bigint[], %s::smallint[], %s::real[], %s::real[], %s::text[], %s::text[],
    %s::text[], %s::smallint[], %s::timestamptz[])
ON CONFLICT DO NOTHING
"""
INSERT_ANSWERS: Final = b"""
INSERT INTO duet.answers
    (request_id, user_id, experiment, arm, variant, release, level, reason, shown, took_ms, cached, failed, answered_at)
SELECT * FROM unnest(
    %s::uuid[], %s::bigint[], %s::text[], %s::text[], %s::text[], %s::text[], %s::smallint[], %s::text[],
    %s::smallint[], %s::real[], %s::boolean[], %s::boolean[], %s::timestamptz[])
ON CONFLICT DO NOTHING
"""


class Impression(NamedTuple):
    """One person shown at one position; `propensity` is the probability that exploration put them there."""

    request_id: UUID
    user_id: int
    target_id: int
    position: int
    score: float
    propensity: float
    source: str
    release: str | None
    variant: str
    level: int
    shown_at: datetime


class Answered(NamedTuple):
    """One answer: `arm` is what the person is assigned to, `variant` whose release answered.

    `experiment` is None without one and where a tester chose the arm; `failed` is an error that nobody foresaw, or an
    answer that was cut off.
    """

    request_id: UUID
    user_id: int
    experiment: str | None
    arm: str
    variant: str
    release: str | None
    level: int
    reason: str | None
    shown: int
    took_ms: float
    cached: bool
    failed: bool
    answered_at: datetime


class AnswerLogs:
    """The logs of both tables, counted in the metrics."""

    def __init__(self, pool: ConnectionPool, metrics: ServingMetrics) -> None:
        for fate in FATES:
            metrics.impressions.labels(fate)  # the series is there before the first of its kind
            metrics.answers_logged.labels(fate)
        self.impressions = RowLog[Impression](
            pool, "impressions", INSERT_IMPRESSIONS, lambda fate, rows: metrics.impressions.labels(fate).inc(rows)
        )
        self.answers = RowLog[Answered](
            pool, "answers", INSERT_ANSWERS, lambda fate, rows: metrics.answers_logged.labels(fate).inc(rows)
        )

    async def run(self) -> None:
        """Write until `close`, then what is left, for a while."""
        async with asyncio.TaskGroup() as logs:  # or else one would go on when the other fails, and be begun twice
            logs.create_task(self.impressions.run())
            logs.create_task(self.answers.run())

    def close(self) -> None:
        """Make `run` write what is left and return."""
        self.impressions.close()
        self.answers.close()
