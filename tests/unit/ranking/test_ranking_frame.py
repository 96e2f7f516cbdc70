"""The training rows as a table: what stands in the arrays on disk, under the names a data scientist reads."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from feature_repo.layout import RANKING_FEATURES
from feature_repo.schema import offered_schema
from pipelines.errors import MissingUpstream
from pipelines.ranking.errors import OutdatedRows
from pipelines.ranking.files import RankingRows, save_rows
from pipelines.ranking.frame import ranking_frame
from pipelines.ranking.rows import RowKind
from pipelines.results.store import ResultStore, StepResult

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


def keep(data_dir: Path, *, width: int = len(RANKING_FEATURES), schema: str | None = None) -> None:
    features = np.arange(2 * width, dtype=np.float32).reshape(2, width)
    features[1, 0] = np.nan
    rows = RankingRows(
        features=features,
        labels=np.array([1, 0], dtype=np.float32),
        at_us=np.array([0, 1_000_000], dtype=np.int64) + round(AT.timestamp() * 1e6),
        requester_ids=np.array([7, 8], dtype=np.int64),
        candidate_ids=np.array([9, 2**53], dtype=np.int64),
        weights=np.array([1, 3], dtype=np.float32),
        kind=np.array([RowKind.LIKE, RowKind.CHOICE], dtype=np.int8),
        late=np.array([False, True]),
    )
    results = ResultStore(data_dir / "pipeline")
    save_rows(results.directory("ranking_dataset", "d" * 64), rows)
    facts: dict[str, str | int | float | bool | None] = {"schema": schema or offered_schema()}
    results.publish(StepResult(asset="ranking_dataset", digest="d" * 64, run_id="run", as_of=AT, facts=facts))


def test_every_row_says_who_when_in_which_window_and_what_is_known(tmp_path: Path) -> None:
    keep(tmp_path)
    frame = ranking_frame(tmp_path)
    assert frame.iloc[:, :7].to_dict("list") == {
        "requester_id": [7, 8],
        "candidate_id": [9, 2**53],
        "event_timestamp": [pd.Timestamp(AT), pd.Timestamp(AT) + pd.Timedelta(seconds=1)],
        "kind": ["like", "choice"],
        "window": ["early", "late"],
        "label": [1.0, 0.0],
        "weight": [1.0, 3.0],
    }
    assert frame.columns[7:].tolist() == list(RANKING_FEATURES)
    assert np.isnan(frame.loc[1, RANKING_FEATURES[0]])
    assert frame.loc[0, RANKING_FEATURES[5]] == 5.0


def test_the_folder_is_the_one_of_the_settings_unless_one_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(tmp_path)
    monkeypatch.setenv("DUET_DATA_DIR", str(tmp_path))
    assert len(ranking_frame()) == 2


def test_without_a_dataset_the_job_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingUpstream, match="run the job `train_all` first"):
        ranking_frame(tmp_path)


@pytest.mark.parametrize(
    "other", [{"width": 3}, {"schema": f"{RANKING_FEATURES[0]}:99"}], ids=["another width", "another version"]
)
def test_rows_of_other_features_are_refused(tmp_path: Path, other: dict[str, int | str]) -> None:
    keep(tmp_path, **other)  # type: ignore[arg-type]  # one keyword at a time
    with pytest.raises(OutdatedRows, match="run the job `train_all` again"):
        ranking_frame(tmp_path)
