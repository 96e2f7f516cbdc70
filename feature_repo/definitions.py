"""The Feast catalogue: one entity, four packed views of a person, the directed pair, and the service rankers name.

Imported lazily, by `feature_repo.store` only: importing Feast takes seconds. A person plays two roles in a pair;
each view enters the service once per role, told apart by its join key.
"""

from datetime import timedelta

import pandas as pd
from feast import Entity, FeatureService, FeatureView, Field, OnDemandFeatureView, RequestSource, ValueType
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import PostgreSQLSource
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Array, Float32, Float64

from feature_repo.layout import (
    ACTIVITY,
    ATTRIBUTES,
    CONTEXT_COLUMNS,
    PROFILE,
    RANKING_FEATURES,
    RECIPROCITY,
    VIEWS,
    Layout,
)

VALUES = "values"
SERVICE = "ranking_v1"
PAIR_VIEW = "ranking_features"
ROLES = {"requester": "requester_id", "candidate": "candidate_id"}
DESCRIPTIONS = {
    PROFILE.name: "What a person says about themselves: age, gender, wishes, home, interests.",
    ATTRIBUTES.name: "Numeric attributes of the imported data set, one slot each.",
    ACTIVITY.name: "Likes and passes sent and received in windows, smoothed like rates, last seen.",
    RECIPROCITY.name: "Matches, how often likes are returned, messages.",
}
# What people say about themselves holds until they say otherwise; what they did goes stale.
LASTING = (PROFILE.name, ATTRIBUTES.name)


def role_name(role: str, layout: Layout) -> str:
    """Return what a view is called in a role, e.g. `candidate_activity`."""
    return f"{role}_{layout.name.removeprefix('user_')}"


user = Entity(
    name="user",
    join_keys=["user_id"],
    value_type=ValueType.INT64,
    description="A person, as the one who asks and as the one who is shown.",
)

pair_context = RequestSource(
    name="pair_context",
    schema=[
        Field(name="requested_at", dtype=Float64, description="Unix seconds at which the pair is looked at."),
        *(Field(name=column, dtype=Float32) for column in CONTEXT_COLUMNS),
    ],
    description="What the first stage knows of a directed pair.",
)


def user_view(layout: Layout, ttl: timedelta) -> FeatureView:
    """Return the view of one layout over its table; zero `ttl` keeps rows for ever."""
    return FeatureView(
        name=layout.name,
        entities=[user],
        ttl=ttl,
        schema=[
            Field(
                name=VALUES,
                dtype=Array(Float32),
                description=", ".join(layout.columns),
                tags={"width": str(layout.width), "columns": ",".join(layout.columns)},
            )
        ],
        source=PostgreSQLSource(
            name=f"{layout.name}_rows",
            table=f"features.{layout.name}",
            timestamp_field="event_timestamp",
            created_timestamp_column="created_timestamp",
        ),
        online=True,
        description=DESCRIPTIONS[layout.name],
    )


@on_demand_feature_view(  # type: ignore[untyped-decorator]
    name=PAIR_VIEW,
    # The views come in by the service, once per role: Feast keys the sources of an on-demand view by view name,
    # so one view cannot be declared here twice.
    sources=[pair_context],
    # Feast drops a field's own description and tags here when it reads the registry back.
    schema=[Field(name=VALUES, dtype=Array(Float32))],
    tags={"width": str(len(RANKING_FEATURES)), "columns": ",".join(RANKING_FEATURES)},
    mode="pandas",
    description="The ranking vector of a directed pair: the same function that serving calls.",
)
def ranking_features(joined: pd.DataFrame) -> pd.DataFrame:
    """Compute the ranking vectors of a joined frame."""
    # Feast stores this text and runs it elsewhere, where only `pd` and `np` are known.
    from feature_repo.joined import joined_ranking_features

    return joined_ranking_features(joined)


def catalogue(activity_ttl: timedelta) -> list[Entity | FeatureView | OnDemandFeatureView | FeatureService]:
    """Return everything that `apply` registers, in order."""
    views = [user_view(layout, timedelta(0) if layout.name in LASTING else activity_ttl) for layout in VIEWS]
    in_roles = [
        view.with_name(role_name(role, layout)).with_join_key_map({"user_id": join_key})
        for role, join_key in ROLES.items()
        for view, layout in zip(views, VIEWS, strict=True)
    ]
    service = FeatureService(
        name=SERVICE,
        features=[*in_roles, ranking_features],
        description="Everything a ranker of version 1 may read about a directed pair.",
    )
    return [user, *views, ranking_features, service]
