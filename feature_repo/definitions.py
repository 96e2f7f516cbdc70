"""The Feast catalogue: one entity, four views of a person, the directed pair, and the service that rankers name.

`feast -c feature_repo apply` registers what stands at module level. Importing Feast takes seconds, so the rest of Duet
imports this lazily. A person plays two roles in a pair; each view enters the service once per role, told apart by its
join key.
"""

from datetime import timedelta
from hashlib import sha256

import pandas as pd
from feast import Entity, FeatureService, FeatureView, Field, RequestSource, ValueType
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import PostgreSQLSource
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float32, Float64

from feature_repo.layout import (
    ACTIVITY,
    ATTRIBUTES,
    CONTEXT_COLUMNS,
    PROFILE,
    RANKING_FEATURES,
    RECIPROCITY,
    Layout,
)
from feature_repo.stores.online import PACKED

SERVICE = "ranking_v1"
PAIR_VIEW = "ranking_features"
ROLES = {"requester": "requester_id", "candidate": "candidate_id"}


def view_of(layout: Layout) -> FeatureView:
    """Return the view of one layout over its table."""
    return FeatureView(
        name=layout.name,
        entities=[user],
        ttl=timedelta(days=layout.ttl_days),
        schema=[
            Field(
                name=feature.name,
                dtype=Float32,
                description=feature.description,
                tags={"default": str(feature.default)},
            )
            for feature in layout.features
        ],
        source=PostgreSQLSource(
            name=f"{layout.name}_rows",
            table=f"features.{layout.name}",
            timestamp_field="event_timestamp",
            created_timestamp_column="created_timestamp",
        ),
        online=True,
        tags={PACKED: "true"},
        description=layout.description,
    )


def _digest(names: tuple[str, ...]) -> str:
    """Return eight hexadecimal digits that tell apart lists of names."""
    return sha256("\n".join(names).encode()).hexdigest()[:8]


def in_role(view: FeatureView, role: str) -> FeatureView:
    """Return a view of the person in one role, e.g. `candidate_activity`."""
    name = f"{role}_{view.name.removeprefix('user_')}"
    return view.with_name(name).with_join_key_map({"user_id": ROLES[role]})


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

user_profile = view_of(PROFILE)
user_attributes = view_of(ATTRIBUTES)
user_activity = view_of(ACTIVITY)
user_reciprocity = view_of(RECIPROCITY)


@on_demand_feature_view(  # type: ignore[untyped-decorator]
    name=PAIR_VIEW,
    # The views come in by the service, once per role: Feast keys the sources of an on-demand view by view name,
    # so one view cannot be declared here twice.
    sources=[pair_context],
    # Feast drops a field's own description and tags here when it reads the registry back.
    schema=[Field(name=name, dtype=Float32) for name in RANKING_FEATURES],
    mode="pandas",
    # Feast applies a changed on-demand view only where more than its fields has changed.
    description="What a ranker may read of a directed pair: the same function that serving calls. "
    f"Fields {_digest(RANKING_FEATURES)}.",
)
def ranking_features(joined: pd.DataFrame) -> pd.DataFrame:
    """Compute the ranking vectors of a joined frame."""
    # Feast stores this text and runs it elsewhere, where only `pd` and `np` are known.
    from feature_repo.joined import joined_ranking_features

    return joined_ranking_features(joined)


person_views = (user_profile, user_attributes, user_activity, user_reciprocity)
ranking_v1 = FeatureService(
    name=SERVICE,
    features=[*(in_role(view, role) for role in ROLES for view in person_views), ranking_features],
    description="Everything a ranker of version 1 may read about a directed pair.",
)
CATALOGUE = (user, *person_views, ranking_features, ranking_v1)
"""Everything that `apply` registers, in order."""
