"""Measure a release, and Production's beside it, on the same people, decisions and requests.

What both are compared on lies after the T1 of both, or one of them would be asked what it has learned by heart. What
cannot be measured is named with the reason.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

from pipelines.evaluation.compare import history_features
from pipelines.evaluation.config import EvaluationConfig
from pipelines.evaluation.drift import feature_psi, psi
from pipelines.evaluation.ground import Ground, windows_between
from pipelines.evaluation.scene import Positions, Scene
from pipelines.inputs import before_window, microseconds_of
from pipelines.release.held_out import HeldOut, judge_held_out
from pipelines.release.policy import Measured, Measurement, Sampling
from pipelines.release.replay import Replay, contender, exposure_gini, replay, shown_share
from registry.contracts import ArtifactKind
from registry.release import Release

if TYPE_CHECKING:
    from infra.clock import Clock
    from infra.settings import Settings
    from pipelines.inputs import Snapshot

EMBEDDING, INDEX, RANKER = ArtifactKind
_COMPARABLE_DECISIONS = 200


@dataclass(frozen=True)
class Edges:
    """When an embedding and a ranker stopped learning, in microseconds."""

    t0_us: int
    t1_us: int

    @classmethod
    def of(cls, release: Release) -> "Edges":
        """Read T0 and T1 from the lineage, and the instant of the data where there is no window."""
        embedding, ranker = release.manifests[EMBEDDING].lineage, release.manifests[RANKER].lineage
        return cls(_instant(embedding, "t0"), _instant(ranker, "t1"))


def _instant(lineage: "dict[str, str]", name: str) -> int:
    told = lineage.get(name) or lineage.get("as_of")
    return microseconds_of(datetime.fromisoformat(told)) if told else 0


def measure(
    candidate: Release,
    production: Release | None,
    snapshot: "Snapshot",
    *,
    recorded: Positions,
    sampling: Sampling,
    settings: "Settings",
    clock: "Clock",
    tell: Callable[[str], None] = lambda _sentence: None,
) -> Measured:
    """Measure everything that a gate may ask for; `recorded` are positions of people who asked lately, newest first."""
    values: dict[str, Measurement] = {}
    missing: dict[str, str] = {}
    visible = snapshot.users["visible"].to_numpy().astype(bool)
    counts = {"people": int(visible.sum()), "requesters": 0, "decisions": 0, "replays": 0, "rows": 0}
    values |= _artefacts(candidate, production, snapshot.people.user_ids[visible])
    _features(candidate, production, values, missing, counts)
    tell("artefacts and features are measured")
    both = [release for release in (candidate, production) if release is not None]
    ground, comparable = _ground(snapshot, *both)
    config = EvaluationConfig(
        max_people=sampling.held_out_people,
        n_candidates=max(settings.serving.n_candidates, 10),
        weight=settings.serving.requester_weight,
        aggregator=settings.serving.aggregator,
        seed=sampling.seed,
    )
    scenes = [_scene(ground, release, config, settings) for release in both]
    judged = [judge_held_out(scenes[0], history_features(ground.history))]
    if production is not None and comparable:
        alike = all(
            candidate.manifests[kind].digest == production.manifests[kind].digest for kind in (EMBEDDING, RANKER)
        )
        judged.append(judged[0] if alike else judge_held_out(scenes[1], history_features(ground.history)))
    _held_out(judged, values, missing, counts)
    tell(f"the held-out window is judged: {judged[0].requesters} requesters, {judged[0].decisions} decisions")
    requesters = _requesters(recorded, visible, sampling)
    ends = [ground.at_the_end(scene) for scene in scenes]
    contenders = [contender(release, scene, requesters) for release, scene in zip(both, ends, strict=True)]
    replays = replay(contenders, requesters, sampling.timed_people, clock)
    counts["replays"] = int(replays[0].seconds.size)
    _replayed(replays, visible, values)
    if production is not None and "latency_ratio" not in values:
        missing["latency_ratio"] = "the clock did not move"
    tell(f"{requesters.size} requests are replayed")
    against = production.release_id if production is not None else None
    return Measured(values, counts, missing, against)


def _artefacts(candidate: Release, production: Release | None, visible_ids: Positions) -> dict[str, Measurement]:
    """Measure what the artefacts say of themselves."""

    def held(release: Release) -> float:
        return float(np.isin(visible_ids, release.index.user_ids).mean()) if visible_ids.size else float("nan")

    def size(release: Release, *kinds: ArtifactKind) -> float:
        return float(sum(entry.size for kind in kinds for entry in release.manifests[kind].files.values()))

    measures: dict[str, Callable[[Release], float | None]] = {
        "canary_agreement": canary_agreement,
        "index_recall": lambda release: _recall(release.manifests[INDEX].metrics),
        "index_coverage": held,
        "artifact_bytes": lambda release: size(release, *ArtifactKind),
        "bytes_per_person": lambda release: size(release, EMBEDDING, INDEX) / max(len(release.index), 1),
    }
    found = {}
    for name, measured in measures.items():
        value = measured(candidate)
        if value is not None:
            found[name] = Measurement(value, measured(production) if production is not None else None)
    return found


def canary_agreement(release: Release) -> float:
    """Return the lower of two shares: neighbours the index finds again, and rows the ranker scores as it did."""
    index, ranker = release.index, release.ranker
    shares = [1.0]
    if index.canary_ids.size:
        ids, _ = index.search_many(index.canary_queries, index.canary_ids.shape[1])
        shares.append(
            float(np.mean([np.isin(known, now).mean() for now, known in zip(ids, index.canary_ids, strict=True)]))
        )
    if len(ranker.canary_features):
        offered = np.full((len(ranker.canary_features), len(ranker.offered_names)), np.nan, dtype=np.float32)
        offered[:, ranker.gather] = ranker.canary_features
        shares.append(float((np.abs(ranker.predict(offered) - ranker.canary_expected) <= 1e-4).mean()))
    return min(shares)


def _recall(metrics: dict[str, float]) -> float | None:
    return next((value for name, value in metrics.items() if name.startswith("index_recall_at_")), None)


def _features(
    candidate: Release,
    production: Release | None,
    values: dict[str, Measurement],
    missing: dict[str, str],
    counts: dict[str, int],
) -> None:
    if production is None:
        return
    rows = [int(release.manifests[RANKER].metrics.get("rows", 0)) for release in (candidate, production)]
    counts["rows"] = min(rows)
    here, there = candidate.ranker, production.ranker
    if here.reference is None or there.reference is None:
        missing["feature_drift_psi"] = "a ranker was made without a reference of its training rows; train it again"
        return
    shared = [name for name in here.feature_names if name in there.feature_names]
    before, now = (
        ranker.reference[:, [ranker.feature_names.index(name) for name in shared]]
        for ranker in (there, here)
        if ranker.reference is not None
    )
    moved = feature_psi(before, now, shared)
    if not moved:
        missing["feature_drift_psi"] = "the two rankers have no feature in common"
        return
    name, value = next(iter(moved.items()))
    values["feature_drift_psi"] = Measurement(value, note=f"`{name}` moved most")


def _ground(snapshot: "Snapshot", candidate: Release, production: Release | None = None) -> tuple[Ground, bool]:
    """Return the ground after the T1 of both and True, or after the candidate's where they share too little."""
    own = Edges.of(candidate)
    if production is None:
        return Ground.of(snapshot, windows_between(snapshot, own.t0_us, own.t1_us)), False
    t1_us = max(own.t1_us, Edges.of(production).t1_us)
    shared = windows_between(snapshot, own.t0_us, t1_us)
    if t1_us > own.t1_us and shared.decisions[2] < _COMPARABLE_DECISIONS:
        return Ground.of(snapshot, windows_between(snapshot, own.t0_us, own.t1_us)), False
    return Ground.of(snapshot, shared), True


def _scene(ground: Ground, release: Release, config: EvaluationConfig, settings: "Settings") -> Scene:
    last = release.manifests[RANKER].parameters.get("last_likes", Scene.last_likes)
    return ground.scene(
        release.embedding,
        release.ranker,
        config,
        learned_after_us=before_window(release.manifests[EMBEDDING].lineage),
        fitted_us=Edges.of(release).t0_us,
        last_likes=int(str(last)),
        pending_likes=settings.ranking.pending_likes,
    )


def _held_out(
    judged: list[HeldOut], values: dict[str, Measurement], missing: dict[str, str], counts: dict[str, int]
) -> None:
    own, theirs = judged[0], judged[1] if len(judged) > 1 else None
    counts["requesters"], counts["decisions"] = own.requesters, own.decisions
    for name in ("ndcg_at_10", "ndcg_over_random", "match_precision_at_10", "held_out_auc", "calibration_error"):
        if name in own.figures:
            values[name] = Measurement(own.figures[name], theirs.figures.get(name) if theirs is not None else None)
        else:
            missing[name] = own.missing or "the held-out window holds too little"
    if theirs is None:
        missing["prediction_drift_psi"] = "Production has learned from the decisions that it would be asked about"
    else:
        values["prediction_drift_psi"] = Measurement(psi(theirs.scores, own.scores))


def _requesters(
    recorded: Positions, visible: "np.ndarray[tuple[int], np.dtype[np.bool_]]", sampling: Sampling
) -> Positions:
    """Return who is replayed: those who asked lately, then visible people by chance."""
    rng = np.random.default_rng(sampling.seed)
    asked = recorded[: sampling.replayed_people]
    others = np.setdiff1d(np.flatnonzero(visible), asked)
    room = min(sampling.replayed_people - asked.size, others.size)
    return np.concatenate([asked, rng.choice(others, size=room, replace=False)]).astype(np.int64)


def _replayed(
    replays: list[Replay], visible: "np.ndarray[tuple[int], np.dtype[np.bool_]]", values: dict[str, Measurement]
) -> None:
    shares = [shown_share(each.shown, visible) for each in replays]
    ginis = [exposure_gini(each.shown, visible) for each in replays]
    p50 = [float(np.median(each.seconds)) * 1_000 for each in replays]
    p95 = [float(np.quantile(each.seconds, 0.95)) * 1_000 for each in replays]
    for name, found in (
        ("shown_share", shares),
        ("exposure_gini", ginis),
        ("latency_p50_ms", p50),
        ("latency_p95_ms", p95),
    ):
        values[name] = Measurement(found[0], found[1] if len(found) > 1 else None)
    if len(replays) > 1 and p50[1] > 0:
        values["latency_ratio"] = Measurement(p50[0] / p50[1], note=f"{p50[0]:.2f} ms and {p50[1]:.2f} ms")
