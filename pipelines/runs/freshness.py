"""How old results may become before the UI says so: Dagster's own daemon looks, and starts no run for it."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Final

import dagster as dg

FRESH: Final = {
    # Made every night; what is missed one night is worth a look, two nights an alarm.
    "online_features": dg.FreshnessPolicy.time_window(timedelta(hours=50), warn_window=timedelta(hours=26)),
    "candidate_index": dg.FreshnessPolicy.time_window(timedelta(hours=50), warn_window=timedelta(hours=26)),
    # A new candidate comes with the nightly index, at the latest with the weekly training.
    "release_candidate": dg.FreshnessPolicy.time_window(timedelta(days=15), warn_window=timedelta(days=8)),
}


def kept_fresh(assets: Iterable[dg.AssetsDefinition]) -> list[dg.AssetsDefinition]:
    """Return the assets with the policy that each of them has here."""
    return [found.map_asset_specs(_with_policy) for found in assets]


def _with_policy(spec: dg.AssetSpec) -> dg.AssetSpec:
    policy = FRESH.get(spec.key.to_user_string())
    return spec if policy is None else spec.replace_attributes(freshness_policy=policy)
