"""What the pipelines measured last and people on call are told of: one row per measure, shown by serving's metrics.

Prometheus asks serving only, because a pipeline is a run that ends. A row says what it is about and when it was found.
"""

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, NamedTuple

import psycopg
from psycopg import sql

READ: Final = sql.SQL("select measure, value, about, measured_at from duet.measurements")
_KEEP: Final = sql.SQL("""
    insert into duet.measurements (measure, value, about, measured_at) values (%s, %s, %s, %s)
    on conflict (measure) do update set
        value = excluded.value, about = excluded.about, measured_at = excluded.measured_at
""")


class Measure(StrEnum):
    """The closed set of what is measured."""

    DRIFT_PSI = "drift_psi"
    """Population stability index of what moved furthest since the ranker in Production was trained."""
    SAMPLE_RATIO_P = "sample_ratio_p"
    """Chance that the people of both arms fit the share of the running experiment."""


class StoredMeasurement(NamedTuple):
    """A value, what it is about (a release, an experiment), and when it was measured."""

    measure: Measure
    value: float
    about: str
    measured_at: datetime


def keep_measurement(connection: psycopg.Connection[Any], measurement: StoredMeasurement) -> None:
    """Keep a measurement in place of the one before of its kind."""
    connection.execute(_KEEP, measurement)


def last_measurements(connection: psycopg.Connection[Any]) -> dict[Measure, StoredMeasurement]:
    """Return the last measurement of each kind that was ever measured."""
    return {one.measure: one for one in measurements(connection.execute(READ).fetchall())}


def measurements(rows: Iterable[tuple[Any, ...]]) -> list[StoredMeasurement]:
    """Return what rows of `READ` say; a measure of a later version of Duet is left out."""
    known = set(Measure)
    return [StoredMeasurement(Measure(row[0]), *row[1:]) for row in rows if row[0] in known]
