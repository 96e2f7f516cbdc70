"""Reading an experiment out: what Postgres knows of it, judged as the settings say."""

from datetime import datetime, timedelta
from typing import Any, Final

import numpy as np
import psycopg

from infra.settings import ExperimentSettings
from pipelines.experiments import reading
from pipelines.experiments.counterfactual import estimate
from pipelines.experiments.report import LOOKS, Choices, ExperimentReport, build_report

_SEED: Final = 20260601
"""Of the bootstrap: equal data give equal intervals."""


def read_out(
    connection: psycopg.Connection[Any], settings: ExperimentSettings, now: datetime, name: str = ""
) -> ExperimentReport:
    """Return the read-out of an experiment as of `now`; without a name of the active one, else the latest changed.

    Raises NoSuchExperiment and NothingToReport.
    """
    window = timedelta(seconds=settings.attribution_s)
    stretch = reading.last_stretch(connection, name, now)
    return build_report(
        stretch,
        people=reading.read_people(connection, stretch),
        answers=reading.read_answers(connection, stretch),
        outcomes=reading.read_outcomes(connection, stretch, window, LOOKS),
        counterfactual=estimate(reading.read_showings(connection, stretch, window)),
        choices=Choices(settings.decide_by, settings.alpha, settings.expected_effect, window),
        rng=np.random.default_rng(_SEED),
    )
