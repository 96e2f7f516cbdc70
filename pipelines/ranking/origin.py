"""Where a ranker comes from: its lineage in the manifest, and its pointer in the pipeline's state."""

from typing import TYPE_CHECKING

from feature_repo.schema import part_of
from pipelines.lineage import lineage_of
from pipelines.state import Current
from registry.ranker import Ranker

if TYPE_CHECKING:
    from pipelines.artifacts import Registered


def lineage_of_ranker(ranker: Ranker, dataset: Current, snapshot: Current) -> dict[str, str]:
    """Return the lineage of a ranker that was fitted on all rows of a dataset, with the features it names."""
    used = {*ranker.feature_names, *(() if ranker.choice is None else ranker.choice.feature_names)}
    return lineage_of(
        snapshot,
        embedding_digest=dataset.inputs["embeddings"],
        feature_schema=part_of(str(dataset.facts["schema"]), used),
        ranking_dataset_digest=dataset.digest,
        fitted_on="everything",
    )


def ranker_pointer(ranker: Ranker, registered: "Registered", dataset: Current, run_id: str) -> Current:
    """Return the pointer that names a registered ranker as the newest."""
    return Current(
        asset="ranker", path=registered.directory, digest=registered.manifest.digest, run_id=run_id,
        as_of=dataset.as_of, t0=dataset.t0, t1=dataset.t1, version=registered.version,
        inputs={**dataset.inputs, "ranking_dataset": dataset.digest}, facts={"order": ranker.order.value},
    )  # fmt: skip
