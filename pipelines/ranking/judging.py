"""Judge the early ranker's lists on the late window, Production's beside them, and keep the twin that was judged."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from pydantic import JsonValue

from pipelines.evaluation.drift import psi
from pipelines.metrics import auc, calibration_bins
from pipelines.ranking.config import RankerConfig
from pipelines.ranking.files import RankingRows
from pipelines.ranking.lists import HeldOutLists, JudgedLists, judge_lists, policies
from pipelines.ranking.order import OrderChoice, choose
from pipelines.ranking.rows import RowKind
from pipelines.results.inputs import microseconds_of
from registry.contracts import ArtifactKind
from registry.models.ranker import Ranker
from registry.scoring.ranking import served_policy

if TYPE_CHECKING:
    from pipelines.ranking.windows import TrainingGround
    from pipelines.resources import Platform
    from registry.release import Release

JUDGED_RANKER = "judged_ranker"
_COMPARABLE = 100


def judged_order(
    platform: "Platform",
    ground: "TrainingGround",
    ranker: Ranker,
    rows: RankingRows,
    *,
    config: RankerConfig,
    tell: Callable[[str], None],
) -> OrderChoice:
    """Return which order is served, with the figures that the gates read."""
    serving = platform.settings.serving
    window, by_chance = ground.late(), ground.met_by_chance
    lists = HeldOutLists(
        window.stage, window.population, window.requests, window.decided, ground.matched(), window.has_history,
        by_chance=by_chance,
    )  # fmt: skip
    gap = ground.missing(judged=True)
    missing = HeldOutLists(
        gap.stage, gap.population, gap.requests, gap.decided, ground.spread.matched(gap.decided), gap.has_history,
        by_chance=by_chance,
    )  # fmt: skip
    neighbours = window.stage.neighbours
    sources = () if neighbours is None else neighbours.sources
    compared = policies(ranker, aggregator=serving.aggregator, sources=sources)

    def judged(done: int, of: int) -> None:
        if done % 100 == 0:
            tell(f"lists of {done} of {of} people are judged")

    found, of_missing = (
        judge_lists(
            each, ranker, compared, n_candidates=serving.n_candidates, max_people=config.judged_people,
            seed=config.seed, tell=judged,
        )
        for each in (lists, missing)
    )  # fmt: skip
    verdict = choose(found, of_missing, config.seed)
    held_out = rows.late & (rows.kind == RowKind.LIKE)
    figures = {**verdict.figures, "met_by_chance": by_chance, **_of_decisions(ranker, rows, held_out)}

    def compared_with(release: "Release") -> dict[str, JsonValue]:
        return _compared(
            platform, ground, lists, release, found=found, verdict=verdict, config=config,
            features=rows.features[held_out], ranker=ranker,
        )  # fmt: skip

    production = beside_production(platform, compared_with, tell)
    return OrderChoice(verdict.chosen, verdict.simpler, verdict.difference, {**figures, "production": production})


def _of_decisions(ranker: Ranker, rows: RankingRows, held_out: npt.NDArray[np.bool_]) -> dict[str, JsonValue]:
    """Return how well likes are told from passes on decisions that the ranker has not seen."""
    labels = rows.labels[held_out] > 0
    figures: dict[str, JsonValue] = {"decisions": int(held_out.sum())}
    if labels.any() and not labels.all():
        scores = ranker.predict(rows.features[held_out])
        figures["held_out_auc"] = auc(labels, scores)
        figures["calibration_error"] = calibration_bins(labels, scores).error
    return figures


def beside_production(
    platform: "Platform", compare: Callable[["Release"], dict[str, JsonValue]], tell: Callable[[str], None]
) -> dict[str, JsonValue] | None:
    """Return what `compare` says of the release in Production, or why it cannot be loaded; None where none stands.

    Raises:
        RegistryUnavailable: MLflow does not answer, so nobody knows.
    """
    from pipelines.release.judging import production_release

    release, unloadable = production_release(platform, None, tell)
    if unloadable is not None:
        return {"release": unloadable.name, "unloadable": unloadable.why}
    return None if release is None else compare(release)


def _compared(
    platform: "Platform",
    ground: "TrainingGround",
    lists: HeldOutLists,
    release: "Release",
    *,
    found: JudgedLists,
    verdict: OrderChoice,
    config: RankerConfig,
    features: npt.NDArray[np.float32],
    ranker: Ranker,
) -> dict[str, JsonValue]:
    """Return Production's figures and this ranker's on the same requests, all later than what Production learned."""
    told = release.manifests[ArtifactKind.EMBEDDING].lineage.get("as_of")
    learned_us = ground.end_us if told is None else microseconds_of_text(told)
    later = found.at_us > learned_us
    figures: dict[str, JsonValue] = {
        "release": release.release_id,
        "ranker_digest": release.manifests[ArtifactKind.RANKER].digest,
        "requesters": int(later.sum()),
    }
    if len(features):
        figures["prediction_psi"] = psi(release.ranker.predict(features), ranker.predict(features))
    if int(later.sum()) < _COMPARABLE:
        return figures
    stage = HeldOutLists(
        release, lists.population, lists.requests, lists.decided, lists.matched, lists.has_history, learned_us
    )
    policy = served_policy(release, platform.settings)
    theirs = judge_lists(
        stage, release.ranker, (policy,), n_candidates=platform.settings.serving.n_candidates,
        max_people=config.judged_people, seed=config.seed,
    )  # fmt: skip
    own = found.policies.index(verdict.chosen)
    figures["ndcg_at_20"] = float(np.nanmean(theirs.likes[0])) if theirs.requesters else None
    figures["match_precision_at_10"] = float(np.nanmean(theirs.match_precision[0])) if theirs.requesters else None
    figures["candidate_ndcg_at_20"] = float(np.nanmean(found.likes[own][later]))
    figures["candidate_match_precision_at_10"] = float(np.nanmean(found.match_precision[own][later]))
    return figures


def microseconds_of_text(told: str) -> int:
    """Return an instant in ISO 8601 as microseconds since 1970."""
    from datetime import datetime

    return microseconds_of(datetime.fromisoformat(told))


def keep_judged(platform: "Platform", ranker: Ranker, parameters: Mapping[str, JsonValue]) -> dict[str, str]:
    """Keep the ranker whose lists were judged, and return its digest by name.

    The evaluation compares it: the released one has seen every answer.
    """
    with platform.results.staging(JUDGED_RANKER) as scratch:
        staged = scratch / "artifact"
        manifest = ranker.save(staged, {}, parameters)
        platform.results.adopt(staged, JUDGED_RANKER, manifest.digest)
    return {JUDGED_RANKER: manifest.digest}
