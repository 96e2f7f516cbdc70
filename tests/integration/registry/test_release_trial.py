"""Damaged files whose digests are right: what a reader makes of them must end a child, never the one who serves."""

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from feature_repo.layout import RANKING_FEATURES
from feature_repo.schema import offered_schema
from registry.contracts import ArtifactKind, ReleaseVersions
from registry.errors import TrialFailed
from registry.models.artifacts import read_manifest
from registry.promotion.release_cache import LocalRelease
from registry.promotion.trial import ReleaseTrial, TrialLimits
from tests.crafted import crash_the_reader, reseal
from tests.serving_world import write_artifacts

Paths = dict[ArtifactKind, Path]
TRIAL = ReleaseTrial(offered_schema(), RANKING_FEATURES)


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return write_artifacts(tmp_path / "release", range(1, 41))


def local_copy(paths: Paths) -> LocalRelease:
    digests = {kind: read_manifest(path).digest for kind, path in paths.items()}
    return LocalRelease(ReleaseVersions(1, 1, 1), paths, digests, {})


def reseal_family(paths: Paths) -> None:
    """Make the index name the changed embedding as its own, so that nothing but the contents is wrong."""
    reseal(paths[ArtifactKind.EMBEDDING])
    digest = read_manifest(paths[ArtifactKind.EMBEDDING]).digest
    reseal(paths[ArtifactKind.INDEX], lineage={"embedding_digest": digest})


def refusal(paths: Paths, trial: ReleaseTrial = TRIAL) -> str:
    with pytest.raises(TrialFailed) as refused:
        trial.prove(local_copy(paths))
    return str(refused.value)


def test_a_sound_release_passes(paths: Paths) -> None:
    TRIAL.prove(local_copy(paths))


def test_a_model_that_crashes_its_reader_ends_the_child_and_is_refused(paths: Paths) -> None:
    crash_the_reader(paths)
    assert "which ended by SIG" in refusal(paths)


def test_a_release_that_does_not_answer_in_time_is_refused(paths: Paths) -> None:
    trial = ReleaseTrial(offered_schema(), RANKING_FEATURES, TrialLimits(timeout_s=0.05))
    assert "did not load and answer within 0.05 s" in refusal(paths, trial)


def test_a_release_that_takes_more_memory_than_its_size_explains_is_refused(paths: Paths) -> None:
    trial = ReleaseTrial(offered_schema(), RANKING_FEATURES, TrialLimits(base_bytes=0, per_byte=0.0))
    assert refusal(paths, trial)


def test_no_trial_begins_once_the_process_is_ending(paths: Paths) -> None:
    trial = ReleaseTrial(offered_schema(), RANKING_FEATURES)
    trial.close()
    assert "is ending" in refusal(paths, trial)


def damaged_index(paths: Paths) -> None:
    path = paths[ArtifactKind.INDEX] / "index.faiss"
    raw = bytearray(path.read_bytes())
    raw[8:16] = struct.pack("<q", 2**40)  # how many vectors it claims to hold
    path.write_bytes(raw)
    reseal(paths[ArtifactKind.INDEX])


def truncated_index(paths: Paths) -> None:
    path = paths[ArtifactKind.INDEX] / "index.faiss"
    path.write_bytes(path.read_bytes()[:200])
    reseal(paths[ArtifactKind.INDEX])


def flipped_bits(paths: Paths) -> None:
    path = paths[ArtifactKind.EMBEDDING] / "chosen.npy"
    raw = bytearray(path.read_bytes())
    raw[-3] ^= 0x40
    path.write_bytes(raw)


def poisoned(name: str, value: float) -> Callable[[Paths], None]:
    def poison(paths: Paths) -> None:
        path = paths[ArtifactKind.EMBEDDING] / name
        factors = np.load(path)
        factors[7, 1] = value
        np.save(path, factors)
        reseal_family(paths)

    return poison


def nothing_but_zeros(paths: Paths) -> None:
    path = paths[ArtifactKind.EMBEDDING] / "chosen.npy"
    np.save(path, np.zeros_like(np.load(path)))
    reseal_family(paths)


def other_dimension(paths: Paths) -> None:
    for name in ("chooser.npy", "chosen.npy"):
        path = paths[ArtifactKind.EMBEDDING] / name
        np.save(path, np.load(path)[:, :3])
    reseal_family(paths)


def other_family(paths: Paths) -> None:
    path = paths[ArtifactKind.EMBEDDING] / "chosen.npy"
    np.save(path, -np.load(path))
    reseal_family(paths)  # the same dimension, and even the lineage says that they belong together


def other_schema(paths: Paths) -> None:
    reseal(paths[ArtifactKind.RANKER], lineage={"feature_schema": "0" * 64})


def renamed_feature(paths: Paths) -> None:
    path = paths[ArtifactKind.RANKER] / "features.json"
    path.write_bytes(path.read_bytes().replace(b"score_forward", b"score_backward"))
    reseal(paths[ArtifactKind.RANKER])


def unknown_feature(paths: Paths) -> None:
    path = paths[ArtifactKind.RANKER] / "features.json"
    path.write_bytes(path.read_bytes().replace(b"score_forward", b"charisma"))
    reseal(paths[ArtifactKind.RANKER])


def truncated_model(paths: Paths) -> None:
    path = paths[ArtifactKind.RANKER] / "model.ubj"
    path.write_bytes(path.read_bytes()[:-500])
    reseal(paths[ArtifactKind.RANKER])


def too_few_ids(paths: Paths) -> None:
    path = paths[ArtifactKind.INDEX] / "user_ids.npy"
    np.save(path, np.load(path)[:-1])
    reseal(paths[ArtifactKind.INDEX])


DAMAGES: tuple[tuple[Callable[[Paths], None], str], ...] = (
    (damaged_index, ""),
    (truncated_index, "is not a FAISS index"),
    (flipped_bits, "sha256"),
    (poisoned("chosen.npy", np.nan), "`chosen` holds NaN or infinite values"),
    (poisoned("chooser.npy", np.inf), "`chooser` holds NaN or infinite values"),
    (poisoned("chooser.npy", 1e30), "absurdly large"),
    (nothing_but_zeros, "nothing but zeros"),
    (other_dimension, "The factors do not align"),
    (other_family, "50% of its factors are not the embedding's"),
    (other_schema, "feature schema"),
    (renamed_feature, "names inside the model"),
    (unknown_feature, "`charisma`"),
    (truncated_model, "is not an XGBoost model"),
    (too_few_ids, "for 39 people"),
)


@pytest.mark.parametrize(("damage", "said"), DAMAGES, ids=[damage.__name__ for damage, _ in DAMAGES])
def test_what_is_damaged_or_does_not_fit_is_refused_before_it_serves(
    paths: Paths, damage: Callable[[Paths], None], said: str
) -> None:
    damage(paths)
    assert said in refusal(paths)
