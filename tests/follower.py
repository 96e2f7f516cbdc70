"""A watcher of releases as a serving process has one, without the rest of it: `python -m tests.follower` is killed."""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from feature_repo.layout import RANKING_FEATURES
from feature_repo.schema import offered_schema
from infra.clock import SystemClock
from infra.db.postgres import connect
from infra.metrics import serving_metrics
from registry.mlflow.observer import observe
from registry.mlflow.rest import MlflowRest
from registry.promotion.audit import PostgresPromotionLog
from registry.promotion.release_cache import LocalRelease, ReleaseCache
from registry.promotion.trial import ReleaseTrial
from registry.release import Release, load_release
from registry.store import ModelRegistry
from serving.releases.watcher import ReleaseWatcher


def load(local: LocalRelease) -> Release:
    return load_release(
        local.directories,
        local.versions,
        feature_schema=offered_schema(),
        feature_names=RANKING_FEATURES,
        expected_digests=local.digests,
    )


@contextmanager
def follower(
    data_dir: Path, registry: ModelRegistry | None, database_url: str, *, prove: bool = True
) -> Iterator[ReleaseWatcher]:
    """Have a watcher over the copies below `data_dir`, obeying pins and writing the audit as serving does.

    Without `prove` what is new is loaded at once: not tried in a process of its own, which takes seconds, first.
    """
    trial = ReleaseTrial(offered_schema(), RANKING_FEATURES)
    with connect(database_url, autocommit=True) as connection:
        log = PostgresPromotionLog(connection)
        watcher = ReleaseWatcher(
            registry=registry,
            cache=ReleaseCache(data_dir / "releases"),
            feature_schema=offered_schema(),
            prove=trial.prove if prove else lambda _local: None,
            load=load,
            trial=lambda release: release.embedding.warm(),
            observe=lambda registry, stages, honoured: observe(registry, log, stages, honoured),
            poll_s=1.0,
            clock=SystemClock(),
            metrics=serving_metrics(),
            pinned=log.open_pin,
            settle_s=0.05,
        )
        with closing(watcher):
            yield watcher


def look(
    data_dir: Path, mlflow_url: str | None, database_url: str, *, prove: bool = True
) -> tuple[str | None, str | None]:
    """Start a watcher, let it look once, and return what it then serves and refuses."""
    registry = None if mlflow_url is None else MlflowRest(mlflow_url)
    with follower(data_dir, registry, database_url, prove=prove) as watcher:
        asyncio.run(watcher.step())
        release = watcher.current
        if registry is not None:
            registry.close()
        return (release.release_id if release else None), watcher.refusal


if __name__ == "__main__":
    print(look(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))  # noqa: T201 for whoever runs it by hand
