"""The job that erases people."""

import dagster as dg

from pipelines.runs.launchpad import default_config
from pipelines.upkeep.erasure.assets import erasures

ERASE_PEOPLE = dg.define_asset_job(
    "erase_people",
    config=default_config(erasures),
    selection=dg.AssetSelection.assets("erasures"),
    description="Erases people who asked to be forgotten from every place, and carries on what is open.",
)
