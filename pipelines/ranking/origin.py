"""Where a ranker comes from: its lineage in the manifest, and what later steps are told of it."""

from typing import TYPE_CHECKING

from feature_repo.schema import part_of
from pipelines.results.lineage import lineage_of
from pipelines.results.store import StepResult
from registry.models.ranker import Ranker

if TYPE_CHECKING:
    from pipelines.results.artifacts import Registered


def lineage_of_ranker(ranker: Ranker, dataset: StepResult, snapshot: StepResult) -> dict[str, str]:
    """Return the lineage of a ranker that was fitted on all rows of a dataset, with the features it names."""
    used = {*ranker.feature_names, *(() if ranker.choice is None else ranker.choice.feature_names)}
    return lineage_of(
        snapshot,
        embedding_digest=dataset.inputs["embeddings"],
        feature_schema=part_of(str(dataset.facts["schema"]), used),
        ranking_dataset_digest=dataset.digest,
        fitted_on="everything",
    )


def ranker_result(
    ranker: Ranker, registered: "Registered", dataset: StepResult, run_id: str, judged: dict[str, str]
) -> StepResult:
    """Return a registered ranker as the result of its step; `judged` names the one whose lists were judged."""
    return StepResult(
        asset="ranker", digest=registered.manifest.digest, run_id=run_id,
        as_of=dataset.as_of, t0=dataset.t0, t1=dataset.t1, version=registered.version,
        inputs={**dataset.inputs, "ranking_dataset": dataset.digest}, parts={**dataset.parts, **judged},
        facts={"order": ranker.order.value},
    )  # fmt: skip
