"""Compare every method on the held-out window and put the oracle beside them where there is one.

The table holds a mean over people with its bootstrap interval for each method and measure; the ranker's probabilities
are judged on all held-out decisions. What cannot be measured is absent from the table, never zero.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd

from feature_repo.transforms import PairContext
from pipelines import metrics
from pipelines.evaluation import methods, oracle, plots, protocols
from pipelines.evaluation.scene import Scene
from pipelines.features.events import Events
from pipelines.features.history import PeopleHistory
from registry.ranker import combine

Floats = npt.NDArray[np.float32]
PairFeatures = Callable[[Events, PairContext], tuple[Floats, Floats]]
"""Ranking features of directed pairs at their own instants, and of the same pairs reversed."""
TOP = 10
_MAX_JUDGED_ROWS = 100_000
_MET_SHARE = 0.8
COLUMNS = ("method", "measure", "mean", "low", "high", "people")


@dataclass(frozen=True)
class EvaluationReport:
    """`table` has COLUMNS; `numbers` are single figures by name; `figures` are PNG bytes by name."""

    protocol: str
    table: pd.DataFrame
    numbers: dict[str, float]
    figures: dict[str, bytes] = field(repr=False)

    def metrics(self) -> dict[str, float]:
        """Return every finite figure under a name MLflow accepts."""
        names = self.table["method"] + "_" + self.table["measure"]
        named = dict(zip(names, self.table["mean"].to_numpy(dtype=float).tolist(), strict=True))
        return {name: value for name, value in {**named, **self.numbers}.items() if np.isfinite(value)}

    def wide(self) -> pd.DataFrame:
        """Return methods by measures as text `mean [low, high]`, for people to read."""
        numbers = self.table[["mean", "low", "high"]].to_numpy(dtype=float)
        text = self.table.assign(
            shown=[
                f"{mean:.4f} [{low:.4f}, {high:.4f}]" if np.isfinite(low) else f"{mean:.4f}"
                for mean, low, high in numbers
            ]
        )
        wide = text.pivot_table(index="method", columns="measure", values="shown", aggfunc="first", sort=False)
        return wide.fillna("")


def history_features(history: PeopleHistory) -> PairFeatures:
    """Return pair features read from snapshots in memory."""
    from feature_repo.transforms import ranking_features_both

    def features(pairs: Events, context: PairContext) -> tuple[Floats, Floats]:
        requesters = history.rows(pairs.actor.astype(np.int64), pairs.at_us)
        candidates = history.rows(pairs.target.astype(np.int64), pairs.at_us)
        return ranking_features_both(requesters, candidates, context, pairs.at_us / 1e6)

    return features


def evaluate(
    scene: Scene, pair_features: PairFeatures, truth: oracle.LikeProbability | None = None
) -> EvaluationReport:
    """Compare all methods under the configured protocol; `truth` adds the oracle and what it says of each list."""
    protocol = choose_protocol(scene)
    judged = judge_rows(scene, pair_features)
    met = protocol == "met"
    result = protocols.met(scene, met_scores(scene, pair_features)) if met else protocols.catalogue(scene)
    table = pd.DataFrame(_rows(scene, result, truth), columns=list(COLUMNS))
    figures = {"evaluation_comparison": plots.comparison(table, protocol)}
    if judged is not None:
        figures["held_out_calibration"] = plots.calibration(judged.bins, "held-out decisions")
        figures["held_out_scores"] = plots.score_distribution(judged.labels, judged.scores, "held-out decisions")
    numbers = {"held_out_people": float(len(next(iter(result.rankings.values())).requesters))}
    numbers["held_out_decisions"] = float(len(scene.held_out))
    if judged is not None:
        numbers |= judged.numbers
    return EvaluationReport(protocol, table, numbers, figures)


def choose_protocol(scene: Scene) -> str:
    """Return the configured protocol; `auto` takes `met` where nearly every held-out decision has its counterpart.

    Two people who decide on each other as a rule have met face to face, and nobody could have shown them anyone else.
    """
    if scene.config.protocol != "auto":
        return scene.config.protocol
    held_out = scene.held_out
    if not len(held_out):
        return "catalogue"
    decided = np.unique(scene.events.take(scene.events.is_decision).pair)
    answered = np.isin(held_out.reversed_pair, decided).mean()
    return "met" if answered >= _MET_SHARE else "catalogue"


@dataclass(frozen=True)
class JudgedRows:
    """The ranker's probabilities for held-out decisions, and how good they are."""

    labels: npt.NDArray[np.bool_]
    scores: Floats
    bins: metrics.CalibrationBins
    numbers: dict[str, float]


def judge_rows(scene: Scene, pair_features: PairFeatures) -> JudgedRows | None:
    """Ask the ranker about (a sample of) the held-out decisions; None without a ranker or a decision."""
    if scene.ranker is None or not len(scene.held_out):
        return None
    pairs = scene.held_out
    if len(pairs) > _MAX_JUDGED_ROWS:
        rng = np.random.default_rng(scene.config.seed)
        pairs = pairs.take(np.sort(rng.choice(len(pairs), size=_MAX_JUDGED_ROWS, replace=False)))
    context = scene.context(pairs.actor.astype(np.int64), pairs.target.astype(np.int64), pairs.at_us)
    scores = scene.ranker.predict(pair_features(pairs, context)[0])
    bins = metrics.calibration_bins(pairs.is_like, scores)
    numbers = {
        "held_out_auc": metrics.auc(pairs.is_like, scores),
        "held_out_log_loss": metrics.log_loss(pairs.is_like, scores),
        "held_out_calibration_error": bins.error,
        "held_out_auc_retrieval": metrics.auc(pairs.is_like, context.score_forward),
        "held_out_like_rate": float(pairs.is_like.mean()),
    }
    return JudgedRows(pairs.is_like, scores, bins, numbers)


def met_scores(scene: Scene, pair_features: PairFeatures) -> dict[str, metrics.Numbers]:
    """Score every held-out decision by each method, with what was known at its own instant."""
    from feature_repo.layout import RANKING_FEATURES
    from feature_repo.transforms import content_score

    pairs = scene.held_out
    requesters, candidates = pairs.actor.astype(np.int64), pairs.target.astype(np.int64)
    context = scene.context(requesters, candidates, pairs.at_us)
    forward, backward = pair_features(pairs, context)
    weight = scene.config.weight
    rng = np.random.default_rng(scene.config.seed)
    scores: dict[str, metrics.Numbers] = {
        methods.RANDOM: rng.random(len(pairs)),
        # Popularity as of the meeting: who was liked by those met earlier.
        methods.POPULARITY: forward[:, RANKING_FEATURES.index("candidate_like_rate_received")],
        methods.CONTENT: content_score(scene.people.take(requesters), scene.people.take(candidates), pairs.at_us / 1e6),
        methods.ONE_SIDED: context.score_forward,
        methods.RECIPROCAL: weight * context.score_forward + (1.0 - weight) * context.score_backward,
    }
    if scene.ranker is not None:
        probabilities = scene.ranker.predict(forward), scene.ranker.predict(backward)
        scores[methods.TWO_STAGE] = combine(*probabilities, scene.config.aggregator)
    return scores


def _rows(
    scene: Scene, result: protocols.ProtocolResult, truth: oracle.LikeProbability | None
) -> list[tuple[str, str, float, float, float, int]]:
    rows: list[tuple[str, str, float, float, float, int]] = []
    ids, config = scene.people.user_ids, scene.config

    def add(method: str, measure: str, values: npt.NDArray[np.float64]) -> None:
        interval = metrics.bootstrap_interval(values, config.bootstrap_rounds, config.seed)
        rows.append((method, measure, interval.mean, interval.low, interval.high, interval.n))

    for name, lists in result.rankings.items():
        if result.protocol == "catalogue":
            add(name, "recall_at_100", metrics.recall_at(lists.liked, lists.relevant, 100))
            add(name, "recall_at_500", metrics.recall_at(lists.liked, lists.relevant, 500))
        add(name, "ndcg_at_10", metrics.ndcg_at(lists.liked, lists.relevant, TOP))
        add(name, "map_at_10", metrics.average_precision_at(lists.liked, lists.relevant, TOP))
        for k in (3, TOP) if result.protocol == "met" else (TOP,):
            add(name, f"match_precision_at_{k}", metrics.precision_at(lists.matched, k, lists.sizes))
        if truth is not None:
            add(name, "true_match_precision_at_10", oracle.expected_match_precision(lists, ids, truth, TOP))
        exposure = np.bincount(lists.shown[:, :TOP][lists.shown[:, :TOP] >= 0], minlength=ids.size)
        exposure = exposure[result.reachable]
        for measure, value in (
            ("coverage_at_10", metrics.coverage(exposure)),
            ("gini_at_10", metrics.gini(exposure)),
        ):
            rows.append((name, measure, value, float("nan"), float("nan"), int(exposure.size)))
    if truth is not None:
        requesters = next(iter(result.rankings.values())).requesters
        best = oracle.oracle_match_precision(result, requesters, ids, truth, TOP)
        add(oracle.ORACLE, "true_match_precision_at_10", best)
    return rows
