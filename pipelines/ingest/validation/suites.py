"""The expectations themselves. Rows are checked one by one; totals, against the last accepted snapshot.

Every rule allows what the data contract allows: a missing value means "no restriction" or "not told" and passes.
"""

from datetime import datetime
from typing import Any

from feature_repo.kinds import KINDS
from infra.clock import EARLIEST
from pipelines.ingest.validation.config import ValidationConfig
from pipelines.ingest.validation.frames import Facts


def people_suite(config: ValidationConfig) -> list[Any]:
    """Return what must hold for every person."""
    import great_expectations.expectations as gxe

    numbers = {"latitude": (-90, 90), "longitude": (-180, 180), "age_min": (0, 150), "age_max": (0, 150)}
    return [
        gxe.ExpectColumnValuesToBeOfType(column="user_id", type_="int64"),
        gxe.ExpectColumnValuesToBeOfType(column="visible", type_="bool"),
        gxe.ExpectColumnValuesToNotBeNull(column="user_id"),
        gxe.ExpectColumnValuesToNotBeNull(column="created_at"),
        gxe.ExpectColumnValuesToBeUnique(column="user_id"),
        gxe.ExpectColumnValuesToBeBetween(column="user_id", min_value=1),
        gxe.ExpectColumnValuesToBeBetween(column="age_years", min_value=0, max_value=config.max_age_years),
        gxe.ExpectColumnValuesToBeBetween(column="max_distance_km", min_value=0),
        *[
            gxe.ExpectColumnValuesToBeBetween(column=column, min_value=low, max_value=high)
            for column, (low, high) in numbers.items()
        ],
        gxe.ExpectColumnPairValuesAToBeGreaterThanB(
            column_A="age_max", column_B="age_min", or_equal=True, ignore_row_if="either_value_is_missing"
        ),
    ]  # fmt: skip


def people_totals_suite(config: ValidationConfig, accepted: Facts | None) -> list[Any]:
    """Return what must hold for the number of people, compared with the last accepted snapshot."""
    return [_volume(config, accepted, least=2)]


def interactions_suite(as_of: datetime) -> list[Any]:
    """Return what must hold for every interaction."""
    import great_expectations.expectations as gxe

    return [
        gxe.ExpectColumnValuesToBeOfType(column="actor_id", type_="int64"),
        gxe.ExpectColumnValuesToBeOfType(column="target_id", type_="int64"),
        gxe.ExpectColumnValuesToNotBeNull(column="actor_id"),
        gxe.ExpectColumnValuesToNotBeNull(column="target_id"),
        gxe.ExpectColumnValuesToNotBeNull(column="occurred_at"),
        gxe.ExpectColumnValuesToBeInSet(column="kind", value_set=list(KINDS)),
        gxe.ExpectColumnValuesToBeInSet(column="actor_is_known", value_set=[True]),
        gxe.ExpectColumnValuesToBeInSet(column="target_is_known", value_set=[True]),
        gxe.ExpectColumnValuesToBeInSet(column="is_self", value_set=[False]),
        gxe.ExpectColumnValuesToBeBetween(column="occurred_at", min_value=EARLIEST, max_value=as_of),
        gxe.ExpectCompoundColumnsToBeUnique(column_list=["actor_id", "target_id", "kind", "occurred_at"], mostly=0.999),
    ]


def interactions_totals_suite(config: ValidationConfig, accepted: Facts | None) -> list[Any]:
    """Return what must hold for volume, freshness and the share of likes."""
    import great_expectations.expectations as gxe

    before = accepted.get("like_rate") if accepted else None
    drift = config.max_like_rate_drift
    low, high = (before - drift, before + drift) if isinstance(before, float) else (0.0, 1.0)
    return [
        _volume(config, accepted, least=1),
        gxe.ExpectColumnValuesToBeBetween(column="silent_days", min_value=0, max_value=config.max_silence_days),
        gxe.ExpectColumnValuesToNotBeNull(column="like_rate"),
        gxe.ExpectColumnValuesToBeBetween(column="like_rate", min_value=max(low, 0.0), max_value=min(high, 1.0)),
    ]


def _volume(config: ValidationConfig, accepted: Facts | None, least: int) -> Any:
    import great_expectations.expectations as gxe

    before = accepted.get("rows") if accepted else None
    expected = int(before * (1 - config.max_volume_drop)) if isinstance(before, int) else 0
    return gxe.ExpectColumnValuesToBeBetween(column="rows", min_value=max(least, expected))
