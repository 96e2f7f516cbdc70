"""A person whom an app sends and the same person in a file land with the same values, or for one reason do not."""

import re
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.ingest.columns.attributes import NumericColumns
from pipelines.ingest.columns.cleaning import clean_people
from pipelines.ingest.columns.mapping import ColumnSource
from serving.profiles.models import Profile
from serving.profiles.rows import checked

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
QUOTED = re.compile(r"\s*'[^']*'\s*$")  # in a file, the quotes around a whole label are no part of it
LABEL = st.text("aB é'x", max_size=70)
NAMES = st.lists(
    st.one_of(st.sampled_from(["Man", "woman ", "MAN", " ", "x's (é)"]), LABEL.filter(lambda x: not QUOTED.match(x))),
    max_size=4,
)


def numbers(low: float, high: float) -> st.SearchStrategy[float]:
    """Numbers as people write them in files."""
    return st.floats(low, high).map(lambda value: round(value, 6))


INSTANT = st.datetimes(datetime(1960, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "birth_date": st.dates(datetime(1880, 1, 1).date(), datetime(2030, 1, 1).date()),  # noqa: DTZ001
    "gender": LABEL,
    "seeking": NAMES,
    "interests": NAMES,
    "age_min": st.integers(-5, 150) | st.integers(10**18, 10**30),
    "age_max": st.integers(15, 125),
    "latitude": numbers(-100, 100),
    "longitude": numbers(-200, 200),
    "max_distance_km": numbers(-1, 50_000),
    "bio": st.text("ab ", max_size=40) | st.just("x" * 10_001),
    "created_at": INSTANT,
    "last_active_at": INSTANT,
}


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.fixed_dictionaries({name: st.none() | values for name, values in FIELDS.items()}), min_size=1, max_size=5
    )
)
def test_the_api_and_a_file_judge_a_person_alike(people: list[dict[str, Any]]) -> None:
    rows, reasons = checked([Profile.model_construct(set(person), **person) for person in people], NOW)
    table = pa.table(
        {"user_id": pa.array(range(1, len(people) + 1), pa.int64())}
        | {name: pa.array([as_text(person[name]) for person in people], pa.string()) for name in FIELDS}
    )
    origins = {name: ColumnSource(column=name) for name in table.column_names} | {
        name: ColumnSource(column=name, separator="|") for name in ("seeking", "interests")
    }
    cleaned = clean_people(table, np.arange(len(people)), origins, [], now=NOW, numeric=NumericColumns())
    assert reasons == dict(zip(cleaned.bad.tolist(), cleaned.reasons, strict=True))
    landed = {row["user_id"] - 1: row for row in cleaned.good.to_pylist()}
    for place, person in landed.items():
        for name in FIELDS:
            ours, theirs = rows[place][name], person[name]
            assert ours == theirs or np.float32(ours) == np.float32(theirs), name


def as_text(value: Any) -> str | None:
    """Return a value as a file has it."""
    if value is None:
        return None
    if isinstance(value, list):
        return "|".join(value)
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
