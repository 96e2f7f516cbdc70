"""From the rows of a point-in-time join to ranking vectors: the offline border of the pure transformations."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import MalformedFeatures
from feature_repo.layout import EVIDENCE_COLUMNS, RANKING_FEATURES, TASTE_COLUMNS, VIEWS, Layout
from feature_repo.population.people import People
from feature_repo.transforms.pair import PairContext, ranking_features

if TYPE_CHECKING:
    import pandas as pd

Float32 = NDArray[np.float32]


def joined_ranking_features(joined: "pd.DataFrame") -> "pd.DataFrame":
    """Return a frame of float32 columns, one per ranking feature, for a frame joined in both roles.

    A column that is absent, and a value that is missing, count as the feature's default.
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
    return pd.DataFrame(packed, columns=list(RANKING_FEATURES), index=joined.index)


def people_in_role(joined: "pd.DataFrame", role: str) -> People:
    """Return the people who play `role`, one per row of the join."""
    n = len(joined)
    key = f"{role}_id"
    ids = joined[key].to_numpy(dtype=np.int64) if key in joined else np.zeros(n, dtype=np.int64)
    names = {layout: f"{role}_{layout.name.removeprefix('user_')}__" for layout in VIEWS}
    known = (name + column for layout, name in names.items() for column in layout.columns)
    if key in joined and not any(column in joined for column in known):
        # Feast's online path hides what an on-demand view does not declare, and it cannot declare a view twice.
        raise MalformedFeatures(
            f"The features of the {role} are not there, so nothing can be said of the pair: ask for the ranking vector "
            "offline with full feature names, and online for the features of each person."
        )
    return People(ids, *(_rows_of(joined, name, layout) for layout, name in names.items()))


def _rows_of(joined: "pd.DataFrame", prefix: str, layout: Layout) -> Float32:
    """Return float32[n, width]: the features of one view in one role."""
    rows = layout.default_rows(len(joined))
    for position, feature in enumerate(layout.features):
        if prefix + feature.name in joined:
            values = joined[prefix + feature.name].to_numpy(dtype=np.float32)
            # Of a default that is a number, NaN can only say that there is no row.
            rows[:, position] = np.where(np.isnan(values), np.float32(feature.default), values)
    return rows
