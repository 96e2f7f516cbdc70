"""Build the candidate index over everybody who may be shown, tuned on queries people would really ask.

People outside the embedding enter with factors from their profile, so a newcomer is found from the first day.
"""

import numpy as np
import numpy.typing as npt

from pipelines.retrieval.config import IndexBuildConfig
from pipelines.retrieval.content import ContentInputs
from pipelines.retrieval.errors import BadInputs
from registry.embedding import Embedding, item_vectors, query_vectors
from registry.item_index import BuildReport, IndexConfig, IndexKind, ItemIndex

_BLOCK = 16_384


def build_candidate_index(
    embedding: Embedding,
    user_ids: npt.NDArray[np.int64],
    content_inputs: ContentInputs,
    config: IndexBuildConfig | None = None,
    *,
    fingerprints: npt.NDArray[np.uint64] | None = None,
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
    chooser, chosen = embedding.vectors(user_ids)
    known = embedding.known(user_ids)
    unknown = np.flatnonzero(~known)
    for start in range(0, unknown.size, _BLOCK):
        part = unknown[start : start + _BLOCK]
        chooser[part], chosen[part] = embedding.content_factors(content_inputs(part))
    rng = np.random.default_rng(config.seed)
    sample = np.sort(rng.choice(user_ids.size, size=min(config.sample_queries, user_ids.size), replace=False))
    return ItemIndex.build(
        user_ids,
        item_vectors(chooser, chosen),
        IndexConfig(
            kind=IndexKind(config.kind), nlist=config.nlist, target_recall=config.target_recall, seed=config.seed
        ),
        query_vectors(chooser[sample], chosen[sample], config.weight),
        fingerprints=None if fingerprints is None else np.where(known, np.uint64(0), fingerprints),
    )
