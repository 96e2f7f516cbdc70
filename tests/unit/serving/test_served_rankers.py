"""What the ranker's service says of the matrices that it is sent."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from infra.clock import SystemClock
from infra.settings import Settings
from registry.errors import CorruptArtifact, UnknownVersion
from registry.scoring.list_policy import ForwardModel
from serving.recommend.ranker_matrices import FeatureMatrix, packed
from serving.releases.served_rankers import ServedRankers
from tests.serving_world import ranker, remember_town

ROWS = np.array([[0.5], [np.nan], [3.5]], dtype=np.float32)
RELEASE = "e1-i1-r1"


@pytest.fixture
def rankers(settings: Settings, tmp_path: Path) -> ServedRankers:
    remember_town(settings.data_dir, range(1, 11), tmp_path / "written", model=ranker())
    return ServedRankers(settings, SystemClock())


def matrix(**changes: Any) -> FeatureMatrix:
    return FeatureMatrix(**{"release": RELEASE, "features": packed(ROWS[[0, 2]]), **changes})


def test_rows_of_numbers_and_their_short_form_are_answered_alike(rankers: ServedRankers) -> None:
    written = FeatureMatrix.model_validate_json(f'{{"release": "{RELEASE}", "features": [[0.5], [3.5]]}}')
    plain, short = rankers.predict([written, matrix()])
    assert plain == short
    assert plain.values == ranker().predict(ROWS[[0, 2]]).tolist()


def test_one_wrong_matrix_spoils_no_other(rankers: ServedRankers) -> None:
    wrong = [
        matrix(features=[[1.0, 2.0]]),
        matrix(features="AAAA"),  # three bytes are no float32
        matrix(features="é"),
        matrix(features=[[None]]),
        matrix(release="e1-i1-r9"),
        matrix(release="newest"),
        matrix(model=ForwardModel.CHOICE),
        matrix(digest="0" * 64),
    ]
    good, *problems = rankers.predict([matrix(), *wrong])
    assert good.values is not None
    assert all(answer.values is None for answer in problems)
    assert [str(answer.problem)[:40] for answer in problems] == [
        "A row of `features` has 2 numbers, the m",
        "`features` is text, but not base64 of wh",
        "`features` is text, but not base64 of wh",
        "A row has no feature at all, so its scor",
        "Version 9 of the ranker has no copy belo",
        "`newest` is not a release id: write it l",
        "The ranker of e1-i1-r1 has no model `cho",
        "Version 1 of the ranker has no copy belo",
    ]


def test_a_matrix_says_nothing_but_what_it_may(rankers: ServedRankers) -> None:
    with pytest.raises(ValidationError):
        FeatureMatrix.model_validate_json('{"release": "e1-i1-r1", "features": [["1"]]}')
    with pytest.raises(ValidationError):
        FeatureMatrix.model_validate_json('{"release": "e1-i1-r1", "features": [[1]], "more": 1}')


def test_a_ranker_is_loaded_once_and_a_damaged_copy_never(rankers: ServedRankers, settings: Settings) -> None:
    first = rankers.ranker(RELEASE, ForwardModel.LIKE)
    assert rankers.ranker("e9-i9-r1", ForwardModel.LIKE) is first  # another release with the same ranker
    (copy,) = (settings.data_dir / "releases" / "ranker").glob("1-*")
    with (copy / "model.ubj").open("ab") as model:
        model.write(b"x")
    with pytest.raises(CorruptArtifact):
        ServedRankers(settings, SystemClock()).ranker(RELEASE, ForwardModel.LIKE)
    with pytest.raises(UnknownVersion, match="DUET_MLFLOW__URL"):
        rankers.ranker("e1-i1-r2", ForwardModel.LIKE)
