"""Twins of an embedding, of equal settings and never released: fitted up to T0, up to T1, and on a part of all pairs.

Training rows come from the early twin's candidates; lists are judged on the judged twin's, because what is released
has learned every decision that could judge it. The spread twin has learned all but pairs held back from everywhere.
"""

from typing import TYPE_CHECKING

from registry.embedding import Embedding

if TYPE_CHECKING:
    from pipelines.resources import Platform
    from pipelines.state import Current

EARLY, JUDGED, SPREAD = "embeddings_early", "embeddings_judged", "embeddings_spread"


def keep_twin(
    platform: "Platform", name: str, embedding: Embedding, pointer: "Current", *, lineage: dict[str, str], run_id: str
) -> None:
    """Keep a twin beside the other results of the pipeline."""
    from pipelines.state import Current

    with platform.state.staging(name) as scratch:
        staged = scratch / "artifact"
        manifest = embedding.save(staged, lineage)
        directory = platform.state.adopt(staged, name, manifest.digest)
    platform.state.publish(
        Current(
            asset=name,
            path=directory,
            digest=manifest.digest,
            run_id=run_id,
            as_of=pointer.as_of,
            t0=pointer.t0,
            t1=pointer.t1,
            inputs={**pointer.inputs, "interactions": pointer.digest},
        )
    )


def twin(platform: "Platform", name: str) -> Embedding:
    """Return a twin; raises MissingUpstream where none was made."""
    made = platform.state.require(name)
    return Embedding.load(made.path, made.digest)
