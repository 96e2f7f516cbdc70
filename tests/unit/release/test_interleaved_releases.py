"""Two releases compared offline: the one whose people were liked afterwards wins."""

from types import MappingProxyType

import numpy as np
import pytest

from pipelines.release.errors import NothingToCompare
from pipelines.release.interleaving import credited, learned_until
from registry.contracts import ArtifactKind, FileEntry, Manifest, ReleaseVersions
from registry.experiments.interleaving import outcome
from registry.release import Release


def test_a_release_that_lists_the_liked_wins_against_one_that_lists_anybody() -> None:
    rng = np.random.default_rng(3)
    won = []
    for _ in range(200):
        everybody = rng.permutation(100)
        liked, others = everybody[:5], everybody[5:]
        won.append(credited([everybody[:10], others[:10]], liked, rng))
    found = outcome(np.array(won))
    assert (found.first_wins, found.second_wins) == (200, 0)
    assert found.p_value < 1e-6


def test_a_release_against_itself_wins_as_often_as_it_loses() -> None:
    rng = np.random.default_rng(3)
    won = [credited([one, one], one[:1], rng) for one in (rng.permutation(100)[:10] for _ in range(400))]
    assert outcome(np.array(won)).p_value > 0.05
    assert outcome(np.array(won)).draws == 0


def release(**ends: str) -> Release:
    manifests = {
        kind: Manifest(
            kind=kind,
            files={"file": FileEntry(sha256="0" * 64, size=1)},
            lineage={"as_of": ends[kind.value]} if kind.value in ends else {},
        )
        for kind in ArtifactKind
    }
    return Release(ReleaseVersions(1, 1, 1), None, None, None, MappingProxyType(manifests))  # type: ignore[arg-type]


def test_a_release_has_learned_up_to_the_end_of_its_newest_part() -> None:
    ends = {"embedding": "2026-05-01T00:00:00+00:00", "index": "2026-05-03T00:00:00+00:00"}
    assert learned_until(release(**ends, ranker="2026-05-02T00:00:00+00:00")).day == 3
    with pytest.raises(NothingToCompare, match="e1-i1-r1 does not say up to when it has learned"):
        learned_until(release(**ends))
