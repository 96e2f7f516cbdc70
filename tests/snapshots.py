"""Snapshots of a few people for tests: in memory, and as generations on disk."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from feature_repo.population.population import Population
from feature_repo.population.traits import GivenTraits
from registry.scoring.recent_likes import RecentLikes
from serving.snapshots.generations import Generations
from serving.snapshots.population_source import PopulationSnapshot
from tests.serving_fakes import people_of, person

AT = datetime(2026, 6, 1, 12, tzinfo=UTC)


def snapshot_of(*user_ids: int, filled_at: datetime | None = None) -> PopulationSnapshot:
    """People of one city with these ids, each of whom liked the first of them."""
    traits = GivenTraits.of(
        user_ids, [{"city": "Ghent", "smoker": user_id == 2, "pets": user_id} for user_id in user_ids]
    )
    population = Population.build(people_of([person(user_id) for user_id in user_ids]), traits)
    likes = RecentLikes.build([(user_id, [user_ids[0]]) for user_id in user_ids])
    return PopulationSnapshot(population, likes.aligned(np.array(user_ids)), {"height": 3}, AT, filled_at)


def generations_in(root: Path, source: str = "here") -> Generations:
    """Generations below a folder of the test."""
    return Generations(root / "snapshot", source)
