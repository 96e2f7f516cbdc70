"""Compare every method on the held-out window, the oracle beside them where there is one, and newcomers by swipe.

The table holds a mean over people with its bootstrap interval for each method and measure; the ranker's probabilities
are judged on all held-out decisions and, of people who met, on their matches. What cannot be measured is absent from
the table, never zero.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd

from feature_repo.layout import RANKING_FEATURES
from feature_repo.transforms import content_score
from pipelines import metrics
from pipelines.evaluation import methods, oracle, plots, protocols, tables
from pipelines.evaluation.cold_start import cold_start_curve
from pipelines.evaluation.matches import COLUMNS as MATCH_COLUMNS
from pipelines.evaluation.matches import match_table
from pipelines.evaluation.published import lfrr, recon
from pipelines.evaluation.scene import Scene
from pipelines.ranking.config import RankerConfig
from pipelines.ranking.files import RankingRows
from pipelines.ranking.sessions import has_decided
from registry.contracts import ArtifactKind

Floats = npt.NDArray[np.float32]
_MET_SHARE = 0.8


@dataclass(frozen=True)
class EvaluationReport:
    """`table` and `slices` are those of `tables`, `cold_start` and `matches` of the modules of these names.

    The last two are empty where unmeasurable. `numbers` are single figures and `figures` PNG bytes by name.
    """

    protocol: str
    table: pd.DataFrame
    slices: pd.DataFrame
    cold_start: pd.DataFrame
    matches: pd.DataFrame
    numbers: dict[str, float]
    figures: dict[str, bytes] = field(repr=False)

    def metrics(self) -> dict[str, float]:
        """Return every finite figure under a name MLflow accepts."""
        names = self.table["method"] + "_" + self.table["measure"]
        named = dict(zip(names, self.table["mean"].to_numpy(dtype=float).tolist(), strict=True))
        every = {**named, **_by_name(self.matches), **self.numbers}
        return {name: value for name, value in every.items() if np.isfinite(value)}

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


def _by_name(matches: pd.DataFrame) -> dict[str, float]:
    """Return every figure of the table of matches under a name of its own."""
    parts = [name for name in MATCH_COLUMNS if name not in {"method", "measure", "pairs"}]
    found = {}
    for row in matches.to_dict("records"):
        for part in parts:
            words = ["match", str(row["method"]), str(row["measure"]), *([] if part == "value" else [part])]
            found["_".join(words)] = float(row[part])
    return found


def evaluate(
    scene: Scene,
    rows: RankingRows | None = None,
    truth: oracle.LikeProbability | None = None,
    earlier: RankingRows | None = None,
) -> EvaluationReport:
    """Compare all methods under the configured protocol; `truth` adds the oracle and what it says of each list.

    `rows` are those of the held-out decisions, with their features, on which the judged ranker's probabilities are
    judged; the protocol `met` orders the people met by them. `earlier` are those of decisions up to T1, from which
    whoever says how probable a match is may learn.
    """
    protocol = choose_protocol(scene)
    judged = judge_rows(scene, rows)
    met = protocol == "met"
    result = protocols.met(scene, met_scores(scene, rows)) if met else protocols.catalogue(scene)
    table = tables.comparison_table(scene, result, truth)
    figures = {"evaluation_comparison": plots.comparison(table, protocol)}
    if judged is not None:
        figures["held_out_calibration"] = plots.calibration(judged.bins, "held-out decisions")
        figures["held_out_scores"] = plots.score_distribution(judged.labels, judged.scores, "held-out decisions")
    curve = cold_start_curve(scene, truth)
    if len(curve):
        figures["cold_start"] = plots.cold_start(curve)
    numbers = {"held_out_people": float(len(next(iter(result.rankings.values())).requesters))}
    numbers["held_out_decisions"] = float(len(scene.held_out))
    if judged is not None:
        numbers |= judged.numbers
    matches = judge_matches(scene, earlier, rows) if met else pd.DataFrame(columns=list(MATCH_COLUMNS))
    if len(matches):
        numbers["match_pairs"] = float(matches["pairs"].iloc[0])
    return EvaluationReport(protocol, table, tables.slice_table(scene, result), curve, matches, numbers, figures)


def choose_protocol(scene: Scene) -> str:
    """Return the configured protocol; `auto` takes `met` where nearly every held-out decision has its counterpart.

    Two people who decide on each other as a rule have met face to face, and nobody could have shown them anyone else.
    """
    if scene.config.protocol != "auto":
        return scene.config.protocol
    held_out = scene.held_out
    if not len(held_out):
        return "catalogue"
    decided = np.unique(scene.events.take(scene.events.is_lasting_decision).pair)
    answered = np.isin(held_out.reversed_pair, decided).mean()
    return "met" if answered >= _MET_SHARE else "catalogue"


@dataclass(frozen=True)
class JudgedRows:
    """The ranker's probabilities for held-out decisions, and how good they are."""

    labels: npt.NDArray[np.bool_]
    scores: Floats
    bins: metrics.CalibrationBins
    numbers: dict[str, float]


def judge_rows(scene: Scene, rows: RankingRows | None) -> JudgedRows | None:
    """Ask the judged ranker about the held-out decisions; None without a ranker or a decision."""
    if scene.judged is None or rows is None or not len(rows.labels):
        return None
    labels, scores = rows.labels > 0, scene.judged.ranker.predict(rows.features)
    bins = metrics.calibration_bins(labels, scores)
    numbers = {
        "held_out_auc": metrics.auc(labels, scores),
        "held_out_log_loss": metrics.log_loss(labels, scores),
        "held_out_calibration_error": bins.error,
        "held_out_auc_retrieval": metrics.auc(labels, np.nan_to_num(_column(rows, "score_forward"))),
        "held_out_like_rate": float(labels.mean()),
    }
    return JudgedRows(labels, scores, bins, numbers)


def judge_matches(scene: Scene, earlier: RankingRows | None, held_out: RankingRows | None) -> pd.DataFrame:
    """Compare who says best which pairs match, with MATCH_COLUMNS; empty without a ranker or rows to learn from."""
    if scene.judged is None or earlier is None or held_out is None:
        return pd.DataFrame(columns=list(MATCH_COLUMNS))
    told = scene.judged.manifests[ArtifactKind.RANKER].parameters
    config = RankerConfig.model_validate({name: told[name] for name in RankerConfig.model_fields if name in told})
    return match_table(
        scene.judged.ranker,
        config,
        earlier,
        held_out,
        known_ids=scene.people.user_ids[has_decided(scene.before)],
        rounds=scene.config.bootstrap_rounds,
        seed=scene.config.seed,
    )


def met_scores(scene: Scene, rows: RankingRows | None) -> dict[str, metrics.Numbers]:
    """Score every held-out decision by each method that tells any of them apart.

    What is known is that of its own instant; the published baselines know the likes up to T1.
    """
    scores = _all_met_scores(scene, rows)
    return {name: values for name, values in scores.items() if np.unique(values).size > 1}


def _all_met_scores(scene: Scene, rows: RankingRows | None) -> dict[str, metrics.Numbers]:
    pairs = scene.held_out
    requesters, candidates = pairs.actor.astype(np.int64), pairs.target.astype(np.int64)
    rng = np.random.default_rng(scene.config.seed)
    asked, shown = scene.people.take(requesters), scene.people.take(candidates)
    scores: dict[str, metrics.Numbers] = {
        methods.RANDOM: rng.random(len(pairs)),
        methods.CONTENT: content_score(asked, shown, pairs.at_us / 1e6),
    }
    published = {
        methods.RECON: recon(scene.people, scene.before),
        methods.LFRR: lfrr(scene.people, scene.before, scene.config.seed),
    }
    for name, scorer in published.items():
        if scorer is not None:
            scores[name] = np.zeros(len(pairs))
            for requester in np.unique(requesters).tolist():
                mine = requesters == requester
                scores[name][mine] = scorer(requester)[candidates[mine]]
    if rows is None:
        return scores
    n = scene.events.n_people
    known = scene.people.positions(rows.requester_ids) * n + scene.people.positions(rows.candidate_ids)
    order = np.argsort(known, kind="stable")

    def of(wanted: npt.NDArray[np.int64], values: metrics.Numbers) -> npt.NDArray[np.float64]:
        """Return the values of some pairs, 0 where a pair has no row."""
        at = np.minimum(np.searchsorted(known[order], wanted), max(known.size - 1, 0))
        found = np.zeros(wanted.size) if not known.size else np.nan_to_num(np.asarray(values, float)[order[at]])
        return np.where(known[order[at]] == wanted, found, 0.0) if known.size else found

    weight = scene.config.weight
    forward = _column(rows, "score_forward")
    # Popularity as of the meeting: who was liked by those met earlier.
    scores[methods.POPULARITY] = of(pairs.pair, _column(rows, "candidate_like_rate_received"))
    scores[methods.ONE_SIDED] = of(pairs.pair, forward)
    scores[methods.RECIPROCAL] = weight * of(pairs.pair, forward) + (1.0 - weight) * of(
        pairs.pair, _column(rows, "score_backward")
    )
    if scene.judged is not None:
        like = scene.judged.ranker.predict(rows.features) if len(rows.labels) else np.empty(0)
        both = of(pairs.pair, like), of(pairs.reversed_pair, like)
        scores[methods.TWO_STAGE] = both[0] * np.where(both[1] > 0, both[1], 1.0)
    return scores


def _column(rows: RankingRows, name: str) -> npt.NDArray[np.float32]:
    return rows.features[:, RANKING_FEATURES.index(name)]
