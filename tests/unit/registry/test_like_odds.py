"""The odds of a like speak of two people both ways, say nothing of strangers, and survive being written and mapped."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from feature_repo.layout import EVIDENCE_COLUMNS
from feature_repo.transforms import CONTENT_WIDTH
from pipelines.features.events import LIKE, Events
from pipelines.retrieval.config import NeighboursConfig
from pipelines.retrieval.neighbours import fit_neighbours
from registry.contracts import ArtifactKind
from registry.errors import CorruptArtifact
from registry.models.artifacts import write_artifact
from registry.models.like_odds import LikeOdds, ProfileOdds
from registry.models.neighbours import Neighbours
from registry.scoring.context import pair_evidence

IDS = np.array([11, 12, 13], dtype=np.int64)
ODDS_COLUMNS = [EVIDENCE_COLUMNS.index(f"like_log_odds{end}") for end in ("", "_backward")]
ODDS = LikeOdds(
    chooser=np.array([[1.0, 0.5], [2.0, 0.0], [0.0, -1.0]], dtype=np.float32),
    chosen=np.array([[3.0, 0.25], [-1.0, 0.0], [0.5, 1.0]], dtype=np.float32),
    intercept=-2.0,
)
PROFILE = np.eye(1, CONTENT_WIDTH, dtype=np.float32)[0]
BY_PROFILE = ProfileOdds(
    weights=np.outer(PROFILE, [1.0, 0.0, 0.0, 0.0]).astype(np.float32),
    base=np.array([0.0, 0.5, 2.0, 0.0], dtype=np.float32),
    penalty=np.array([1.0, 4.0], dtype=np.float32),
)


@pytest.fixture(scope="module")
def known() -> Neighbours:
    one = np.array([0], dtype=np.int32)
    likes = Events(IDS, one, one + 1, np.full(1, LIKE, np.int8), np.array([1_000_000]))
    return replace(fit_neighbours(likes, NeighboursConfig(threads=1)), like_odds=ODDS)


def test_the_odds_are_those_of_factors_and_both_leans() -> None:
    forward, backward = ODDS.between(ODDS.of_row(0), np.array([1, 2]))
    assert forward.tolist() == [-2.0 + 1.0 * -1.0 + 0.5 + 0.0, -2.0 + 1.0 * 0.5 + 0.5 + 1.0]
    assert backward.tolist() == [-2.0 + 2.0 * 3.0 + 0.0 + 0.25, -2.0 + 0.0 * 3.0 - 1.0 + 0.25]


def test_of_strangers_nothing_is_said() -> None:
    assert np.isnan(ODDS.between(ODDS.of_row(0), np.array([-1]))).all()
    assert np.isnan(ODDS.between(None, np.array([0, 1]))).all()


def test_of_newcomers_the_profile_tells_until_they_decide() -> None:
    odds = replace(ODDS, by_profile=BY_PROFILE)
    nobody = np.empty(0, dtype=np.int64)
    newcomer = odds.of_newcomer(PROFILE, nobody, nobody)
    assert newcomer is not None
    assert (newcomer.chooser.tolist(), newcomer.chosen.tolist()) == ([1.0, 0.5], [2.0, 0.0])
    stranger, own = odds.of_newcomer(0 * PROFILE, nobody, nobody), odds.between(odds.of_row(0), np.arange(3))
    assert stranger is not None
    assert stranger.chooser[0] == 0.0
    assert np.array_equal(odds.between(newcomer, np.arange(3))[0], own[0]), "they choose as person 11 does"


def test_an_answer_moves_a_newcomer_towards_whoever_is_like_the_liked_one() -> None:
    odds = replace(ODDS, by_profile=BY_PROFILE)
    one, nobody = np.array([0]), np.empty(0, dtype=np.int64)
    before, liking, passing = (
        odds.between(odds.of_newcomer(PROFILE, *decided), np.arange(3))[0]
        for decided in ((nobody, nobody), (one, nobody), (nobody, one))
    )
    assert passing[0] < before[0] < liking[0]
    assert passing[2] < before[2] < liking[2], "on whom they are asked alike"


def test_of_a_newcomer_nothing_is_said_where_nothing_was_learned_of_profiles(known: Neighbours) -> None:
    evidence = pair_evidence(known.taste_of(99, [12], [13], lambda: PROFILE), IDS)
    assert np.isnan(evidence[:, ODDS_COLUMNS]).all()


def test_the_ranker_reads_both_ways(known: Neighbours) -> None:
    evidence = pair_evidence(known.taste_of(11, []), np.array([12, 99]))
    assert evidence[0, ODDS_COLUMNS].tolist() == [-2.5, 4.25]
    assert np.isnan(evidence[1, ODDS_COLUMNS]).all()


def test_written_and_mapped_they_are_the_same(known: Neighbours, tmp_path: Path) -> None:
    whole = replace(known, like_odds=replace(ODDS, by_profile=BY_PROFILE))
    manifest = write_artifact(tmp_path, ArtifactKind.INDEX, whole.writers(), parameters={}, lineage={})
    found = Neighbours.load(tmp_path, manifest)
    assert found is not None
    for told in (lambda taste: taste.taste_of(11, [12]), lambda taste: taste.taste_of(99, [12], [13], lambda: PROFILE)):
        read = pair_evidence(told(found), IDS)[:, ODDS_COLUMNS]
        assert np.array_equal(read, pair_evidence(told(whole), IDS)[:, ODDS_COLUMNS])
        assert np.isfinite(read).all()


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
        pytest.param(
            replace(ODDS, by_profile=replace(BY_PROFILE, penalty=BY_PROFILE.penalty[:1])), id="of another map"
        ),
        pytest.param(
            replace(ODDS, by_profile=replace(BY_PROFILE, weights=BY_PROFILE.weights[1:])), id="of other profiles"
        ),
    ],
)
def test_odds_that_do_not_fit_are_refused(known: Neighbours, tmp_path: Path, odds: LikeOdds) -> None:
    broken = replace(known, like_odds=odds)
    manifest = write_artifact(tmp_path, ArtifactKind.INDEX, broken.writers(), parameters={}, lineage={})
    with pytest.raises(CorruptArtifact, match="the odds of a like"):
        Neighbours.load(tmp_path, manifest)
