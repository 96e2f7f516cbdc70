"""From the rows of a point-in-time join to ranking vectors: the offline border of the pure transformations."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import MalformedFeatures
from feature_repo.layout import EVIDENCE_COLUMNS, TASTE_COLUMNS, VIEWS, Layout
from feature_repo.people import People
from feature_repo.transforms.pair import PairContext, ranking_features

if TYPE_CHECKING:
    import pandas as pd

Float32 = NDArray[np.float32]


def joined_ranking_features(joined: "pd.DataFrame") -> "pd.DataFrame":
    """Return a frame with the column `values` (float32 lists) for a frame joined in both roles.

    A view that is absent, or a row without a value, counts as the layout's default row.
    """
    import pandas as pd

    packed = ranking_features(
        people_in_role(joined, "requester"),
        people_in_role(joined, "candidate"),
        PairContext(
            **{column: joined[column].to_numpy(dtype=np.float32) for column in TASTE_COLUMNS},
            evidence=joined[list(EVIDENCE_COLUMNS)].to_numpy(dtype=np.float32),
        ),
        joined["requested_at"].to_numpy(dtype=np.float64),
    )
    return pd.DataFrame({"values": list(packed)}, index=joined.index)


def people_in_role(joined: "pd.DataFrame", role: str) -> People:
    """Return the people who play `role`, one per row of the join."""
    n = len(joined)
    key = f"{role}_id"
    ids = joined[key].to_numpy(dtype=np.int64) if key in joined else np.zeros(n, dtype=np.int64)
    views = []
    for layout in VIEWS:
        column = f"{role}_{layout.name.removeprefix('user_')}__values"
        views.append(packed_rows(joined[column], layout) if column in joined else layout.default_rows(n))
    return People(ids, *views)


def packed_rows(values: Iterable[Sequence[float] | None], layout: Layout) -> Float32:
    """Return float32[n, width] from a column of lists; None becomes the layout's default row."""
    rows = [layout.default_row if row is None else np.asarray(row, dtype=np.float32) for row in values]
    if set(map(len, rows)) - {layout.width}:
        raise MalformedFeatures(
            f"A row of {layout.name} does not have {layout.width} values: recompute the features with this version."
        )
    return np.concatenate(rows).reshape(-1, layout.width) if rows else layout.default_rows(0)
