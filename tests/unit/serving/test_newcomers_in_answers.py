"""People whom the index does not know as they are get vectors beside it, and lose them when they are gone."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog

from feature_repo.population.people import People
from feature_repo.population.population import Population
from feature_repo.transforms import CONTENT_WIDTH, content_inputs, profile_fingerprints
from infra.metrics import serving_metrics
from infra.settings import Settings
from registry.models.embedding import Embedding, EmbeddingParameters, item_vectors
from registry.models.item_index import IndexConfig, ItemIndex
from registry.release import Release
from registry.scoring.recent_likes import RecentLikes
from serving.api.recommendation_models import RecommendationRequest
from serving.experiments.assignment import Variant
from serving.people import newcomers as module
from serving.people.newcomers import look
from serving.people.newcomers_keeper import NewcomersKeeper
from serving.snapshots.population_source import PopulationSnapshot
from tests.clocks import FixedClock
from tests.serving_fakes import make_town, people_of, person
from tests.serving_world import DIMENSIONS, load_town, write_artifacts
from tests.snapshots import AT
from tests.unit.serving.test_recommend_path import REQUEST_ID

NOW = AT.timestamp()
MOST = 100
INDEXED = range(1, 41)
FITTED = range(1, 31)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """Thirty people with fitted factors; ten more are in the index by their profile, which decides by interests."""
    town = load_town(write_artifacts(tmp_path_factory.mktemp("release"), INDEXED))
    rng = np.random.default_rng(1)
    factors = rng.random((len(FITTED), 2 * DIMENSIONS)).astype(np.float32) + 0.1
    weights = rng.random((CONTENT_WIDTH, 2 * DIMENSIONS)).astype(np.float32)
    embedding = Embedding(
        np.arange(1, len(FITTED) + 1),
        factors[:, :DIMENSIONS],
        factors[:, DIMENSIONS:],
        weights,
        np.zeros(2 * DIMENSIONS, np.float32),
        EmbeddingParameters(),
    )
    people = inhabitants(INDEXED)
    vectors = item_vectors(*embedding.vectors(people.user_ids, content_inputs(people, NOW)))
    prints = np.where(embedding.known(people.user_ids), np.uint64(0), profile_fingerprints(people))
    index, _ = ItemIndex.build(people.user_ids, vectors, IndexConfig(threads=1), fingerprints=prints)
    return replace(town, embedding=embedding, index=index)


def inhabitants(ids: Any, **changes: Any) -> People:
    return people_of([person(user_id, **changes) for user_id in ids])


def snapshot_of(population: Population, likes: dict[int, list[int]] | None = None) -> PopulationSnapshot:
    return PopulationSnapshot(population, RecentLikes.build(sorted((likes or {}).items())), {}, AT, None)


@pytest.fixture
def population() -> Population:
    return Population.build(inhabitants(INDEXED))


def test_there_is_nobody_beside_an_index_that_knows_everybody(release: Release, population: Population) -> None:
    found = look(release, snapshot_of(population), NOW, most=MOST)
    assert (len(found.newcomers), found.missing, found.left_out) == (0, 0, 0)


def test_who_came_since_is_a_newcomer_wherever_the_population_keeps_them(
    release: Release, population: Population
) -> None:
    grown = population.upsert(inhabitants([50, 51]))
    for state in (grown, grown.compacted()):
        found = look(release, snapshot_of(state), NOW, most=MOST)
        assert found.newcomers.user_ids.tolist() == [50, 51]
        expected = item_vectors(*release.embedding.content_factors(content_inputs(inhabitants([50, 51]), NOW)))
        assert found.newcomers.vectors == pytest.approx(expected)
        assert (found.missing, found.newcomers.outdated.tolist()) == (2, [])


def test_a_changed_profile_makes_a_newcomer_only_of_whom_the_index_knows_by_it(
    release: Release, population: Population
) -> None:
    changed = population.upsert(inhabitants([3, 35], interests=["chess", "jazz"]))
    for state in (changed, changed.compacted()):
        found = look(release, snapshot_of(state), NOW, most=MOST)
        assert (found.newcomers.user_ids.tolist(), found.newcomers.outdated.tolist()) == ([35], [35])
        assert found.missing == 0


def test_who_changed_back_is_no_newcomer_any_more(release: Release, population: Population) -> None:
    changed = population.upsert(inhabitants([35], interests=["sailing"]))
    first = look(release, snapshot_of(changed), NOW, most=MOST)
    back = changed.upsert(inhabitants([35]))
    assert len(first.newcomers) == 1
    assert not len(look(release, snapshot_of(back), NOW, most=MOST, last=first).newcomers)


def test_who_was_hidden_or_deleted_is_no_newcomer(release: Release, population: Population) -> None:
    grown = population.upsert(inhabitants([50, 51]))
    first = look(release, snapshot_of(grown), NOW, most=MOST)
    gone = look(release, snapshot_of(grown.remove([51])), NOW, most=MOST, last=first)
    assert gone.newcomers.user_ids.tolist() == [50]
    compacted = grown.compacted()
    first = look(release, snapshot_of(compacted), NOW, most=MOST)
    gone = look(release, snapshot_of(compacted.remove([50])), NOW, most=MOST, last=first)
    assert gone.newcomers.user_ids.tolist() == [51]


def test_only_what_is_new_is_computed_again(
    release: Release, population: Population, monkeypatch: pytest.MonkeyPatch
) -> None:
    grown = population.upsert(inhabitants([50, 51]))
    likes = {50: [3], 51: [1]}
    first = look(release, snapshot_of(grown, likes), NOW, most=MOST)
    computed: list[int] = []
    real: Callable[..., Any] = module.newcomer_vectors

    def noted(embedding: Embedding, ids: Any, *rest: Any) -> Any:
        computed.extend(ids.tolist())
        return real(embedding, ids, *rest)

    monkeypatch.setattr(module, "newcomer_vectors", noted)
    more = grown.upsert(inhabitants([52])).upsert(inhabitants([51], interests=["sailing"]))
    second = look(release, snapshot_of(more, likes), NOW, most=MOST, last=first)
    assert computed == [51, 52]
    whole = look(release, snapshot_of(more, likes), NOW, most=MOST)
    assert second.newcomers.user_ids.tolist() == whole.newcomers.user_ids.tolist() == [50, 51, 52]
    assert second.newcomers.vectors == pytest.approx(whole.newcomers.vectors)


def test_likes_are_folded_in_a_few_at_a_time_until_all_are(
    release: Release, population: Population, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = snapshot_of(population.upsert(inhabitants([50, 51, 52])), {50: [3], 51: [3], 52: [99]})
    whole = look(release, snapshot, NOW, most=MOST)
    assert whole.holds(release, snapshot)
    monkeypatch.setattr(module, "_FOLDED_AT_ONCE", 1)
    first = look(release, snapshot, NOW, most=MOST)
    assert not first.holds(release, snapshot)
    second = look(release, snapshot, NOW, most=MOST, last=first)
    assert second.holds(release, snapshot)
    assert second.newcomers.vectors == pytest.approx(whole.newcomers.vectors, rel=1e-4)
    profile = item_vectors(*release.embedding.content_factors(content_inputs(inhabitants([51, 52]), NOW)))
    assert first.newcomers.vectors[1:] == pytest.approx(profile)
    assert second.newcomers.vectors[1] != pytest.approx(profile[0])


def test_when_there_is_no_place_for_all_the_latest_to_come_go_first(release: Release, population: Population) -> None:
    late = [person(user_id, created_at=AT.replace(day=user_id - 49)) for user_id in (50, 51, 52)]
    grown = population.upsert(people_of(late)).upsert(inhabitants([35], interests=["sailing"]))
    found = look(release, snapshot_of(grown), NOW, most=2)
    assert found.newcomers.user_ids.tolist() == [51, 52]
    assert (found.missing, found.left_out) == (3, 2)
    assert not len(look(release, snapshot_of(grown), NOW, most=0).newcomers)


def keeper(
    release: Release | None, snapshot: PopulationSnapshot | None, clock: FixedClock, most: int = MOST
) -> NewcomersKeeper:
    return NewcomersKeeper(
        snapshot=lambda: snapshot,
        releases=lambda: {Variant.CHAMPION: release, Variant.CHALLENGER: None},
        most=most,
        clock=clock,
        metrics=serving_metrics(),
    )


def test_newcomers_are_kept_by_release_and_told_to_health(
    release: Release, population: Population, clock: FixedClock
) -> None:
    kept = keeper(release, snapshot_of(population.upsert(inhabitants([50]))), clock)
    assert kept.report().age_s is None
    asyncio.run(kept.step())
    assert kept.current[release.mark].user_ids.tolist() == [50]
    clock.advance(2)
    report = kept.report()
    assert (report.people, report.missing, report.left_out, report.age_s, report.message) == (1, 1, 0, 2.0, None)
    kept.close()


def test_nothing_is_computed_while_nothing_changes(release: Release, population: Population, clock: FixedClock) -> None:
    kept = keeper(release, snapshot_of(population.upsert(inhabitants([50]))), clock)
    asyncio.run(kept.step())
    first = kept.current
    asyncio.run(kept.step())
    assert kept.current is first
    kept.close()


def test_releases_of_the_same_numbers_have_newcomers_of_their_own(
    release: Release, population: Population, clock: FixedClock, tmp_path: Path
) -> None:
    other = load_town(write_artifacts(tmp_path, range(1, 11)))
    assert other.release_id == release.release_id
    kept = NewcomersKeeper(
        snapshot=lambda: snapshot_of(population.upsert(inhabitants([50]))),
        releases=lambda: {Variant.CHAMPION: release, Variant.CHALLENGER: other},
        most=MOST,
        clock=clock,
        metrics=serving_metrics(),
    )
    asyncio.run(kept.step())
    assert set(kept.current) == {release.mark, other.mark}
    assert len(kept.current[other.mark]) > len(kept.current[release.mark]) == 1
    kept.close()


def test_the_newcomers_of_a_release_leave_with_it(release: Release, population: Population, clock: FixedClock) -> None:
    serving: dict[Variant, Release | None] = {Variant.CHAMPION: None, Variant.CHALLENGER: release}
    kept = NewcomersKeeper(
        snapshot=lambda: snapshot_of(population),
        releases=lambda: serving,
        most=MOST,
        clock=clock,
        metrics=serving_metrics(),
    )
    asyncio.run(kept.step())
    assert list(kept.current) == [release.mark]
    serving[Variant.CHALLENGER] = None
    asyncio.run(kept.step())
    assert not kept.current
    kept.close()


def test_too_many_newcomers_are_logged_once(release: Release, population: Population, clock: FixedClock) -> None:
    snapshot = snapshot_of(population.upsert(inhabitants([50, 51])))
    kept = keeper(release, snapshot, clock, most=1)
    with structlog.testing.capture_logs() as logs:
        asyncio.run(kept.step())
        kept._snapshot = lambda: replace(snapshot, recent_likes=RecentLikes.nobody())
        asyncio.run(kept.step())
    assert [(log["event"], log["people"]) for log in logs] == [("newcomers_left_out", 1)]
    assert kept.report().left_out == 1
    kept.close()


def test_a_release_that_cannot_be_looked_at_is_told_and_keeps_what_was_found(
    release: Release, population: Population, clock: FixedClock
) -> None:
    kept = keeper(release, snapshot_of(population.upsert(inhabitants([50]))), clock)
    asyncio.run(kept.step())
    before = kept.current
    kept._releases = lambda: {Variant.CHAMPION: replace(release, embedding=None)}  # type: ignore[arg-type]
    asyncio.run(kept.step())
    assert kept.report().message == "Newcomers could not be looked for: AttributeError."
    assert kept.current is before
    kept.close()


def test_a_newcomer_is_an_answer_of_the_index(settings: Settings, clock: FixedClock, tmp_path: Path) -> None:
    town = make_town(settings, clock, release=load_town(write_artifacts(tmp_path, INDEXED)))
    assert town.population is not None
    assert town.release is not None
    town.people.rows[102] = person(102)
    town.population = town.population.upsert(inhabitants([102]))

    def sources() -> list[str]:
        request = RecommendationRequest(user_id=1, limit=100)
        answer = asyncio.run(town.recommender().recommend(request, REQUEST_ID))
        assert answer.level == 1
        return next(list(item.sources) for item in answer.items if item.user_id == 102)

    assert "retrieval" not in sources()
    town.newcomers = {town.release.mark: look(town.release, snapshot_of(town.population), NOW, most=MOST).newcomers}
    assert "retrieval" in sources()
    town.people.hidden.add(102)
    with pytest.raises(StopIteration):
        sources()
