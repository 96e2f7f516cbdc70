"""The ranker's training rows as a table with names, for whoever tries another model on them."""

from pathlib import Path

import numpy as np
import pandas as pd

from feature_repo.layout import RANKING_FEATURES
from feature_repo.schema import not_offered, offered_schema
from infra.settings import load_settings
from pipelines.ranking.errors import OutdatedRows
from pipelines.ranking.files import RankingRows, load_rows
from pipelines.ranking.rows import RowKind
from pipelines.results.store import ResultStore, StepResult


def ranking_frame(data_dir: str | Path | None = None) -> pd.DataFrame:
    """Return the rows that the newest ranking dataset of a data folder holds, in its order.

    The columns are `requester_id`, `candidate_id`, `event_timestamp` (UTC), `kind` (`like`: a decision; `choice`: a
    candidate of a list), `window` (`early`: learned from at first; `late`: held out for the lists), `label` (0 or 1),
    `weight`, and then each ranking feature by its name, float32, NaN where it is not known. Without `data_dir`, the
    folder is the one of `DUET_DATA_DIR`.

    Raises:
        MissingUpstream: no dataset was made in this folder.
        OutdatedRows: it was made of features that are computed in another way by now.
    """
    settings = load_settings() if data_dir is None else load_settings(data_dir=Path(data_dir))
    dataset = ResultStore.of(settings).require("ranking_dataset")
    return frame_of(dataset, load_rows(dataset.path))


def frame_of(dataset: StepResult, rows: RankingRows) -> pd.DataFrame:
    """Return the rows of a dataset as `ranking_frame` does; raises OutdatedRows."""
    made_of = str(dataset.facts["schema"])
    if rows.features.shape[1] != len(RANKING_FEATURES) or not_offered(made_of, offered_schema()):
        raise OutdatedRows(
            f"The rows in `{dataset.path}` were made of {rows.features.shape[1]} features that are not those of today: "
            "run the job `train_all` again."
        )
    told = pd.DataFrame(
        {
            "requester_id": rows.requester_ids,
            "candidate_id": rows.candidate_ids,
            "event_timestamp": pd.to_datetime(rows.at_us, unit="us", utc=True).as_unit("us"),
            "kind": np.array([kind.name.lower() for kind in RowKind])[rows.kind],
            "window": np.where(rows.late, "late", "early"),
            "label": rows.labels,
            "weight": rows.weights,
        }
    )
    return pd.concat([told, pd.DataFrame(rows.features, columns=list(RANKING_FEATURES))], axis=1)
