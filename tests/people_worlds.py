"""People made by hand for the tests of features."""

from typing import Any

import numpy as np

from feature_repo.layout import PROFILE, VIEWS
from feature_repo.population.people import People

NOON = 1_780_315_200.0  # 2026-06-01 12:00 UTC
BORN_1996_06_01 = 9648.0


def person(user_id: int, **values: float) -> People:
    """One person; every column not named takes its default."""
    rows = [layout.default_rows(1) for layout in VIEWS]
    for column, value in values.items():
        for layout, row in zip(VIEWS, rows, strict=True):
            if column in layout.columns:
                row[0, layout.index(column)] = value
    return People.build([user_id], *rows)


def crowd(n: int, seed: int = 0, first_id: int = 1) -> People:
    """Return n people with something missing here and there."""
    rng = np.random.default_rng(seed)
    rows: list[Any] = []
    for layout in VIEWS:
        values = rng.gamma(2.0, 3.0, size=(n, layout.width)).astype(np.float32)
        values[rng.random(values.shape) < 0.2] = np.nan
        rows.append(values)
    profile = rows[0]

    def put(column: str, values: Any) -> None:
        profile[:, PROFILE.index(column)] = values

    put("birth_day", np.where(rng.random(n) < 0.1, np.nan, rng.integers(4000, 13000, n)))
    put("gender", rng.integers(0, 4, n))
    put("seeking", rng.choice([0, 2, 4, 6, 14], n))
    put("age_min", np.where(rng.random(n) < 0.5, np.nan, rng.integers(18, 30, n)))
    put("age_max", np.where(rng.random(n) < 0.5, np.nan, rng.integers(30, 60, n)))
    away = rng.random(n) < 0.1
    put("latitude", np.where(away, np.nan, rng.uniform(-85, 85, n)))
    put("longitude", np.where(away, np.nan, rng.uniform(-180, 180, n)))
    put("max_distance_km", np.where(rng.random(n) < 0.3, np.nan, rng.uniform(1, 9000, n)))
    put("n_interests", rng.integers(0, 9, n))
    put("bio_length", rng.integers(0, 900, n))
    for word in range(10):
        put(f"interests_{word:02d}", rng.integers(0, 2**24, n) & rng.integers(0, 2**24, n))
    return People.build(np.arange(first_id, first_id + n), *rows)
