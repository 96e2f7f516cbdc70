"""What a point-in-time join needs to know of one feature view in one role, as SQL that is only ever composed."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
from feast.feature_view import FeatureView
from feast.infra.offline_stores.contrib.postgres_offline_store import postgres as stock
from feast.types import Float32
from psycopg import sql

from feature_repo.stores.packed_copy import reals, record, scalar

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class JoinView:
    """What the join needs to know of one feature view in one role."""

    def __init__(self, view: FeatureView, keys: list[str], features: Sequence[str]) -> None:
        source = view.batch_source
        self.name = view.projection.name_to_use()
        self.keys = keys
        self.columns = [column.name for column in view.entity_columns]
        self.features = tuple(features)
        self.table_name: str = source.get_table_query_string()
        self.table = sql.Identifier(*self.table_name.split("."))
        self.at = sql.Identifier(source.timestamp_field)
        self.created = sql.Identifier(source.created_timestamp_column) if source.created_timestamp_column else None
        self.ttl_s = view.ttl.total_seconds() if view.ttl else 0.0

    @classmethod
    def of(cls, view: FeatureView, features: Sequence[str]) -> "JoinView | None":
        """Return the plan for Float32 features of a plain table, else None."""
        source = view.batch_source
        plain = isinstance(source, stock.PostgreSQLSource) and source.get_table_query_string()[:1] != "("
        types = {field.name: field.dtype for field in view.features}
        if not plain or source.field_mapping or any(types.get(name) != Float32 for name in features):
            return None
        renamed = view.projection.join_key_map
        return cls(view, [renamed.get(column.name, column.name) for column in view.entity_columns], features)

    @property
    def width(self) -> int:
        """Return the number of features."""
        return len(self.features)

    def values(self, table: sql.Identifier) -> sql.Composed:
        """Return the features of `table` as columns without nulls: what is not known is NaN."""
        return sql.SQL(", ").join(
            sql.SQL("coalesce({}.{}, 'NaN')").format(table, sql.Identifier(name)) for name in self.features
        )

    def lateral(self, alias: sql.Identifier, entity_keys: list[sql.Identifier], *, by_created: bool) -> sql.Composed:
        """Return the join that finds the latest row at or before `entities.at`."""
        conditions = [
            sql.SQL("s.{} = entities.{}").format(sql.Identifier(column), key)
            for column, key in zip(self.columns, entity_keys, strict=True)
        ]
        conditions.append(sql.SQL("s.{} <= entities.at").format(self.at))
        if self.ttl_s:
            conditions.append(
                sql.SQL("s.{} >= entities.at - make_interval(secs => {})").format(self.at, sql.Literal(self.ttl_s))
            )
        if by_created and self.created is not None:
            conditions.append(sql.SQL("s.{} <= entities.at").format(self.created))
        order = [column for column in (self.at, self.created) if column is not None]
        return sql.SQL("left join lateral (select s.* from {} s where {} order by {} limit 1) {} on true").format(
            self.table,
            sql.SQL(" and ").join(conditions),
            sql.SQL(", ").join(sql.SQL("s.{} desc").format(column) for column in order),
            alias,
        )

    def in_order(self, until_micros: int) -> tuple[sql.Composed, np.dtype[np.void]]:
        """Return the query for all rows until then, ascending by key, time and creation, and its records' type."""
        key = sql.Identifier(self.columns[0])
        order = [column for column in (key, self.at, self.created) if column is not None]
        query = sql.SQL("select {}, {}, {} from {} s where {} <= {} order by {}").format(
            key,
            self.at,
            self.values(sql.Identifier("s")),
            self.table,
            self.at,
            sql.Literal(EPOCH + timedelta(microseconds=until_micros)),
            sql.SQL(", ").join(order),
        )
        return query, record(scalar("key", "int8"), scalar("at", "timestamptz"), reals("values", self.width))
