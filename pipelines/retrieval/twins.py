"""Twins of an embedding, of equal settings and never released: fitted up to T0, up to T1, and on a part of all pairs.

Training rows come from the early twin's candidates; lists are judged on the judged twin's, because what is released
has learned every decision that could judge it. The spread twin has learned all but pairs held back from everywhere.
"""

from typing import TYPE_CHECKING

from pipelines.errors import MissingUpstream
from registry.models.embedding import Embedding

if TYPE_CHECKING:
    from pipelines.resources import Platform
    from pipelines.results.store import StepResult

EARLY, JUDGED, SPREAD = "embeddings_early", "embeddings_judged", "embeddings_spread"


def keep_twin(platform: "Platform", name: str, embedding: Embedding, lineage: dict[str, str]) -> str:
    """Keep the files of a twin beside the other results of the pipeline and return its digest."""
    with platform.results.staging(name) as scratch:
        staged = scratch / "artifact"
        manifest = embedding.save(staged, lineage)
        platform.results.adopt(staged, name, manifest.digest)
    return manifest.digest


def twin(platform: "Platform", name: str, made: "StepResult") -> Embedding:
    """Return the twin that was kept with a result, or with what it was made from.

    Raises:
        MissingUpstream: none was, or its files are gone.
    """
    digest = made.parts.get(name)
    if digest is None:
        raise MissingUpstream(f"no `{name}` was kept with the newest `{made.asset}`; run the job `train_all` again")
    return Embedding.load(platform.results.path(name, digest), digest)
