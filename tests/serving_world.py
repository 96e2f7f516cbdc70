"""A small town for serving tests: people in Postgres, and a release whose order is known.

Odd ids are women who seek men, even ids are men who seek women; all live around Ghent and are 25 to 39. The taste of
the release: everybody prefers high ids, because P is all ones and Q grows with the id.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import psycopg
import xgboost

from feature_repo.layout import RANKING_FEATURES
from feature_repo.schema import offered_schema
from feature_repo.transforms import CONTENT_WIDTH
from registry.contracts import ArtifactKind, ReleaseVersions
from registry.models.artifacts import read_manifest
from registry.models.embedding import Embedding, EmbeddingParameters, item_vectors
from registry.models.item_index import IndexConfig, ItemIndex
from registry.models.ranker import Ranker
from registry.promotion.release_cache import ReleaseCache
from registry.release import Release, load_release

GHENT = (51.05, 3.72)
DIMENSIONS = 4
START = datetime(2026, 1, 1, tzinfo=UTC)
RANKED_BY = ("score_forward",)


def insert_people(connection: psycopg.Connection[Any], n: int = 40, **changes: Any) -> list[int]:
    """Insert people 1..n; `changes` replaces columns of everybody. Returns their ids."""
    rng = np.random.default_rng(5)
    ids = list(range(1, n + 1))
    for user_id in ids:
        insert_person(
            connection,
            user_id,
            birth_date=date(1987 + user_id % 15, 3, 4),
            latitude=GHENT[0] + float(rng.normal(0, 0.05)),
            longitude=GHENT[1] + float(rng.normal(0, 0.05)),
            interests=["hiking", "jazz"] if user_id % 3 else ["chess"],
            **changes,
        )
    connection.commit()
    return ids


def insert_person(connection: psycopg.Connection[Any], user_id: int, **columns: Any) -> None:
    """Insert one person; gender and seeking follow from the id unless given."""
    woman = user_id % 2 == 1
    row = {
        "user_id": user_id,
        "birth_date": date(1995, 1, 1),
        "gender": "woman" if woman else "man",
        "seeking": ["man"] if woman else ["woman"],
        "latitude": GHENT[0],
        "longitude": GHENT[1],
        "interests": ["hiking"],
        "created_at": START,
        **columns,
    }
    connection.execute(
        psycopg.sql.SQL("insert into duet.users ({}) values ({})").format(
            psycopg.sql.SQL(", ").join(map(psycopg.sql.Identifier, row)),
            psycopg.sql.SQL(", ").join(psycopg.sql.Placeholder() * len(row)),
        ),
        list(row.values()),
    )


def interact(connection: psycopg.Connection[Any], actor: int, targets: Sequence[int] | int, kind: str = "like") -> None:
    """Store interactions, a minute apart, and commit."""
    for number, target in enumerate([targets] if isinstance(targets, int) else targets):
        connection.execute(
            "insert into duet.interactions (event_id, actor_id, target_id, kind, occurred_at)"
            " values (%s, %s, %s, %s, %s)",
            (uuid4(), actor, target, kind, START + timedelta(minutes=number)),
        )
    connection.commit()


def write_artifacts(
    root: Path,
    user_ids: Sequence[int],
    *,
    schema: str | None = None,
    model: Ranker | None = None,
    dataset: str = "town",
) -> dict[ArtifactKind, Path]:
    """Write a coherent release over `user_ids` below `root`; its ranker is `model`, or the town's.

    With another `dataset` it answers the same, and no digest of it is the same.
    """
    paths = {kind: root / kind.value for kind in ArtifactKind}
    ids = np.array(sorted(user_ids), dtype=np.int64)
    chooser = np.ones((len(ids), DIMENSIONS), dtype=np.float32)
    chosen = np.repeat((ids / ids.max()).astype(np.float32)[:, None], DIMENSIONS, axis=1)
    weights = np.zeros((CONTENT_WIDTH, 2 * DIMENSIONS), dtype=np.float32)
    intercept = np.full(2 * DIMENSIONS, 0.5, dtype=np.float32)
    embedding = Embedding(ids, chooser, chosen, weights, intercept, EmbeddingParameters())
    digest = embedding.save(paths[ArtifactKind.EMBEDDING], {"dataset_digest": dataset}).digest
    index, _ = ItemIndex.build(
        ids, item_vectors(chooser, chosen), IndexConfig(threads=1), item_vectors(chosen, chooser)
    )
    index.save(paths[ArtifactKind.INDEX], {"embedding_digest": digest})
    (model or ranker()).save(
        paths[ArtifactKind.RANKER],
        {"embedding_digest": digest, "feature_schema": schema or offered_schema()},
        parameters={"last_likes": 20},
    )
    return paths


def ranker() -> Ranker:
    """Learn that P(like) grows with the forward score, over the full feature vector."""
    rng = np.random.default_rng(1)
    features = rng.uniform(0, DIMENSIONS, size=(600, len(RANKED_BY))).astype(np.float32)
    labels = (features[:, 0] > rng.uniform(0, DIMENSIONS, 600)).astype(np.float32)
    matrix = xgboost.DMatrix(features, labels, feature_names=list(RANKED_BY))
    parameters = {"objective": "binary:logistic", "max_depth": 3, "seed": 1, "nthread": 1}
    return Ranker.from_booster(xgboost.train(parameters, matrix, 40), RANKED_BY, canary_features=features)


FIRST = ReleaseVersions(1, 1, 1)


def load_town(paths: dict[ArtifactKind, Path], versions: ReleaseVersions = FIRST) -> Release:
    """Load what `write_artifacts` wrote."""
    return load_release(paths, versions, feature_schema=offered_schema(), feature_names=RANKING_FEATURES)


def remember_town(
    data_dir: Path, user_ids: Sequence[int], scratch: Path, model: Ranker | None = None
) -> ReleaseVersions:
    """Leave a release as the last good local copy below `data_dir`, as a service that served it would."""
    written = write_artifacts(scratch, user_ids, model=model)
    versions = ReleaseVersions(1, 1, 1)
    cache = ReleaseCache(data_dir / "releases")
    for kind, path in written.items():
        target = cache.root / kind.value / f"1-{read_manifest(path).digest[:12]}"
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
        written[kind] = target
    cache.remember(load_town(written, versions))
    return versions
