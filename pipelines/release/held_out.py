"""What a release would have served on the held-out window, in figures that two releases can be compared by."""

from dataclasses import dataclass, field

import numpy as np

from pipelines import metrics
from pipelines.evaluation import methods, protocols
from pipelines.evaluation.compare import PairFeatures, choose_protocol, judge_rows, met_scores
from pipelines.evaluation.errors import NobodyToAsk
from pipelines.evaluation.scene import Scene
from registry.ranker import Order

TOP = 10


@dataclass(frozen=True)
class HeldOut:
    """Figures by metric, on how many requesters and decisions, and the ranker's probability of each decision."""

    figures: dict[str, float]
    requesters: int
    decisions: int
    scores: metrics.Numbers = field(repr=False)
    missing: str = ""


def judge_held_out(scene: Scene, pair_features: PairFeatures) -> HeldOut:
    """Rank for the people who like somebody after T1, in the order that this release serves, and beside it by chance.

    Where nobody can be asked, `missing` says why and the figures of lists are absent.
    """
    judged = judge_rows(scene, pair_features)
    figures: dict[str, float] = {}
    if judged is not None:
        figures["held_out_auc"] = judged.numbers["held_out_auc"]
        figures["calibration_error"] = judged.numbers["held_out_calibration_error"]
    scores = np.empty(0, dtype=np.float32) if judged is None else judged.scores
    try:
        rankings = _rankings(scene, pair_features)
    except NobodyToAsk as nobody:
        return HeldOut(figures, 0, len(scene.held_out), scores, str(nobody).rstrip("."))
    served, chance = rankings[served_method(scene)], rankings[methods.RANDOM]
    ndcg = metrics.ndcg_at(served.liked, served.relevant, TOP)
    by_chance = metrics.ndcg_at(chance.liked, chance.relevant, TOP)
    asked = np.isfinite(ndcg)
    if asked.any():
        figures["ndcg_at_10"] = float(ndcg[asked].mean())
        if by_chance[asked].any():
            figures["ndcg_over_random"] = figures["ndcg_at_10"] / float(by_chance[asked].mean())
    figures["match_precision_at_10"] = float(metrics.precision_at(served.matched, TOP, served.sizes).mean())
    return HeldOut(figures, int(asked.sum()), len(scene.held_out), scores)


def served_method(scene: Scene) -> str:
    """Return the method whose order this release serves: the ranker's, unless retrieval's won when it was trained."""
    by_retrieval = scene.ranker is None or scene.ranker.order is Order.RETRIEVAL
    return methods.RECIPROCAL if by_retrieval else methods.TWO_STAGE


def _rankings(scene: Scene, pair_features: PairFeatures) -> dict[str, protocols.Rankings]:
    wanted = (served_method(scene), methods.RANDOM)
    if choose_protocol(scene) == "met":
        scores = met_scores(scene, pair_features)
        return protocols.met(scene, {name: scores[name] for name in wanted}, TOP).rankings
    return protocols.catalogue(scene, {name: methods.METHODS[name] for name in wanted}, TOP).rankings
