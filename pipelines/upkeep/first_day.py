"""The day with which the history begins, as Postgres knows it when the code location is loaded.

Dagster fixes the first partition when it loads the location: where older data is imported later, load it again. Only a
database whose address is configured is asked, as `duet up` does for all it starts: loading starts no server.
"""

from datetime import UTC, date, datetime, timedelta
from typing import Final

import psycopg

from infra.clock import Clock
from infra.db.postgres import connect
from infra.errors import DuetError
from infra.settings import Settings
from infra.urls import libpq_url

WITHOUT_DATA: Final = date(2024, 1, 1)
WITHIN_S: Final = 5.0
_FIRST: Final = """
    select least((select (min(occurred_at) at time zone 'UTC')::date from duet.interactions),
                 (select min(day) from duet.activity_daily))
"""


def first_day(settings: Settings, clock: Clock, database_url: str | None = None) -> date:
    """Return the first day with an interaction or with figures, at the latest yesterday, which is computed first.

    `WITHOUT_DATA` is returned where there is no data, or no database answers.
    """
    if database_url is None and settings.database_url is not None:
        database_url = settings.database_url.get_secret_value()
    found = None if database_url is None else _stored(database_url)
    yesterday: datetime = clock.now().astimezone(UTC) - timedelta(days=1)
    return min(found or WITHOUT_DATA, yesterday.date())


def _stored(database_url: str) -> date | None:
    try:
        with connect(
            libpq_url(database_url),
            connect_timeout_s=WITHIN_S,
            statement_timeout_s=WITHIN_S,
            application_name="duet-code-location",
        ) as connection:
            ((day,),) = connection.execute(_FIRST).fetchall()
    except (DuetError, psycopg.Error):
        return None  # a location that does not load would take everything else with it
    return day if isinstance(day, date) else None
