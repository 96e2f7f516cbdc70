"""A ranker of somebody's own: fitted in a notebook, judged like the pipeline's, registered as a release candidate.

What `fit` returns goes the way of the asset `ranker`: fitted on the early rows, its lists are judged on the late ones,
and fitted again on all; then the set with the newest index is held against the gates, and `duet promote` promotes it.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import uuid4

import pandas as pd
from pydantic import JsonValue

from feature_repo.layout import RANKING_FEATURES
from pipelines.ranking.assets import snapshot_of
from pipelines.ranking.config import RankerConfig
from pipelines.ranking.files import load_rows
from pipelines.ranking.frame import frame_of
from pipelines.ranking.judging import judged_order, keep_judged
from pipelines.ranking.origin import lineage_of_ranker, ranker_result
from pipelines.ranking.windows import TrainingGround
from pipelines.release.candidate import find_candidate, name_candidate, register_candidate
from pipelines.release.judging import judge_release
from pipelines.release.policy import load_policy
from pipelines.results.artifacts import VersionNotes, finish_artifact
from registry.contracts import ArtifactKind
from registry.models.ranker import ATTRIBUTES, Ranker
from registry.promotion.gates import GateReport

if TYPE_CHECKING:
    from pipelines.resources import Platform

Fit = Callable[[pd.DataFrame], Ranker]


def register_ranker(
    platform: "Platform", fit: Fit, *, config: RankerConfig | None = None, tell: Callable[[str], None] = print
) -> GateReport:
    """Fit, judge and register a ranker with the newest index, and return what the gates say of the release.

    `fit` is given rows as `ranking_frame` returns them. Of `config`, only what judges lists counts.

    Raises:
        MissingUpstream: there is no ranking dataset or no index in this data folder.
        FeatureSchemaMismatch: the ranker needs a feature that is not offered.
    """
    config = config or RankerConfig()
    dataset, interactions = platform.results.require("ranking_dataset"), platform.results.require("interactions")
    rows = load_rows(dataset.path)
    frame = frame_of(dataset, rows)
    early = fit(frame[frame["window"] == "early"]).offered(RANKING_FEATURES)
    ground = TrainingGround.of(platform, dataset, interactions, int(str(dataset.facts["last_likes"])))
    verdict = judged_order(platform, ground, early, rows, config=config, tell=tell)
    final = replace(fit(frame).offered(RANKING_FEATURES), policy=verdict.chosen, judged=verdict.figures)
    snapshot = snapshot_of(dataset, interactions)
    lineage = lineage_of_ranker(final, dataset, snapshot)
    parameters: dict[str, JsonValue] = {
        "last_likes": dataset.facts["last_likes"],
        ATTRIBUTES: {**platform.snapshot(snapshot).slots},
    }
    run_id = str(uuid4())
    metrics = verdict.metrics()
    registered = finish_artifact(
        platform,
        ArtifactKind.RANKER,
        lambda directory: final.save(directory, lineage, parameters, metrics),
        VersionNotes(parameters, metrics, {}, {}),
        run_id,
    )
    judged = keep_judged(platform, replace(early, policy=verdict.chosen), parameters)
    ranker = platform.results.publish(ranker_result(final, registered, dataset, run_id, judged))
    candidate = find_candidate(platform, platform.results.require("candidate_index"), ranker, run_id)
    versions = register_candidate(platform, candidate)
    release, report = judge_release(
        platform,
        load_policy(platform.settings.gates.file),
        versions,
        interactions,
        tell,
        directories=candidate.directories,
    )
    name_candidate(platform, candidate, release)
    return report
