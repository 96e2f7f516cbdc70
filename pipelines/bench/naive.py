"""What a tutorial would have written with the same libraries over the same data: `python -m pipelines.bench.naive`.

One `get_online_features` for all candidates into a DataFrame, exact search over all vectors, the requester by a fresh
query through SQLAlchemy and pandas, XGBoost through DataFrame and DMatrix in both directions. It runs as a bare loop:
no HTTP, no validation, no safety check after the ranking, no log of impressions; it ranks the 300 nearest whether they
are eligible or not; pair features come from our own vectorised function. All of that is in its favour.
"""

import json
import resource
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from pydantic import SecretStr

from feature_repo.layout import RANKING_FEATURES, VIEWS
from feature_repo.population.people import People
from feature_repo.schema import offered_schema
from feature_repo.transforms import PairContext, mutually_eligible, ranking_features_both
from infra.clock import SystemClock
from infra.endpoints import Endpoints
from infra.settings import Settings
from pipelines.bench.errors import NothingMeasured
from registry.models.embedding import item_vectors, pair_scores, query_vectors
from registry.models.item_index import IndexConfig, IndexKind, ItemIndex
from registry.models.ranker import combine, filled
from registry.promotion.release_cache import ReleaseCache
from registry.release import Release, load_release

THREADS: Final = 2


@dataclass(frozen=True)
class NaiveJob:
    """Where the data are, for whom to recommend, and for how long."""

    data_dir: str
    database_url: str
    redis_url: str
    user_ids: list[int]
    seconds: float
    n_candidates: int = 300
    limit: int = 20


@dataclass
class NaiveSeen:
    """Milliseconds of each answer, whole and per stage, and what it all took."""

    latency_ms: list[float] = field(default_factory=list)
    stages_ms: dict[str, list[float]] = field(default_factory=dict)
    seconds: float = 0.0
    cpu_s: float = 0.0
    resident_mb: float = 0.0
    start_s: float = 0.0


class Naive:
    """The composition, loaded once; `recommend` answers one request."""

    def __init__(self, job: NaiveJob) -> None:
        from sqlalchemy import create_engine

        from feature_repo.store import open_feature_store

        self._job = job
        settings = Settings(
            environment="test",
            data_dir=Path(job.data_dir),
            database_url=SecretStr(job.database_url),
            redis_url=SecretStr(job.redis_url),
        )
        endpoints = Endpoints(job.database_url, job.redis_url)
        self._engine = create_engine(endpoints.sqlalchemy_url("duet"))
        self._store: Any = open_feature_store(settings, endpoints)
        self._release = _release(settings)
        embedding = self._release.embedding
        visible = self._release.index.user_ids
        self._index = ItemIndex.build(
            np.array(visible), item_vectors(*embedding.vectors(visible)), IndexConfig(kind=IndexKind.FLAT)
        )[0].with_threads(THREADS)
        self._took: dict[str, list[float]] = {}
        self._clock = SystemClock()

    def recommend(self, user_id: int) -> list[tuple[int, float]]:
        """Return (user id, score) of the people for somebody, best first."""
        from sqlalchemy import text

        began = time.perf_counter()
        with self._engine.connect() as connection:
            asker = pd.read_sql(text("SELECT * FROM users WHERE user_id = :id"), connection, params={"id": user_id})
            decided = pd.read_sql(
                text("SELECT target_id FROM interactions WHERE actor_id = :id"), connection, params={"id": user_id}
            )
        if asker.empty:
            return []
        began = self._took_until_now("requester", began)
        embedding = self._release.embedding
        own_chooser, own_chosen = embedding.vectors([user_id])
        ids, _ = self._index.search(query_vectors(own_chooser, own_chosen, 0.5)[0], self._job.n_candidates)
        began = self._took_until_now("retrieval", began)
        frame = self._store.get_online_features(
            features=[f"{layout.name}:{column}" for layout in VIEWS for column in layout.columns],
            entity_rows=[{"user_id": int(i)} for i in (user_id, *ids)],
            full_feature_names=True,
        ).to_df()
        began = self._took_until_now("features", began)
        requester, candidates = _people(frame[:1]), _people(frame[1:])
        at = self._clock.now().timestamp()
        forward, backward = pair_scores(own_chooser, own_chosen, *embedding.vectors(candidates.user_ids))
        unknown = np.full(len(ids), np.nan, dtype=np.float32)
        context = PairContext(forward, backward, unknown, np.zeros(len(ids), dtype=np.float32))
        both = ranking_features_both(requester, candidates, context, at)
        began = self._took_until_now("pair features", began)
        likes, liked_back = (self._predicted(features) for features in both)
        ranked = pd.DataFrame({"user_id": candidates.user_ids, "score": combine(likes, liked_back)})
        ranked["eligible"] = mutually_eligible(requester, candidates, at)
        kept = ranked[ranked["eligible"] & ~ranked["user_id"].isin(decided["target_id"])]
        best = kept.sort_values("score", ascending=False).head(self._job.limit)
        self._took_until_now("ranking", began)
        return list(best[["user_id", "score"]].itertuples(index=False, name=None))

    def run(self) -> NaiveSeen:
        """Answer one person after the other until the time is over."""
        job, seen = self._job, NaiveSeen()
        for user_id in job.user_ids[:3]:
            self.recommend(user_id)
        self._took = seen.stages_ms
        began, cpu = time.perf_counter(), time.process_time()
        number = 3
        while (now := time.perf_counter()) - began < job.seconds:
            self.recommend(job.user_ids[number % len(job.user_ids)])
            seen.latency_ms.append((time.perf_counter() - now) * 1e3)
            number += 1
        seen.seconds, seen.cpu_s = time.perf_counter() - began, time.process_time() - cpu
        seen.resident_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return seen

    def _predicted(self, features: Any) -> Any:
        import xgboost

        ranker = self._release.ranker
        features = filled(features) if ranker.fills else features
        frame = pd.DataFrame(features, columns=list(RANKING_FEATURES))[list(ranker.feature_names)]
        return ranker.booster.predict(xgboost.DMatrix(frame))

    def _took_until_now(self, stage: str, began: float) -> float:
        now = time.perf_counter()
        self._took.setdefault(stage, []).append((now - began) * 1e3)
        return now


def _people(frame: pd.DataFrame) -> People:
    views = [
        frame[[f"{layout.name}__{column}" for column in layout.columns]].to_numpy(dtype=np.float32) for layout in VIEWS
    ]
    return People(frame["user_id"].to_numpy(dtype=np.int64), *views)


def _release(settings: Settings) -> Release:
    local = ReleaseCache(settings.data_dir / "releases").last_good()
    if local is None:
        raise NothingMeasured(f"There is no release in `{settings.data_dir}`, so there is nothing to compare with.")
    return load_release(
        local.directories,
        local.versions,
        feature_schema=offered_schema(),
        feature_names=RANKING_FEATURES,
        expected_digests=local.digests,
        threads=THREADS,
    )


def main() -> None:
    """Read a job as JSON from standard input, run it, print what was seen as JSON."""
    began = time.perf_counter()
    naive = Naive(NaiveJob(**json.loads(sys.stdin.read())))
    start_s = time.perf_counter() - began
    seen = naive.run()
    seen.start_s = start_s
    sys.stdout.write(json.dumps(asdict(seen)))


if __name__ == "__main__":
    main()
