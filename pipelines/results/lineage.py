"""Where an artefact comes from: the tags every version carries, equal for equal inputs and code."""

from pipelines.results.code_version import code_version
from pipelines.results.store import StepResult, combined_digest, iso


def lineage_of(snapshot: StepResult, **more: str | None) -> dict[str, str]:
    """Return the lineage of an artefact made from the snapshot that `snapshot`, the interactions' pointer, names."""
    known: dict[str, str | None] = {
        "people_digest": snapshot.inputs.get("people"),
        "interactions_digest": snapshot.digest,
        "dataset_digest": combined_digest({"people": snapshot.inputs.get("people"), "interactions": snapshot.digest}),
        "as_of": iso(snapshot.as_of),
        "t0": iso(snapshot.t0) if snapshot.t0 else None,
        "t1": iso(snapshot.t1) if snapshot.t1 else None,
        "code_version": code_version(),
        **more,
    }
    return {name: value for name, value in known.items() if value is not None}
