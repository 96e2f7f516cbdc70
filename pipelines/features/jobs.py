"""Jobs that bring features up to date: everybody's, or those of the people who changed."""

import dagster as dg

from pipelines.features.assets import changed_features, features
from pipelines.ingest.assets import snapshots
from pipelines.runs.launchpad import default_config

EVERYBODY_NOW = default_config(snapshots, features, features={"history": False})
MATERIALIZE_FEATURES = dg.define_asset_job(
    "materialize_features",
    selection=dg.AssetSelection.assets("people", "interactions", "features", "online_features"),
    config=EVERYBODY_NOW,
    description="Everybody's features as of now, into the online store.",
)
MATERIALIZE_CHANGES = dg.define_asset_job(
    "materialize_changes",
    selection=dg.AssetSelection.assets("changed_features"),
    config=default_config(changed_features),
    description="The features of whoever changed since, into the online store.",
)
