"""Measures again and again whether the people of both arms fit the share of the running experiment."""

from datetime import datetime, timedelta
from typing import Any, Final

import psycopg

from pipelines.experiments.clustered import sample_ratio_p
from pipelines.experiments.reading import last_stretch, read_people
from registry.experiments.table import ExperimentState, list_experiments
from registry.measurements import Measure, StoredMeasurement, keep_measurement, last_measurements

EVERY: Final = timedelta(minutes=5)
"""It reads all answers of the stretch, and a few more of them change little."""


def measure_sample_ratio(connection: psycopg.Connection[Any], now: datetime) -> StoredMeasurement | None:
    """Keep and return the sample ratio of the running experiment; None where there is nothing, or nothing new, to say.

    `connection` commits each statement by itself.
    """
    running = [one for one in list_experiments(connection) if one.state == ExperimentState.RUNNING]
    if not running:
        return None
    name = running[0].name
    known = last_measurements(connection).get(Measure.SAMPLE_RATIO_P)
    if known is not None and known.about == name and known.measured_at > now - EVERY:
        return None
    stretch = last_stretch(connection, name, now)
    people = read_people(connection, stretch)
    p = sample_ratio_p(people.champion, people.challenger, stretch.share)
    if p is None:
        return None
    measured = StoredMeasurement(Measure.SAMPLE_RATIO_P, p, name, now)
    keep_measurement(connection, measured)
    return measured
