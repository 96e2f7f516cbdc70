"""A feature store on the worker's real Postgres and Redis, and rows to put into it."""

import warnings
from collections.abc import Callable
from datetime import datetime
from typing import Any

import psycopg
import pytest
import redis

from feature_repo.layout import VIEWS, Layout
from infra.db.postgres import connect
from infra.endpoints import Endpoints
from infra.settings import Settings
from tests.feature_rows import put_features

Put = Callable[..., None]


@pytest.fixture(scope="session", autouse=True)
def _feast_import_warns() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import feast  # noqa: F401


@pytest.fixture(scope="session")
def applied(endpoints: Endpoints, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A store whose catalogue was applied once; the untouched views are kept aside to start each test from."""
    from feature_repo.store import apply_catalogue, open_feature_store

    settings = Settings(environment="test", data_dir=tmp_path_factory.mktemp("features"))
    store = open_feature_store(settings, endpoints)
    with connect(endpoints.database_url, autocommit=True) as connection:
        apply_catalogue(store)
        # Other files of this worker may have materialised features of this project before.
        connection.execute("delete from feast.feature_views where project_id = 'duet'")
        connection.execute("delete from feast.feature_view_version_history where project_id = 'duet'")
        store.refresh_registry()
        apply_catalogue(store)
        connection.execute("drop table if exists feast.untouched_views")
        connection.execute("create table feast.untouched_views as select * from feast.feature_views")
    return store


@pytest.fixture
def store(applied: Any, connection: psycopg.Connection[Any], redis_client: redis.Redis) -> Any:
    """An applied catalogue over empty tables and an empty Redis, nothing materialised yet."""
    connection.execute("delete from feast.feature_views where project_id = 'duet'")
    connection.execute("insert into feast.feature_views select * from feast.untouched_views where project_id = 'duet'")
    connection.commit()
    applied.refresh_registry()
    return applied


@pytest.fixture
def put(connection: psycopg.Connection[Any]) -> Put:
    """Insert a feature row: put(layout, user_id, at, column=value, …); other columns take their default."""

    def insert(layout: Layout, user_id: int, at: datetime, *, created: datetime | None = None, **values: float) -> None:
        put_features(connection, layout, user_id, at, created=created, **values)
        connection.commit()

    assert {layout.name for layout in VIEWS} == {"user_profile", "user_attributes", "user_activity", "user_reciprocity"}
    return insert
