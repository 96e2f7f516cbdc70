"""A release swap under load, as an operator makes one: two registered releases, one promotion through the registry.

The second release holds every factor with its sign turned: each score stays what it was, so answers do not change,
but no byte of embedding and index is the same and everything has to be verified, loaded and tried.
"""

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from feature_repo.layout import RANKING_FEATURES
from feature_repo.population.people import People
from feature_repo.schema import offered_schema
from infra.db.postgres import connect
from infra.endpoints import Endpoints
from infra.settings import Settings
from pipelines.bench.errors import ProcessFailed
from pipelines.bench.figures import spread
from pipelines.bench.load import Seen
from pipelines.bench.releases import directory_of, write_release
from pipelines.bench.steps import Steps
from pipelines.bench.world import BenchWorld
from registry.contracts import ArtifactKind, ReleaseVersions
from registry.mlflow.aliases import registry_at
from registry.models.embedding import Embedding
from registry.models.ranker import Ranker
from registry.promotion.audit import PostgresPromotionLog
from registry.promotion.promotion import promote

FIRST, SECOND = 1, 2
ROUND_S = 0.5
"""Before and after the first answer of the new release: the second around the swap."""


@dataclass(frozen=True)
class SwapFigures:
    """Milliseconds before, around and while a release was swapped; `took_s` from promotion to its first answer."""

    took_s: float
    p99_before_ms: float
    p99_around_ms: float
    p99_during_ms: float
    ratio: float
    problems: int


def prepare_releases(world: BenchWorld, endpoints: Endpoints, steps: Steps) -> list[ReleaseVersions]:
    """Have both releases in the local cache and registered in MLflow; return their versions there."""
    settings = world.settings
    if not _is_there(world, SECOND):
        with steps.step("second release"):
            _write_second(world)
    with steps.step("releases into MLflow"):
        return [_register(settings, endpoints, world, number) for number in (FIRST, SECOND)]


def put_into_production(world: BenchWorld, endpoints: Endpoints, versions: ReleaseVersions) -> None:
    """Promote a release, as `duet promote --force` does: it is made up, so its gates have nothing to judge."""
    with (
        registry_at(_mlflow(endpoints), world.settings.mlflow, token=endpoints.mlflow_token) as registry,
        connect(endpoints.database_url) as connection,
    ):
        promote(
            registry,
            PostgresPromotionLog(connection),
            versions,
            actor="duet bench",
            way="automation",
            reason="a made-up release of the benchmark",
            force=True,
            feature_schema=offered_schema(),
            cache=world.cache,
        )


def swap_figures(seen: Seen, promoted_s: float, first_s: float | None) -> SwapFigures:
    """Judge a load during which a release was promoted at `promoted_s` and first answered at `first_s`.

    Raises ProcessFailed when the new release never answered.
    """
    if first_s is None:
        raise ProcessFailed("The promoted release never came to answer: the service's log says why it was refused.")
    due = np.asarray(seen.due_s)
    latency = np.asarray(seen.latency_ms)
    before = spread(latency[due < promoted_s]).p99
    around = spread(latency[np.abs(due - first_s) <= ROUND_S]).p99
    during = spread(latency[(due >= promoted_s) & (due <= first_s + ROUND_S)]).p99
    return SwapFigures(
        took_s=round(first_s - promoted_s, 2),
        p99_before_ms=before,
        p99_around_ms=around,
        p99_during_ms=during,
        ratio=round(around / before, 2),
        problems=sum(seen.problems.values()),
    )


def _is_there(world: BenchWorld, number: int) -> bool:
    return all(any((world.cache.root / kind.value).glob(f"{number}-*")) for kind in ArtifactKind)


def _write_second(world: BenchWorld) -> None:
    first = Embedding.load(directory_of(world.cache, ArtifactKind.EMBEDDING, FIRST))
    turned = replace(
        first,
        chooser=-first.chooser,
        chosen=-first.chosen,
        content_weights=-first.content_weights,
        content_intercept=-first.content_intercept,
    )
    ranker = Ranker.load(directory_of(world.cache, ArtifactKind.RANKER, FIRST), RANKING_FEATURES)
    people = world.people
    visible = np.load(world.settings.data_dir / "people" / "visible.npy", allow_pickle=False)
    known = People.build(people.user_ids, profile=people.profile, attributes=people.attributes)
    write_release(
        world.cache, SECOND, turned, ranker, known.take(np.flatnonzero(visible)), at_s=world.until.timestamp()
    )


def _register(settings: Settings, endpoints: Endpoints, world: BenchWorld, number: int) -> ReleaseVersions:
    from registry.mlflow.logged import MlflowStore

    logging.getLogger("mlflow").setLevel(logging.WARNING)  # it tells of each version it waits for
    store = MlflowStore(_mlflow(endpoints), settings.mlflow.experiment, endpoints.mlflow_token)
    versions = {
        kind: store.log_version(kind, _directory(world, kind, number), release_candidate=f"bench-{number}")
        for kind in ArtifactKind
    }
    return ReleaseVersions.of(versions)


def _directory(world: BenchWorld, kind: ArtifactKind, number: int) -> Path:
    return directory_of(world.cache, kind, number)


def _mlflow(endpoints: Endpoints) -> str:
    if endpoints.mlflow_url is None:
        raise ProcessFailed("A swap needs the MLflow server, and none runs.")
    return endpoints.mlflow_url
