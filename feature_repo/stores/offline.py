"""Feast's Postgres offline store with a point-in-time join that visits only the rows it needs.

The stock store joins every earlier row within the ttl and then ranks them. Here each pair looks up its latest
row through the index (key, event_timestamp), and values leave by binary COPY. Same answers, ties included;
queries for anything but Float32 features of plain tables go to the stock store.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
import pandas as pd
import psycopg
import pyarrow as pa
from feast.feature_view import FeatureView
from feast.infra.offline_stores import offline_utils
from feast.infra.offline_stores.contrib.postgres_offline_store import postgres as stock
from feast.infra.offline_stores.offline_store import RetrievalMetadata
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.repo_config import RepoConfig
from numpy.typing import NDArray
from psycopg import sql
from pydantic import model_validator

from feature_repo.feast_private import features_by_view, open_postgres
from feature_repo.repo_config import postgres_address
from feature_repo.stores.as_of import LARGEST_EXACT, as_of_join
from feature_repo.stores.join_plan import JoinView
from feature_repo.stores.packed_copy import (
    copy_in,
    copy_out,
    entity_records,
    micros_of,
    reals,
    record,
    scalar,
    values_of,
)

Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]
Vectors = tuple[Float32, NDArray[np.bool_]]
"""Rows float32[n, width] and which of them exist."""

ROWS_PER_LOOKUP = 4.0  # reading this many rows in order costs about one lookup through the index


class FastPostgresOfflineStoreConfig(stock.PostgreSQLOfflineStoreConfig):  # type: ignore[misc]
    """Where Postgres is: the fields of the stock store, or a `database_url` that gives most of them."""

    type: Literal["feature_repo.stores.offline.FastPostgresOfflineStore"] = (
        "feature_repo.stores.offline.FastPostgresOfflineStore"
    )
    database_url: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _address(cls, given: dict[str, Any]) -> dict[str, Any]:
        url = given.get("database_url")
        return {**postgres_address(url), **given} if url else given


class FastRetrievalJob(stock.PostgreSQLRetrievalJob):  # type: ignore[misc]
    """A point-in-time join of Float32 features that has not run yet."""

    def __init__(
        self,
        config: RepoConfig,
        entities: pd.DataFrame,
        time_column: str,
        views: list[JoinView],
        *,
        full_feature_names: bool,
        on_demand_feature_views: list[OnDemandFeatureView],
        metadata: RetrievalMetadata,
        by_created: bool,
        done: list[Vectors] | None = None,
    ) -> None:
        super().__init__("", config, full_feature_names, on_demand_feature_views, metadata)
        self._entities = entities
        self._time_column = time_column
        self._views = views
        self._by_created = by_created
        self._done = done

    def to_sql(self) -> str:
        """Return the join as text; `entities` is a temporary table of (row, keys, at)."""
        return self._join(range(len(self._views)))[0].as_string(None)

    def _keys(self) -> list[str]:
        return sorted({key for view in self._views for key in view.keys})

    def _join(self, numbers: Sequence[int]) -> tuple[sql.Composed, np.dtype[np.void]]:
        """Return the query that looks up the views of these `numbers` row by row, and the type of its records."""
        names = {key: sql.Identifier(f"key_{position}") for position, key in enumerate(self._keys())}
        columns: list[sql.Composable] = [sql.SQL("entities.row")]
        fields, joins = [scalar("row", "int4")], []
        for number in numbers:
            view, alias = self._views[number], sql.Identifier(f"v{number}")
            # A missing row travels as NaN with a flag, so that every record has one size.
            columns.append(sql.SQL("{}.{} is not null, {}").format(alias, view.at, view.values(alias)))
            fields += [scalar(f"p{number}", "bool"), reals(f"v{number}", view.width)]
            joins.append(view.lateral(alias, [names[key] for key in view.keys], by_created=self._by_created))
        query = sql.SQL("select {} from pg_temp.entities {}").format(
            sql.SQL(", ").join(columns), sql.SQL(" ").join(joins)
        )
        return query, record(*fields)

    def vectors(self) -> list[Vectors]:
        """Run the join: per view float32[n, width] in the order of the entities, and which rows are present.

        Each table is either read once in order or looked up per row, whichever visits fewer rows.
        """
        if self._done is not None:
            return self._done
        found: dict[int, Vectors] = {}
        with open_postgres(self.config) as connection, connection.cursor() as cursor:
            # One snapshot for all views: they must agree about the past even while rows are written.
            cursor.execute("set transaction isolation level repeatable read")
            # Compiling expressions for an index lookup costs more than the lookups.
            cursor.execute("set local jit = off")
            for numbers in self._by_table():
                if self._reads_in_order(cursor, numbers):
                    found.update(self._read_in_order(cursor, numbers))
            rest = [number for number in range(len(self._views)) if number not in found]
            if rest:
                found.update(self._look_up(cursor, rest))
        return [found[number] for number in range(len(self._views))]

    def _by_table(self) -> list[list[int]]:
        groups: dict[tuple[object, ...], list[int]] = {}
        for number, view in enumerate(self._views):
            groups.setdefault((view.table_name, view.features, view.ttl_s), []).append(number)
        return list(groups.values())

    def _reads_in_order(self, cursor: psycopg.Cursor[Any], numbers: list[int]) -> bool:
        view = self._views[numbers[0]]
        if self._by_created or len(view.columns) != 1:
            return False
        keys = [self._entities[self._views[number].keys[0]] for number in numbers]
        if any(len(key) and int(key.abs().max()) >= LARGEST_EXACT for key in keys):
            return False
        cursor.execute(
            "select reltuples from pg_class where oid = to_regclass(%s)", (view.table.as_string(cursor.connection),)
        )
        row = cursor.fetchone()
        # Never analysed (-1): its size is unknown, and a lookup is never a disaster.
        return row is not None and 0 <= row[0] <= ROWS_PER_LOOKUP * len(self._entities) * len(numbers)

    def _read_in_order(self, cursor: psycopg.Cursor[Any], numbers: list[int]) -> dict[int, Vectors]:
        view, n = self._views[numbers[0]], len(self._entities)
        at = np.tile(_micros(self._entities[self._time_column]), len(numbers))
        keys = np.concatenate([self._entities[self._views[number].keys[0]].to_numpy(np.int64) for number in numbers])
        query, kind = view.in_order(int(at.max()) if len(at) else 0)
        blocks = (
            (block["key"].astype(np.int64), micros_of(block, "at"), values_of(block, "values"))
            for block in copy_out(cursor, query, kind)
        )
        values, present = as_of_join(keys, at, blocks, view.width, round(view.ttl_s * 1e6))
        return {
            number: (values[place * n : (place + 1) * n], present[place * n : (place + 1) * n])
            for place, number in enumerate(numbers)
        }

    def _look_up(self, cursor: psycopg.Cursor[Any], numbers: list[int]) -> dict[int, Vectors]:
        n = len(self._entities)
        query, kind = self._join(numbers)
        found = {
            number: (np.zeros((n, self._views[number].width), dtype=np.float32), np.zeros(n, dtype=np.bool_))
            for number in numbers
        }
        self._upload(cursor)
        for block in copy_out(cursor, query, kind):
            rows = block["row"].astype(np.int64)
            for number, (values, present) in found.items():
                values[rows] = values_of(block, f"v{number}")
                present[rows] = block[f"p{number}"]
        return found

    def slices(self, rows: int) -> Iterator[pa.Table]:
        """Run the join once and yield what `to_arrow` would return, on-demand views included, `rows` at a time."""
        done = self.vectors()
        for start in range(0, len(self._entities), rows):
            part = FastRetrievalJob(
                self.config,
                self._entities.iloc[start : start + rows],
                self._time_column,
                self._views,
                full_feature_names=self.full_feature_names,
                on_demand_feature_views=self.on_demand_feature_views,
                metadata=self.metadata,
                by_created=self._by_created,
                done=[(values[start : start + rows], present[start : start + rows]) for values, present in done],
            )
            yield part.to_arrow()

    def _upload(self, cursor: psycopg.Cursor[Any]) -> None:
        """Put the entities into a table that dies with the connection: a killed job leaves nothing behind."""
        keys = self._keys()
        names = [sql.Identifier(f"key_{position}") for position in range(len(keys))]
        cursor.execute(
            sql.SQL("create temporary table entities (row int4, {}, at timestamptz) on commit drop").format(
                sql.SQL(", ").join(sql.SQL("{} int8").format(name) for name in names)
            )
        )
        records = entity_records(
            [self._entities[key].to_numpy(dtype=np.int64) for key in keys], _micros(self._entities[self._time_column])
        )
        copy_in(cursor, sql.SQL("copy pg_temp.entities from stdin (format binary)").format(), records)
        cursor.execute("analyze pg_temp.entities")

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        del timeout  # the stock store ignores it too
        table = pa.Table.from_pandas(self._entities, preserve_index=False)
        columns, names = table.columns, table.column_names
        for view, (values, present) in zip(self._views, self.vectors(), strict=True):
            missing = None if present.all() else ~present
            columns += [pa.array(column, mask=missing) for column in np.ascontiguousarray(values.T)]
            names += [f"{view.name}__{name}" if self.full_feature_names else name for name in view.features]
        return pa.Table.from_arrays(columns, names)


class FastPostgresOfflineStore(stock.PostgreSQLOfflineStore):  # type: ignore[misc]
    """The stock store, but for the two queries that move millions of rows."""

    @staticmethod
    def get_historical_features(  # noqa: PLR0917 - Feast's signature
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | str | None,
        registry: Any,
        project: str,
        full_feature_names: bool = False,  # noqa: FBT001, FBT002
        filter_by_created_timestamp: bool = False,  # noqa: FBT001, FBT002
        **kwargs: Any,
    ) -> stock.PostgreSQLRetrievalJob:
        """Return the job of a point-in-time join."""
        on_demand = OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry)
        wanted = features_by_view(feature_refs, feature_views, on_demand)
        views = [JoinView.of(view, features) for view, features in wanted.items()]
        if not isinstance(entity_df, pd.DataFrame) or not views or None in views:
            return stock.PostgreSQLOfflineStore.get_historical_features(
                config,
                feature_views,
                feature_refs,
                entity_df,
                registry,
                project,
                full_feature_names,
                filter_by_created_timestamp,
                **kwargs,
            )
        schema = dict(zip(entity_df.columns, entity_df.dtypes, strict=True))
        time_column = offline_utils.infer_event_timestamp_from_entity_df(schema)
        join_keys = offline_utils.get_expected_join_keys(project, feature_views, registry)
        offline_utils.assert_expected_columns_in_entity_df(schema, join_keys, time_column)
        times = entity_df[time_column]
        return FastRetrievalJob(
            config,
            entity_df,
            time_column,
            [view for view in views if view is not None],
            full_feature_names=full_feature_names,
            on_demand_feature_views=on_demand,
            metadata=RetrievalMetadata(
                features=feature_refs,
                keys=[column for column in schema if column != time_column],
                min_event_timestamp=times.min().to_pydatetime() if len(times) else None,
                max_event_timestamp=times.max().to_pydatetime() if len(times) else None,
            ),
            by_created=filter_by_created_timestamp,
        )

    @staticmethod
    def latest(
        config: RepoConfig,
        view: FeatureView,
        start: datetime,
        end: datetime,
        block_rows: int,
        *,
        user_ids: Int64 | None = None,
    ) -> tuple[int, Iterator[tuple[Int64, Int64, Float32]]]:
        """Return how many people have rows in [start, end], and their latest ones in blocks.

        A block is (user_ids int64[n], event times in microseconds int64[n], values float32[n, width]). With `user_ids`
        only theirs, looked up one by one: the cost is that of these people, whatever the size of the table.
        """
        plan = JoinView.of(view, [field.name for field in view.features])
        if plan is None:
            raise TypeError(f"The view {view.name} does not hold Float32 features of a plain table.")
        key = sql.Identifier(plan.columns[0])
        within = sql.SQL("{} between {} and {}").format(
            plan.at, sql.Literal(start.astimezone(UTC)), sql.Literal(end.astimezone(UTC))
        )
        if user_ids is not None:
            within = sql.SQL("{} and {} = any ({})").format(within, key, sql.Literal(user_ids.tolist()))
        count = sql.SQL("select count(*) from (select distinct {} from {} where {}) people").format(
            key, plan.table, within
        )
        with open_postgres(config) as connection:
            row = connection.execute(count).fetchone()
        order = [sql.SQL("{} desc").format(column) for column in (key, plan.at, plan.created) if column is not None]
        # Descending throughout, which is the primary key read backwards.
        query = sql.SQL("select distinct on ({}) {}, {}, {} from {} s where {} order by {}").format(
            key, key, plan.at, plan.values(sql.Identifier("s")), plan.table, within, sql.SQL(", ").join(order)
        )
        kind = record(scalar("key", "int8"), scalar("at", "timestamptz"), reals("values", plan.width))

        def blocks() -> Iterator[tuple[Int64, Int64, Float32]]:
            with open_postgres(config) as connection, connection.cursor() as cursor:
                for block in copy_out(cursor, query, kind, block_rows):
                    yield block["key"].astype(np.int64), micros_of(block, "at"), values_of(block, "values")

        return int(row[0]) if row else 0, blocks()

    @staticmethod
    def written_until(config: RepoConfig, view: FeatureView, until: datetime, user_ids: Int64) -> Int64:
        """Return those of a few people who have a row of a view that was written and valid by `until`, by id."""
        plan = JoinView.of(view, [])
        if plan is None or plan.created is None:
            raise TypeError(f"The table of the view {view.name} does not say when a row was written.")
        key = sql.Identifier(plan.columns[0])
        query = sql.SQL("select distinct {} from {} where {} = any (%(ids)s) and {} <= %(at)s and {} <= %(at)s").format(
            key, plan.table, key, plan.at, plan.created
        )
        with open_postgres(config) as connection:
            found = connection.execute(query, {"ids": user_ids.tolist(), "at": until.astimezone(UTC)}).fetchall()
        return np.sort(np.array([row[0] for row in found], dtype=np.int64))


def _micros(times: "pd.Series[Any]") -> Int64:
    return np.asarray(pd.to_datetime(times, utc=True).to_numpy(dtype="datetime64[us]").astype(np.int64))
