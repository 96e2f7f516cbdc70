"""A synthetic world of a stated size in a folder of its own: built once, used by every later benchmark.

The folder holds its own Postgres, Redis and releases, so nothing of the user's is touched. A marker that is written
last says what the world is made of; a folder whose marker says anything else is made anew.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np

from feature_repo.population.people import People
from feature_repo.schema import offered_schema
from infra.cli.console import print_note
from infra.clock import Clock
from infra.embedded.postgres import EmbeddedPostgres
from infra.embedded.servers import stop_all
from infra.endpoints import Endpoints, open_endpoints
from infra.settings import Settings
from pipelines.bench.errors import ForeignFolder
from pipelines.bench.filling import PEOPLE, Filled, fill, filled_before
from pipelines.bench.steps import Steps
from pipelines.ingest.world.synthetic import WORLD_VERSION
from registry.promotion.release_cache import ReleaseCache

FORMAT: Final = 1
RELEASE: Final = "1"
"""Raise it with every change of how a release is made that its settings do not tell."""
_MARKER: Final = "bench_world.json"
RANKER_WINDOW: Final = timedelta(days=10)


@dataclass(frozen=True)
class WorldSpec:
    """What a world is made of: people, about how many interactions each, over how many days."""

    people: int
    interactions_per_person: float = 10.0
    days: int = 60
    seed: int = 11


@dataclass(frozen=True)
class BenchWorld:
    """A finished world: its settings (servers of its own), what its marker says, and how long its steps took."""

    spec: WorldSpec
    settings: Settings
    facts: dict[str, Any]
    reused: bool

    @property
    def until(self) -> datetime:
        """Return the end of the world's history."""
        return datetime.fromisoformat(str(self.facts["until"]))

    @property
    def people(self) -> People:
        """Return everybody with profile and features as of the end of the world, mapped."""
        return People.load(self.settings.data_dir / PEOPLE)

    @property
    def cache(self) -> ReleaseCache:
        """Return the releases of this world."""
        return ReleaseCache(self.settings.data_dir / "releases")


def world_settings(base: Settings, folder: Path) -> Settings:
    """Return the settings with every server and file inside `folder`, on free ports; nothing configured is used."""
    return base.model_copy(
        update={
            "environment": "test",
            "data_dir": folder.resolve(),
            "database_url": None,
            "redis_url": None,
            "postgres": base.postgres.model_copy(update={"port": 0, "read_replica_url": None}),
            "redis": base.redis.model_copy(update={"port": 0}),
            "mlflow": base.mlflow.model_copy(update={"port": 0, "url": None}),
            "serving": base.serving.model_copy(update={"port": 0, "host": "127.0.0.1"}),
        }
    )


@contextmanager
def open_world(base: Settings, root: Path, spec: WorldSpec, clock: Clock) -> Iterator[tuple[BenchWorld, Endpoints]]:
    """Have the world below `root`, built if it is not there, with its servers running for the length of the block.

    Raises:
        ForeignFolder: the folder of this world holds something else.
    """
    folder = root / f"people-{spec.people}"
    settings = world_settings(base, folder)
    wanted = _wanted(spec)
    found = _marker(folder)
    reused = found is not None and found.get("finished") is True and found.get("world") == wanted
    if not reused:
        _clear(folder, settings, found)
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder, {"finished": False, "world": wanted})
    with open_endpoints(settings) as endpoints:
        facts = dict(found) if found is not None and reused else {"world": wanted}
        steps = Steps(clock)
        filled = None
        if not reused:
            filled = fill(settings, endpoints, steps, clock, parameters=_parameters(spec))
            filled.save(folder)
            facts |= {"until": filled.until.isoformat(), "interactions": len(filled.events), "finished": True}
        cache = ReleaseCache(folder / "releases")
        if facts.get("release_made_of") != _release_made_of() or cache.last_good() is None:
            if filled is None:
                print_note("the release of this world was made otherwise than one is made now: it is made anew")
                filled = filled_before(endpoints, folder, steps)
            facts |= _release(settings, filled, spec, steps)
            facts |= {"release_made_of": _release_made_of()}
        if steps.seconds:
            print_note(f"world of {spec.people:,} people made in {steps.total_s:.0f} s in {settings.data_dir}")
            every = {**facts.get("steps_s", {}), **steps.seconds}
            facts |= {"steps_s": every, "total_s": round(sum(every.values()), 1)}
            _write(folder, facts)
        yield BenchWorld(spec, settings, facts, not steps.seconds), endpoints


def _wanted(spec: WorldSpec) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "generator": WORLD_VERSION,
        "feature_schema": offered_schema(),
        **asdict(spec),
    }


def _marker(folder: Path) -> dict[str, Any] | None:
    try:
        found = json.loads((folder / _MARKER).read_text())
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _write(folder: Path, content: dict[str, Any]) -> None:
    (folder / _MARKER).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")


def _clear(folder: Path, settings: Settings, marker: dict[str, Any] | None) -> None:
    if not folder.exists() or not any(folder.iterdir()):
        return
    if marker is None:
        raise ForeignFolder(
            f"`{folder}` holds something that is not a benchmark's world: move it away or choose another `--world-dir`."
        )
    print_note(f"{folder} holds another world or half of one: it is made anew")
    remove_world(folder, settings)


def remove_world(folder: Path, settings: Settings) -> None:
    """Stop the servers of a world and remove all of its files, those that Postgres keeps aside for root included."""
    stop_all(settings)
    data = EmbeddedPostgres(settings).known_data
    if data is not None:
        shutil.rmtree(data, ignore_errors=True)
    shutil.rmtree(folder)


def _parameters(spec: WorldSpec) -> dict[str, Any]:
    return {
        "people": spec.people,
        "seed": spec.seed,
        "interactions_per_person": spec.interactions_per_person,
        "days": spec.days,
    }


def _release_made_of() -> str:
    """Return a digest of all that decides how a release is made, apart from the world."""
    from pipelines.ranking.config import DatasetConfig, RankerConfig
    from pipelines.results.store import combined_digest
    from pipelines.retrieval.config import EmbeddingConfig, IndexBuildConfig

    configs = (EmbeddingConfig(), IndexBuildConfig(), DatasetConfig(), RankerConfig())
    return combined_digest({type(config).__name__: config.model_dump_json() for config in configs} | {"as": RELEASE})


def _release(settings: Settings, filled: Filled, spec: WorldSpec, steps: Steps) -> dict[str, Any]:
    import pandas as pd

    from pipelines.bench.factors import bench_embedding
    from pipelines.bench.releases import train_bench_ranker, write_release
    from pipelines.features.events import microseconds
    from pipelines.retrieval.config import EmbeddingConfig
    from pipelines.retrieval.content import inputs_of
    from pipelines.retrieval.dataset import confidence_matrix
    from pipelines.retrieval.neighbours import fit_neighbours

    until_us = microseconds(pd.Timestamp(filled.until))
    t0_us = until_us - int(RANKER_WINDOW.total_seconds()) * 1_000_000
    people = People.build(filled.people.user_ids, profile=filled.people.profile, attributes=filled.people.attributes)
    with steps.step("factors") as advance:
        matrix = confidence_matrix(filled.events.between(None, t0_us), EmbeddingConfig())
        embedding = bench_embedding(
            filled.world.people,
            people.user_ids,
            matrix,
            inputs_of(people, t0_us / 1e6),
            until_s=until_us // 1_000_000,
            seed=spec.seed,
            progress=advance,
        )
        del matrix
    with steps.step("ranker"):
        ranker, ranker_report = train_bench_ranker(
            people,
            people.take(np.flatnonzero(filled.visible)),
            filled.events,
            embedding,
            after_us=t0_us,
            until_us=until_us,
            seed=spec.seed,
        )
    cache = ReleaseCache(settings.data_dir / "releases")
    shutil.rmtree(cache.root, ignore_errors=True)
    with steps.step("embedding, index and ranker as a release"):
        visible = people.take(np.flatnonzero(filled.visible))
        neighbours = fit_neighbours(filled.events, inputs=inputs_of(people, until_us / 1e6))
        release, index_report = write_release(
            cache, 1, embedding, ranker, visible, at_s=until_us / 1e6, neighbours=neighbours
        )
        cache.remember(release)
    return {
        "release": release.release_id,
        "ranker": asdict(ranker_report),
        "index": {
            "kind": index_report.kind.value,
            "nlist": index_report.nlist,
            "nprobe": index_report.nprobe,
            "recall": round(index_report.recall, 4),
            "people": index_report.people,
            "build_s": round(index_report.build_s + index_report.tune_s, 1),
        },
    }
