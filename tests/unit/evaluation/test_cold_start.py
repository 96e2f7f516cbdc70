"""The list of somebody new gets better with their first swipes, and nothing else moves the curve."""

from dataclasses import replace

import numpy as np
import pytest
import xgboost

from feature_repo.layout import RANKING_FEATURES
from feature_repo.population.population import Population
from pipelines.evaluation.cold_start import cold_start_curve
from pipelines.evaluation.compare import evaluate
from pipelines.evaluation.config import EvaluationConfig
from pipelines.evaluation.scene import Scene
from pipelines.evaluation.windows import windows_between
from pipelines.features.events import LIKE, PASS, Events
from pipelines.ranking.context import EverybodysFactors
from pipelines.retrieval.config import EmbeddingConfig, IndexBuildConfig
from pipelines.retrieval.content import inputs_of
from pipelines.retrieval.factorise import fit_embedding
from pipelines.retrieval.index_build import build_candidate_index
from registry.contracts import ArtifactKind, FileEntry, Manifest, ReleaseVersions
from registry.models.ranker import ListPolicy, Order, Ranker
from registry.release import Release
from tests.serving_fakes import people_of, person

N = 80
T0, T1 = 1_770_000_000_000_000, 1_770_086_400_000_000


def camps() -> Events:
    """Everybody likes their own of four camps, which no profile tells; the last four likes come after T1.

    Before, each passes on two people of other camps and then meets both kinds in turn: the third swipe is a like.
    """
    rng = np.random.default_rng(5)
    rows = []
    for actor in range(N):
        others = np.arange(1 - actor % 2, N, 2)
        same = rng.permutation(others[others // 2 % 4 == actor // 2 % 4])
        apart = rng.permutation(others[others // 2 % 4 != actor // 2 % 4])
        seen = [*apart[:2], *np.stack([same[:6], apart[2:8]], 1).ravel()]
        for place, target in enumerate([*seen, *same[6:]]):
            kind = LIKE if target in same else PASS
            rows.append((T1 - 1_000_000 + place if place < len(seen) else T1 + place, actor, int(target), kind))
    rows.sort()
    at, actor, target, kind = (np.array(column) for column in zip(*rows, strict=True))
    ids = np.arange(N, dtype=np.int64) + 10
    return Events(ids, actor.astype(np.int32), target.astype(np.int32), kind.astype(np.int8), at)


@pytest.fixture(scope="module")
def scene() -> Scene:
    people = people_of([person(10 + number, interests=[], birth_date=None) for number in range(N)])
    events = camps()
    known = events.between(None, T1)
    inputs = inputs_of(people, T1 / 1e6)
    settings = EmbeddingConfig(dimensions=8, alpha=10, pass_confidence=100, regularization=1, content_rounds=0)
    embedding, _ = fit_embedding(
        known,
        people.user_ids,
        inputs,
        settings,
    )
    index, _ = build_candidate_index(embedding, people.user_ids, inputs, IndexBuildConfig())
    no_features = xgboost.DMatrix(
        np.zeros((2, len(RANKING_FEATURES))), np.array([0, 1]), feature_names=list(RANKING_FEATURES)
    )
    trees = xgboost.train({"objective": "binary:logistic", "max_depth": 1, "nthread": 1}, no_features, 1)
    ranker = Ranker.from_booster(trees, RANKING_FEATURES)
    ranker = Ranker(**{**ranker.__dict__, "policy": ListPolicy(Order.RETRIEVAL, weight=1.0)})
    manifest = Manifest(kind=ArtifactKind.RANKER, files={"ranker.ubj": FileEntry(sha256="0" * 64, size=1)})
    release = Release(ReleaseVersions(1, 1, 1), embedding, index, ranker, {ArtifactKind.RANKER: manifest})
    return Scene(
        people, events, windows_between(events, T0, T1), EverybodysFactors.of(embedding, people.user_ids, inputs),
        EvaluationConfig(n_candidates=100, bootstrap_rounds=50), judged=release, population=Population.build(people),
    )  # fmt: skip


def test_the_list_of_somebody_new_gets_better_with_their_first_swipes(scene: Scene) -> None:
    curve = cold_start_curve(scene)
    likes = curve[curve["measure"] == "ndcg_at_20"].set_index("swipes")
    assert likes.index.tolist() == [0, 1, 2, 3, 5, 10], "nobody has decided twenty times"
    assert likes["people"].tolist() == [N] * 6
    assert likes.loc[1, "gain_low"] > 0, "a pass says which camp it is not"
    assert likes.loc[0, "mean"] < likes.loc[1, "mean"] < likes.loc[2, "mean"]
    assert likes.loc[3, "gain_low"] > likes.loc[2, "gain_high"], "the third swipe is a like"
    assert np.isnan(likes.loc[0, "gain"])


def test_a_generated_world_says_what_each_list_is_truly_worth(scene: Scene) -> None:
    def same_camp(actors: np.ndarray, targets: np.ndarray) -> np.ndarray:
        camps = [(ids - 10) // 2 % 4 for ids in (actors, targets)]
        return (camps[0] == camps[1]).astype(float)

    curve = cold_start_curve(scene, same_camp).set_index(["measure", "swipes"])["mean"]
    truth = curve["true_match_precision_at_10"]
    assert truth[0] < truth[2] < truth[3]
    assert truth[10] == pytest.approx(0.4, abs=0.02), "four of their camp are left, and ten places"


def test_the_curve_is_in_the_report_with_a_picture(scene: Scene) -> None:
    few = replace(scene, config=scene.config.model_copy(update={"cold_start_people": 12, "max_people": 10}))
    report = evaluate(few)
    assert set(report.cold_start["people"]) == {12}
    assert report.figures["cold_start"].startswith(b"\x89PNG")


def test_there_is_no_curve_where_it_is_off_or_nobody_has_decided_or_no_release_is_judged(scene: Scene) -> None:
    off = replace(scene, config=scene.config.model_copy(update={"cold_start_people": 0}))
    alone = replace(scene, judged=None)
    all_new = replace(scene, windows=windows_between(scene.events, T0, T1 - 2_000_000))
    for nothing in (off, alone, all_new):
        assert cold_start_curve(nothing).empty
    assert "cold_start" not in evaluate(alone).figures
