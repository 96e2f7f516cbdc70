import asyncio
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

from feature_repo.layout import RANKING_FEATURES
from feature_repo.schema import offered_schema
from feature_repo.transforms import CONTENT_WIDTH
from infra.settings import Settings
from registry.contracts import ArtifactKind, ReleaseVersions
from registry.models.embedding import Embedding, EmbeddingParameters, item_vectors
from registry.models.item_index import IndexConfig, ItemIndex
from registry.release import Release, load_release
from serving.api.recommendation_models import RecommendationRequest
from serving.errors import UnknownUser
from serving.recommend.answers import Answer
from tests.clocks import FixedClock
from tests.serving_fakes import Town, make_town, person
from tests.serving_world import ranker

PEOPLE = 48


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """Four tastes: whoever divides by four alike is chosen by the same people, the higher ids by many more."""
    root = tmp_path_factory.mktemp("release")
    paths = {kind: root / kind.value for kind in ArtifactKind}
    ids = np.arange(1, PEOPLE + 1)
    chosen = np.eye(4, dtype=np.float32)[ids // 2 % 4] * (ids[:, None] / 8).astype(np.float32)
    chosen += np.float32(0.01) * (ids[:, None] % 5)
    chooser = np.ones_like(chosen)
    content = np.zeros((CONTENT_WIDTH, 8), np.float32), np.full(8, 0.5, np.float32)
    digest = (
        Embedding(ids, chooser, chosen, *content, EmbeddingParameters())
        .save(paths[ArtifactKind.EMBEDDING], {"dataset_digest": "tastes"})
        .digest
    )
    index, _ = ItemIndex.build(
        ids, item_vectors(chooser, chosen), IndexConfig(threads=1), item_vectors(chosen, chooser)
    )
    index.save(paths[ArtifactKind.INDEX], {"embedding_digest": digest})
    lineage = {"embedding_digest": digest, "feature_schema": offered_schema()}
    ranker().save(paths[ArtifactKind.RANKER], lineage, parameters={"last_likes": 20})
    versions = ReleaseVersions(1, 1, 1)
    return load_release(paths, versions, feature_schema=offered_schema(), feature_names=RANKING_FEATURES)


@pytest.fixture
def town(settings: Settings, clock: FixedClock, release: Release) -> Town:
    return make_town(settings, clock, n=PEOPLE, release=release)


def similar(town: Town, anchor: int = 10, user_id: int = 1, **request: Any) -> Answer:
    asked = RecommendationRequest(user_id=user_id, **request)
    return asyncio.run(town.unlogged().similar(anchor, asked, uuid4()))


def ids(answer: Answer) -> list[int]:
    return [item.user_id for item in answer.items]


def test_whom_the_same_people_choose_comes_first_however_popular_others_are(town: Town) -> None:
    answer = similar(town, limit=5)
    assert sorted(ids(answer)) == [2, 18, 26, 34, 42]  # the taste of 10 among men
    assert (answer.level, answer.order, answer.reason) == (1, "similarity", None)
    assert all(0.9 < item.score <= 1.0001 for item in answer.items)
    assert all(item.p_like is None for item in answer.items)


def test_without_a_release_those_with_like_profiles_come_first(town: Town) -> None:
    town.release = None
    answer = similar(town, limit=6)
    assert (answer.level, answer.order) == (2, None)
    rows = town.people.rows
    assert all(rows[user_id]["interests"] == rows[10]["interests"] for user_id in ids(answer)[:3])


def test_without_people_in_memory_nobody_is_similar(town: Town) -> None:
    town.population = None
    answer = similar(town)
    assert (answer.level, answer.items, answer.reason) == (4, [], "population_unavailable")


@pytest.mark.parametrize("level", [1, 2])
def test_only_people_whom_the_requester_may_be_shown_are_in_the_list(town: Town, level: int) -> None:
    if level == 2:
        town.release = None
    town.people.hidden, town.people.decided[1] = {2}, {18}
    town.people.separated = {frozenset({1, 26})}
    answer = similar(town, limit=100)
    assert answer.level == level
    assert sorted(ids(answer)) == [n for n in range(2, PEOPLE + 1, 2) if n not in {2, 10, 18, 26}]


def test_the_list_is_one_page(town: Town) -> None:
    answer = similar(town, limit=9)
    assert (len(answer.items), answer.next) == (9, None)


def test_people_similar_to_somebody_who_was_liked_may_be_sought(town: Town) -> None:
    town.people.decided[1] = {10}
    assert len(similar(town, limit=5).items) == 5


@pytest.mark.parametrize("why", ["hidden", "separated", "gone"])
def test_somebody_whom_the_requester_may_not_see_is_unknown(town: Town, why: str) -> None:
    if why == "hidden":
        town.people.hidden = {10}
    elif why == "separated":
        town.people.separated = {frozenset({1, 10})}
    else:
        del town.people.rows[10]
    with pytest.raises(UnknownUser, match="Nobody has the id 10"):
        similar(town)


def test_a_requester_who_is_not_there_is_unknown(town: Town) -> None:
    with pytest.raises(UnknownUser, match="Nobody has the id 999"):
        similar(town, user_id=999)


def test_somebody_new_is_compared_by_their_profile(town: Town) -> None:
    town.people.rows[100] = person(100)
    answer = similar(town, anchor=100, limit=5)
    assert (answer.level, len(answer.items)) == (1, 5)


def test_nothing_of_it_is_logged_as_shown(town: Town) -> None:
    assert similar(town).items
    assert (town.impressions, town.answers) == ([], [])


def test_without_postgres_nobody_is_shown(town: Town) -> None:
    town.people.down = True
    answer = similar(town)
    assert (answer.level, answer.items, answer.reason) == (4, [], "eligibility_unavailable")
