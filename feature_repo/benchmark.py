"""Measure the feature store on this machine: `python -m feature_repo.benchmark --rows 1000000`.

Point-in-time join, materialisation and reads over tables of the size that is asked for, in a database and a Redis
of its own that go away afterwards. Prints one table; writes nothing else.
"""

import argparse
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from feature_repo.layout import ACTIVITY, CONTEXT_COLUMNS, PROFILE, RECIPROCITY, VIEWS, Layout
from feature_repo.stores.packed_copy import MICROS_1970_TO_2000, copy_in, reals, record, scalar
from infra.cli.console import out, table

END = datetime(2026, 6, 1, tzinfo=UTC)
DAYS = 60
JOINED = (PROFILE, ACTIVITY, RECIPROCITY)


def fill(connection: Any, layout: Layout, n_rows: int, n_people: int, seed: int) -> None:
    """Write `n_rows` daily snapshot rows of one view for random people among `n_people`."""
    from psycopg import sql

    rng = np.random.default_rng(seed)
    kind = record(
        scalar("user_id", "int8"),
        scalar("event_timestamp", "timestamptz"),
        scalar("created_timestamp", "timestamptz"),
        reals("values", layout.width),
    )
    cells = rng.permutation(n_people * DAYS)[:n_rows]
    end = round(END.timestamp() * 1e6) - MICROS_1970_TO_2000
    table = sql.Identifier("features", layout.name)
    with connection.cursor() as cursor:
        for start in range(0, n_rows, 100_000):
            part = cells[start : start + 100_000]
            rows = np.zeros(len(part), dtype=kind)
            rows["n_fields"] = 3 + layout.width
            rows["user_id:size"], rows["user_id"] = 8, part // DAYS + 1
            for column in ("event_timestamp", "created_timestamp"):
                rows[f"{column}:size"], rows[column] = 8, end - (part % DAYS) * 86_400_000_000
            rows["values"]["size"] = 4
            rows["values"]["value"] = rng.random((len(part), layout.width), dtype=np.float32)
            copy_in(cursor, sql.SQL("copy {} from stdin (format binary)").format(table), rows)
        connection.commit()
    connection.autocommit = True
    connection.execute(sql.SQL("vacuum analyze {}").format(table))
    connection.autocommit = False


def measured(action: Callable[[], object], repetitions: int) -> tuple[float, float]:
    """Return the median seconds of `repetitions` calls and the highest resident MB of this process so far."""
    seconds = []
    for _ in range(repetitions):
        began = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run(n_rows: int, n_people: int, table_rows: int, repetitions: int) -> Table:
    """Build the world, measure it, and return the table."""
    import pandas as pd

    from feature_repo.store import (
        PersonReader,
        apply_catalogue,
        historical_ranking_features,
        materialize,
        open_feature_store,
    )
    from infra.db.postgres import connect
    from infra.endpoints import open_endpoints
    from infra.settings import Settings

    rows: list[tuple[str, ...]] = []

    def add(what: str, n: int, action: Callable[[], object], times: int) -> None:
        seconds, peak = measured(action, times)
        rows.append((what, f"{n:,}", f"{seconds:.4g}", f"{n / seconds:,.0f}", f"{peak:,.0f}"))

    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(environment="test", data_dir=Path(folder))
        with open_endpoints(settings) as endpoints:
            with connect(endpoints.database_url) as connection:
                for seed, layout in enumerate(VIEWS):
                    fill(connection, layout, min(table_rows, n_people * DAYS), n_people, seed)
            store = open_feature_store(settings, endpoints)
            apply_catalogue(store)
            rng = np.random.default_rng(9)
            at = pd.to_datetime(END) - pd.to_timedelta(rng.integers(0, DAYS * 86_400, n_rows), unit="s")
            pairs = pd.DataFrame(
                {
                    "requester_id": rng.integers(1, n_people + 1, n_rows),
                    "candidate_id": rng.integers(1, n_people + 1, n_rows),
                    "event_timestamp": at,
                    **{column: rng.random(n_rows, dtype=np.float32) for column in CONTEXT_COLUMNS},
                }
            )
            users = pairs[["requester_id", "event_timestamp"]].rename(columns={"requester_id": "user_id"})
            refs = [f"{layout.name}:{column}" for layout in JOINED for column in layout.columns]
            add(
                f"point-in-time join, {len(JOINED)} views",
                n_rows,
                lambda: store.get_historical_features(users, refs, full_feature_names=True).to_arrow(),
                repetitions,
            )
            add(
                "ranking vectors of pairs (8 joins + features)",
                n_rows,
                lambda: historical_ranking_features(store, pairs),
                repetitions,
            )
            add("materialise 4 views", 4 * n_people, lambda: materialize(store, END + timedelta(days=1)), 1)
            reader = PersonReader(store)
            add("read one person", 1, lambda: reader.read(7), 500)
            add("read 300 people", 300, lambda: reader.read_many(np.arange(1, 301)), 50)
            add("read everybody", n_people, lambda: reader.read_many(np.arange(1, n_people + 1)), 1)
        _remove_kept_aside(settings)
    return table(None, ["what", "n", "seconds", "per second", "peak RSS MB"], rows, right=range(1, 5))


def _remove_kept_aside(settings: Any) -> None:
    """Remove the data that Postgres, started by root, keeps outside its folder."""
    from infra.embedded.postgres import EmbeddedPostgres

    server = EmbeddedPostgres(settings)
    data = server.known_data
    if data is not None and data != server.wanted:
        shutil.rmtree(data, ignore_errors=True)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=100_000, help="pairs to join")
    parser.add_argument("--people", type=int, default=20_000, help="people in the tables")
    parser.add_argument("--table-rows", type=int, default=1_200_000, help="rows per feature table")
    parser.add_argument("--repetitions", type=int, default=3, help="repetitions, of which the median is shown")
    asked = parser.parse_args()
    out().print(run(asked.rows, asked.people, asked.table_rows, asked.repetitions))


if __name__ == "__main__":
    main()
