"""A candidate is only made of parts that are there."""

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.errors import MissingUpstream
from pipelines.release.candidate import find_candidate
from pipelines.release.errors import NoCandidate
from pipelines.results.store import ResultStore, StepResult
from registry.contracts import ArtifactKind


def platform_with_an_index_of(embedding: str, data_dir: Path) -> Any:
    results = ResultStore(data_dir / "pipeline")
    for asset, inputs in (("candidate_index", {"embeddings": embedding}), ("ranker", {})):
        results.directory(asset, "a" * 64).mkdir(parents=True)
        at = datetime(2026, 1, 1, tzinfo=UTC)
        results.publish(StepResult(asset=asset, digest="a" * 64, run_id="run", as_of=at, inputs=inputs))
    empty = SimpleNamespace(versions=lambda _kind: [], in_stage=lambda _stage: {})
    return SimpleNamespace(results=results, registry=empty)


def parts(platform: Any) -> tuple[StepResult, StepResult]:
    return platform.results.require("candidate_index"), platform.results.require("ranker")


def test_an_index_whose_embedding_is_gone_makes_no_candidate(tmp_path: Path) -> None:
    platform = platform_with_an_index_of("e" * 64, tmp_path)
    with pytest.raises(NoCandidate, match=r"embedding eeeeeeeeeeee of the index is neither among the results nor in"):
        find_candidate(platform, *parts(platform), "run")


def test_without_a_ranker_in_production_or_made_here_there_is_no_candidate(tmp_path: Path) -> None:
    platform = platform_with_an_index_of("e" * 64, tmp_path)
    index, _ = parts(platform)
    with pytest.raises(MissingUpstream, match="no `ranker` was made here yet; run the job `train_all` first"):
        find_candidate(platform, index, None, "run")


def test_the_index_decides_which_embedding_is_meant(tmp_path: Path) -> None:
    platform = platform_with_an_index_of("e" * 64, tmp_path)
    platform.results.directory("embeddings", "e" * 64).mkdir(parents=True)
    candidate = find_candidate(platform, *parts(platform), "run")
    assert candidate.directories[ArtifactKind.EMBEDDING] == platform.results.directory("embeddings", "e" * 64)
