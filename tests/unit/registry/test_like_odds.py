"""The odds of a like speak of two people both ways, say nothing of strangers, and survive being written and mapped."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from feature_repo.layout import EVIDENCE_COLUMNS
from pipelines.features.events import LIKE, Events
from pipelines.retrieval.config import NeighboursConfig
from pipelines.retrieval.neighbours import fit_neighbours
from registry.contracts import ArtifactKind
from registry.errors import CorruptArtifact
from registry.models.artifacts import write_artifact
from registry.models.like_odds import LikeOdds
from registry.models.neighbours import Neighbours
from registry.scoring.context import pair_evidence

IDS = np.array([11, 12, 13], dtype=np.int64)
ODDS = LikeOdds(
    chooser=np.array([[1.0, 0.5], [2.0, 0.0], [0.0, -1.0]], dtype=np.float32),
    chosen=np.array([[3.0, 0.25], [-1.0, 0.0], [0.5, 1.0]], dtype=np.float32),
    intercept=-2.0,
)


@pytest.fixture(scope="module")
def known() -> Neighbours:
    one = np.array([0], dtype=np.int32)
    likes = Events(IDS, one, one + 1, np.full(1, LIKE, np.int8), np.array([1_000_000]))
    return replace(fit_neighbours(likes, NeighboursConfig(threads=1)), like_odds=ODDS)


def test_the_odds_are_those_of_factors_and_both_leans() -> None:
    forward, backward = ODDS.between(0, np.array([1, 2]))
    assert forward.tolist() == [-2.0 + 1.0 * -1.0 + 0.5 + 0.0, -2.0 + 1.0 * 0.5 + 0.5 + 1.0]
    assert backward.tolist() == [-2.0 + 2.0 * 3.0 + 0.0 + 0.25, -2.0 + 0.0 * 3.0 - 1.0 + 0.25]


def test_of_strangers_nothing_is_said() -> None:
    assert np.isnan(ODDS.between(0, np.array([-1]))).all()
    assert np.isnan(ODDS.between(-1, np.array([0, 1]))).all()


def test_the_ranker_reads_both_ways(known: Neighbours) -> None:
    evidence = pair_evidence(known.taste_of(11, []), np.array([12, 99]))
    there, back = (EVIDENCE_COLUMNS.index(f"like_log_odds{end}") for end in ("", "_backward"))
    assert evidence[0, [there, back]].tolist() == [-2.5, 4.25]
    assert np.isnan(evidence[1, [there, back]]).all()


def test_written_and_mapped_they_are_the_same(known: Neighbours, tmp_path: Path) -> None:
    manifest = write_artifact(tmp_path, ArtifactKind.INDEX, known.writers(), parameters={}, lineage={})
    found = Neighbours.load(tmp_path, manifest)
    assert found is not None
    assert found.like_odds is not None
    assert np.array_equal(found.like_odds.between(0, np.arange(3)), ODDS.between(0, np.arange(3)))


def test_an_artefact_of_an_earlier_version_has_none(known: Neighbours, tmp_path: Path) -> None:
    before = replace(known, like_odds=None)
    manifest = write_artifact(tmp_path, ArtifactKind.INDEX, before.writers(), parameters={}, lineage={})
    found = Neighbours.load(tmp_path, manifest)
    assert found is not None
    assert found.like_odds is None
    assert np.isnan(pair_evidence(found.taste_of(11, [12]), IDS)[:, EVIDENCE_COLUMNS.index("like_log_odds")]).all()


@pytest.mark.parametrize(
    "odds",
    [
        pytest.param(replace(ODDS, chosen=ODDS.chosen[:2]), id="of fewer people"),
        pytest.param(replace(ODDS, chooser=ODDS.chooser[:, :1]), id="of two widths"),
        pytest.param(replace(ODDS, intercept=float("nan")), id="no number"),
    ],
)
def test_odds_that_do_not_fit_are_refused(known: Neighbours, tmp_path: Path, odds: LikeOdds) -> None:
    broken = replace(known, like_odds=odds)
    manifest = write_artifact(tmp_path, ArtifactKind.INDEX, broken.writers(), parameters={}, lineage={})
    with pytest.raises(CorruptArtifact, match="the odds of a like"):
        Neighbours.load(tmp_path, manifest)
