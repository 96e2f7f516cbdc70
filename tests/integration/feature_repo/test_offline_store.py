"""Our point-in-time join gives what the stock store gives: ties, ttl, missing rows and all."""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import psycopg
import pytest

from feature_repo.layout import ACTIVITY, CONTEXT_COLUMNS, PROFILE, RECIPROCITY
from infra.endpoints import Endpoints
from infra.settings import Settings

T = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def ties(connection: psycopg.Connection[Any]) -> Any:
    """Drop the primary key of one table for a test: ties in event time, which our own tables refuse."""
    connection.execute("alter table features.user_activity drop constraint user_activity_pkey")
    connection.commit()
    yield
    connection.rollback()
    connection.execute("delete from features.user_activity")
    connection.execute("alter table features.user_activity add primary key (user_id, event_timestamp)")
    connection.commit()


def stores(settings: Settings, endpoints: Endpoints) -> tuple[Any, Any]:
    from feature_repo.store import open_feature_store

    stock = settings.model_copy(
        update={"features": settings.features.model_copy(update={"offline_store": "postgres", "online_store": "redis"})}
    )
    return open_feature_store(settings, endpoints), open_feature_store(stock, endpoints)


@pytest.mark.usefixtures("ties")
@pytest.mark.parametrize(
    ("way", "made_visible"), [("in order", "any time"), ("looked up", "any time"), ("looked up", "by then")]
)
def test_the_fast_store_returns_the_rows_of_the_stock_store(
    store: Any,
    put: Any,
    connected_settings: Settings,
    endpoints: Endpoints,
    connection: psycopg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
    way: str,
    made_visible: str,
) -> None:
    from feature_repo.stores import offline as offline_store

    rng = np.random.default_rng(3)
    for layout in (PROFILE, ACTIVITY, RECIPROCITY):
        for number in range(400):
            event = T - timedelta(days=int(rng.integers(0, 900)), seconds=0 if layout is ACTIVITY else number)
            created = event + timedelta(hours=number)
            values = [float(value) for value in rng.normal(size=layout.width).astype(np.float32)]
            if number % 7 == 0:
                values[0] = float("nan")
            put(
                layout,
                int(rng.integers(1, 30)),
                event,
                created=created,
                **dict(zip(layout.columns, values, strict=True)),
            )
    connection.execute("analyze")
    connection.commit()
    n = 300
    entities = pd.DataFrame(
        {
            "requester_id": rng.integers(1, 40, n),
            "candidate_id": rng.integers(1, 40, n),
            "event_timestamp": [T - timedelta(days=int(day)) for day in rng.integers(0, 800, n)],
        }
    )
    entities["pair"] = np.arange(n)
    monkeypatch.setattr(offline_store, "ROWS_PER_LOOKUP", 1e9 if way == "in order" else -1.0)
    fast, stock = stores(connected_settings, endpoints)
    service = fast.get_feature_service("ranking_v1")
    refs = [
        f"{projection.name_to_use()}:{feature.name}"
        for projection in service.feature_view_projections[:-1]
        for feature in projection.features
    ]
    found = {}
    for name, feast_store in (("fast", fast), ("stock", stock)):
        views = [
            feast_store.get_feature_view(projection.name).with_projection(projection)
            for projection in service.feature_view_projections[:-1]
        ]
        job = feast_store._get_provider().get_historical_features(
            feast_store.config,
            views,
            refs,
            entities,
            feast_store.registry,
            feast_store.project,
            True,
            filter_by_created_timestamp=made_visible == "by then",
        )
        found[name] = job.to_df().sort_values("pair").reset_index(drop=True)
    assert type(job).__name__ == "PostgreSQLRetrievalJob"
    n_present = 0
    for reference in refs:
        column = reference.replace(":", "__")
        mine, theirs = (found[name][column].to_numpy(np.float32) for name in ("fast", "stock"))
        np.testing.assert_array_equal(mine, theirs)
        n_present += int(np.isfinite(mine).sum())
    assert n_present > n * PROFILE.width


def test_a_job_leaves_no_table(store: Any, connection: psycopg.Connection[Any]) -> None:
    from feature_repo.store import historical_ranking_features

    frame = pd.DataFrame({"requester_id": [1], "candidate_id": [2], "event_timestamp": [T]})
    for column in CONTEXT_COLUMNS:
        frame[column] = np.float32(0)
    historical_ranking_features(store, frame)
    assert connection.execute("select from pg_tables where tablename like '%entit%df%'").fetchall() == []
