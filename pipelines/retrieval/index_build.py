"""Build the candidate index over everybody who may be shown, tuned on queries people would really ask.

People outside the embedding enter with factors from their profile, so a newcomer is found from the first day.
"""

import numpy as np
import numpy.typing as npt

from pipelines.retrieval.config import IndexBuildConfig
from pipelines.retrieval.content import ContentInputs
from pipelines.retrieval.errors import BadInputs
from registry.models.embedding import Embedding, item_vectors, query_vectors
from registry.models.index_build import Tell, unheard
from registry.models.item_index import BuildReport, IndexConfig, IndexKind, ItemIndex

_BLOCK = 16_384


def build_candidate_index(
    embedding: Embedding,
    user_ids: npt.NDArray[np.int64],
    content_inputs: ContentInputs,
    config: IndexBuildConfig | None = None,
    *,
    fingerprints: npt.NDArray[np.uint64] | None = None,
    tell: Tell = unheard,
) -> tuple[ItemIndex, BuildReport]:
    """Index `user_ids` int64[n], the visible people; `content_inputs` gives float32[m, c] at m of their positions.

    `fingerprints` uint64[n] of their profiles are kept of those whose factors come from there, so that serving notices
    who has changed since.

    Raises:
        BadInputs: nobody is visible.

    """
    config = config or IndexBuildConfig()
    if not user_ids.size:
        raise BadInputs("Nobody is visible, so there is nobody to index: import people first.")
    vectors, known = _vectors(embedding, user_ids, content_inputs)
    tell(f"{user_ids.size - int(known.sum())} of {user_ids.size} people get their factors from their profile")
    rng = np.random.default_rng(config.seed)
    sample = np.sort(rng.choice(user_ids.size, size=min(config.sample_queries, user_ids.size), replace=False))
    chosen, chooser = np.hsplit(vectors[sample], 2)
    return ItemIndex.build(
        user_ids,
        vectors,
        IndexConfig(
            kind=IndexKind(config.kind), nlist=config.nlist, target_recall=config.target_recall, seed=config.seed
        ),
        query_vectors(chooser, chosen, config.weight),
        fingerprints=None if fingerprints is None else np.where(known, np.uint64(0), fingerprints),
        tell=tell,
    )


def _vectors(
    embedding: Embedding, user_ids: npt.NDArray[np.int64], content_inputs: ContentInputs
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Return item vectors float32[n, 2d] and who took part in the fit, bool[n]; never everybody's factors twice."""
    known = embedding.known(user_ids)
    vectors = np.empty((user_ids.size, 2 * embedding.dimensions), dtype=np.float32)
    for start in range(0, user_ids.size, _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, user_ids.size))
        chooser, chosen = embedding.vectors(user_ids[rows])
        unknown = np.flatnonzero(~known[rows])
        if unknown.size:
            chooser[unknown], chosen[unknown] = embedding.content_factors(content_inputs(rows[unknown]))
        vectors[rows] = item_vectors(chooser, chosen)
    return vectors, known
