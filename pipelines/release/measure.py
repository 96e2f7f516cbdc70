"""Measure a release, and Production's beside it, on the same people, decisions and requests.

What both are compared on lies after the T1 of both, or one of them would be asked what it has learned by heart. What
cannot be measured is named with the reason.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.evaluation.drift import feature_psi
from pipelines.release.policy import Measured, Measurement, Sampling
from pipelines.release.replay import (
    Positions,
    Replay,
    baseline_lists,
    contenders_at,
    exposure_gini,
    replay,
    shown_share,
)
from pipelines.results.inputs import microseconds_of
from registry.contracts import ArtifactKind
from registry.models.feature_labels import readable
from registry.models.ranker import Ranker
from registry.release import Release

if TYPE_CHECKING:
    from infra.clock import Clock
    from infra.settings import Settings
    from pipelines.results.inputs import DataSnapshot

EMBEDDING, INDEX, RANKER = ArtifactKind
_BESIDE_PRODUCTION = ("ndcg_at_20", "match_precision_at_10", "prediction_drift_psi")
"""What the training of the ranker compares with Production; nobody can do it later."""
_OF_LISTS = ("ndcg_at_20", "match_precision_at_10", "gain_over_popularity", "gain_over_first_stage")


def measure(
    candidate: Release,
    production: Release | None,
    snapshot: "DataSnapshot",
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
    _lists(candidate, production, values, missing, counts)
    tell(f"the held-out lists say: {counts['requesters']} requesters, {counts['decisions']} decisions")
    both = [release for release in (candidate, production) if release is not None]
    requesters = _requesters(recorded, visible, sampling)
    contenders = contenders_at(both, snapshot, settings, microseconds_of(snapshot.as_of) + 1)
    replays = replay(contenders, requesters, sampling.timed_people, clock)
    counts["replays"] = int(replays[0].seconds.size)
    _replayed(replays, baseline_lists(contenders[0], requesters), visible, values)
    if production is not None and "latency_ratio" not in values:
        missing["latency_ratio"] = "the clock did not move"
    tell(f"{requesters.size} requests are replayed")
    against = production.release_id if production is not None else None
    return Measured(values, counts, missing, against, uncompared=uncompared(candidate, production))


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
    found = moved_most(candidate.ranker, production.ranker)
    if isinstance(found, str):
        missing["feature_drift_psi"] = found
    else:
        values["feature_drift_psi"] = found


def moved_most(here: Ranker, there: Ranker) -> Measurement | str:
    """Measure the feature whose training rows moved furthest from `there` to `here`, or say why none can be."""
    if here.reference is None or there.reference is None:
        return "a ranker was made without a reference of its training rows; train it again"
    shared = [name for name in here.feature_names if name in there.feature_names]
    before, now = (
        reference[:, [ranker.feature_names.index(name) for name in shared]]
        for ranker, reference in ((there, there.reference), (here, here.reference))
    )
    moved = feature_psi(before, now, shared)
    if not moved:
        return "the two rankers have no feature in common"
    name, value = next(iter(moved.items()))
    return Measurement(value, note=f"`{readable(name, here.attributes)}` moved most")


def _lists(
    candidate: Release,
    production: Release | None,
    values: dict[str, Measurement],
    missing: dict[str, str],
    counts: dict[str, int],
) -> None:
    """Read what the lists of the release's twin came to when its order was chosen: see `pipelines.ranking.judging`.

    What is released has learned every decision, so nothing is left that could judge it itself.
    """
    judged = candidate.ranker.judged or {}
    if not judged:
        for name in (*_OF_LISTS, "held_out_auc", "calibration_error"):
            missing[name] = "the ranker was registered without judged lists"
        return
    counts["requesters"], counts["decisions"] = _count(judged, "requesters"), _count(judged, "decisions")
    compared = judged.get("production")
    theirs: Mapping[str, Any] = compared if isinstance(compared, dict) and production is not None else {}
    if production is not None and theirs.get("ranker_digest") != production.manifests[RANKER].digest:
        theirs = {}
    every = judged["policies"]
    served = every.get(str(judged["chosen"]), {}) if isinstance(every, dict) else {}
    for name in ("ndcg_at_20", "match_precision_at_10"):
        value = _number(theirs.get(f"candidate_{name}"))
        value = _number(served.get(name)) if value is None and isinstance(served, dict) else value
        if value is None:
            missing[name] = "nobody's list could be judged"
        else:
            values[name] = Measurement(value, _number(theirs.get(name)))
    _gains(judged.get("gains"), values, missing)
    for name in ("held_out_auc", "calibration_error"):
        value = _number(judged.get(name))
        if value is None:
            missing[name] = "the held-out decisions are all the same"
            counts["decisions"] = 0
        else:
            values[name] = Measurement(value)
    drift = _number(theirs.get("prediction_psi"))
    if drift is None:
        missing["prediction_drift_psi"] = "Production was not asked about the same decisions"
    else:
        values["prediction_drift_psi"] = Measurement(drift)


def uncompared(candidate: Release, production: Release | None) -> dict[str, str]:
    """Say by metric why the training of the candidate's ranker could not compare it with what stood in Production."""
    compared = (candidate.ranker.judged or {}).get("production")
    why = compared.get("unloadable") if isinstance(compared, dict) else None
    if production is None or why is None:
        return {}
    return dict.fromkeys(_BESIDE_PRODUCTION, f"{why} So it was when the ranker was trained: train it again.")


def _gains(gains: object, values: dict[str, Measurement], missing: dict[str, str]) -> None:
    """Read by how much the lists are better than simple ones: better in one of likes and matches is enough.

    A two-sided order may give up some likes for more matches.
    """
    for rival in ("popularity", "first_stage"):
        highs = [
            (float(interval[2]), measure)
            for measure in ("likes", "matches")
            if isinstance(gains, dict) and (interval := gains.get(f"{measure}_over_{rival}"))
        ]
        if highs:
            high, measure = max(highs)
            values[f"gain_over_{rival}"] = Measurement(high, note=f"the upper end of the interval, by {measure}")
        else:
            missing[f"gain_over_{rival}"] = "nobody's list could be judged"


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _count(judged: Mapping[str, Any], name: str) -> int:
    return int(judged.get(name) or 0)


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
    replays: list[Replay],
    baselines: Mapping[str, Positions],
    visible: "np.ndarray[tuple[int], np.dtype[np.bool_]]",
    values: dict[str, Measurement],
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
    simple = {name: (shown_share(shown, visible), exposure_gini(shown, visible)) for name, shown in baselines.items()}
    if simple:
        # A market in which everybody likes the same few is not the platform's fault.
        widest, least = max(simple, key=lambda name: simple[name][1]), min(simple, key=lambda name: simple[name][0])
        values["exposure_over_baselines"] = Measurement(
            ginis[0] - simple[widest][1], note=f"{ginis[0]:.3f}, and {simple[widest][1]:.3f} by {widest}"
        )
        values["shown_over_baselines"] = Measurement(
            shares[0] / max(simple[least][0], 1e-9), note=f"{shares[0]:.3f}, and {simple[least][0]:.3f} by {least}"
        )
    if len(replays) > 1 and p50[1] > 0:
        values["latency_ratio"] = Measurement(p50[0] / p50[1], note=f"{p50[0]:.2f} ms and {p50[1]:.2f} ms")
