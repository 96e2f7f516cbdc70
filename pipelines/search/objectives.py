"""What a trial is judged by: only decisions up to T1, so that the held-out window stays unseen by the search."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pipelines.inputs import Snapshot
    from pipelines.ranking.files import RankingRows
    from pipelines.search.config import SearchConfig
    from pipelines.search.study import Objective


def ranker_objective(rows: "RankingRows", config: "SearchConfig") -> "Objective":
    """Return an objective that grows trees on the early rows of the ranker's window and judges them on the late."""
    from pipelines.ranking.config import RankerConfig
    from pipelines.ranking.train import validation_loss

    def judge(parameters: Mapping[str, float], report: Callable[[int, float], None]) -> float:
        chosen = RankerConfig.model_validate({**parameters, "threads": config.threads, "seed": config.seed})
        return validation_loss(rows.features, rows.labels, rows.at_us, chosen, after_round=report)

    return judge


def embedding_objective(
    snapshot: "Snapshot", before_us: int | None, t0_us: int, t1_us: int, config: "SearchConfig"
) -> "Objective":
    """Return an objective that fits up to T0 and judges on the first decisions of the ranker's window, (T0, T1]."""
    from pipelines.metrics import auc, grouped_auc
    from pipelines.ranking.context import Factors
    from pipelines.ranking.dataset import labelled_pairs, labels
    from pipelines.retrieval.config import EmbeddingConfig
    from pipelines.retrieval.content import inputs_of
    from pipelines.retrieval.factorise import fit_embedding
    from registry.embedding import pair_scores

    people = snapshot.people
    inputs = inputs_of(people, t0_us / 1e6)
    early = snapshot.events.between(before_us, t0_us)
    pairs = labelled_pairs(snapshot.events, t0_us, t1_us)
    liked = labels(pairs)

    def judge(parameters: Mapping[str, float], report: Callable[[int, float], None]) -> float:
        del report  # a fit has no value before its end
        chosen = EmbeddingConfig.model_validate({**parameters, "threads": config.threads, "seed": config.seed})
        embedding, _ = fit_embedding(early, people.user_ids, inputs, chosen)
        factors = Factors.of(embedding, people.user_ids, inputs)
        forward, _ = pair_scores(
            factors.chooser[pairs.actor],
            factors.chosen[pairs.actor],
            factors.chooser[pairs.target],
            factors.chosen[pairs.target],
        )
        within = grouped_auc(pairs.actor.astype(np.int64), liked, forward)
        known = within[~np.isnan(within)]
        return float(known.mean()) if known.size else auc(liked, forward)

    return judge
